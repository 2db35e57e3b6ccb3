/** The form that starts a run, and the examples that fill it. */

import { button, byId, make, setOptionalText } from "./dom.js";
import { duration, plural } from "./format.js";
import { Parameters } from "./parameters.js";
import { clearProblem, fieldPath, showProblem } from "./problem.js";

const FIELDS = { pipeline: "pipeline", revision: "revision", profile: "profile", when_busy: "when-busy" };

/** Reads what a person wants to run. */
export class StartForm {
  #parameters = new Parameters();
  #workflows = [];
  #onStart;

  /** @param {(body: object) => Promise<void>} onStart rejects with a Problem */
  constructor(onStart) {
    this.#onStart = onStart;
    byId("start-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    byId("example").addEventListener("change", ({ target }) => this.#choose(this.#workflows[target.value]));
  }

  /** Offers the example pipelines, in the form and on the idle card. */
  offer(workflows) {
    this.#workflows = workflows;
    byId("example-field").hidden = workflows.length === 0;
    const [none] = byId("example").options;
    byId("example").replaceChildren(none, ...workflows.map(({ name }, index) => make("option", { value: index }, name)));
    byId("examples").replaceChildren(...workflows.map((workflow, index) => this.#card(workflow, index)));
  }

  /** Puts a run's request into the form, for a person to complete. */
  fill(body) {
    byId("example").value = "";
    setOptionalText(byId("example-note"), "");
    this.#write(body);
    showForm();
  }

  #card(workflow, index) {
    const card = button("", () => {
      byId("example").value = index;
      this.#choose(workflow);
      showForm();
    }, { class: "example" });
    card.append(make("strong", {}, workflow.name), make("span", {}, workflow.description ?? ""),
      make("span", { class: "muted" }, sizeOf(workflow)));
    return card;
  }

  #choose(workflow) {
    setOptionalText(byId("example-note"), workflow && [workflow.description, sizeOf(workflow)].filter(Boolean).join(" "));
    if (workflow) this.#write(workflow);
  }

  #write({ pipeline, revision, profile, parameters }) {
    byId("pipeline").value = pipeline;
    byId("revision").value = revision ?? "";
    byId("profile").value = profile ?? "";
    this.#parameters.write(parameters ?? {});
    this.#clear();
  }

  async #submit() {
    this.#clear();
    byId("start").disabled = true;
    try {
      await this.#onStart(this.#body());
    } catch (problem) {
      showProblem(byId("start-problem"), problem);
      this.#pointAt(problem.errors ?? []);
    }
    byId("start").disabled = false;
  }

  #body() {
    const body = {
      pipeline: byId("pipeline").value.trim(),
      parameters: this.#parameters.read(),
      when_busy: byId("when-busy").value,
    };
    for (const name of ["revision", "profile"]) {
      const value = byId(name).value.trim();
      if (value) body[name] = value;
    }
    return body;
  }

  #pointAt(errors) {
    const fields = errors.map(({ loc }) => byId(FIELDS[fieldPath(loc)[0]] ?? "parameter-json"));
    for (const field of fields) field.setAttribute("aria-invalid", "true");
    fields.find((field) => field.offsetParent !== null)?.focus();
  }

  #clear() {
    clearProblem(byId("start-problem"));
    for (const field of byId("start-form").querySelectorAll("[aria-invalid]")) field.removeAttribute("aria-invalid");
  }
}

function showForm() {
  byId("start-card").scrollIntoView({ block: "nearest" });
  byId("start").focus();
}

function sizeOf({ expected_duration_seconds: seconds, expected_processes: processes, expected_tasks: tasks }) {
  const [least, most] = [tasks].flat();
  return [
    seconds && `About ${seconds < 120 ? duration(seconds) : plural(Math.round(seconds / 60), "minute")}`,
    processes?.length && plural(processes.length, "process", "processes"),
    least && (most ? `${least} to ${plural(most, "task")}` : plural(least, "task")),
  ].filter(Boolean).join(" · ");
}
