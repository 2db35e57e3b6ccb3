/** The table of a run's Nextflow tasks; asked for only while it is open. */

import { byId, icon, make, setText, throttled } from "./dom.js";
import { bytes, count, duration } from "./format.js";
import { clearProblem, showProblem } from "./problem.js";

const EVERY = 3_000;
const MOST_ROWS = 500;
const ICONS = {
  new: "queued", submitted: "queued", running: "running", completed: "succeeded", succeeded: "succeeded",
  cached: "succeeded", failed: "failed", aborted: "cancelled",
};
const FIRST = ["failed", "aborted", "running", "submitted"];

/** Shows the tasks of one run at a time. */
export class Tasks {
  #api;
  #runId = null;
  #panel = byId("tasks");
  #load = throttled(() => this.#fetch(), EVERY);

  constructor(api) {
    this.#api = api;
    this.#panel.addEventListener("toggle", () => this.refresh());
  }

  /** Turns to another run, or to none. */
  show(runId) {
    this.#runId = runId;
    byId("task-rows").replaceChildren();
    setText(byId("tasks-count"), "");
    this.refresh();
  }

  /** Says that the tasks may have changed. */
  refresh() {
    if (this.#panel.open && this.#runId) this.#load();
  }

  async #fetch() {
    const runId = this.#runId;
    if (!runId) return;
    try {
      const { tasks, total } = await this.#api.tasks(runId);
      if (runId === this.#runId) this.#render(tasks, total ?? tasks.length);
    } catch (problem) {
      showProblem(byId("tasks-problem"), problem);
    }
  }

  #render(tasks, total) {
    clearProblem(byId("tasks-problem"));
    const shown = [...tasks].sort(byInterest).slice(0, MOST_ROWS);
    byId("task-rows").replaceChildren(...shown.map(rowElement));
    setText(byId("tasks-count"), shown.length < total ? `${count(shown.length)} of ${count(total)}` : count(total));
  }
}

/** Failed first, then those at work, then the newest. */
function byInterest(one, other) {
  return interest(one) - interest(other) || other.task_id - one.task_id;
}

function interest({ status }) {
  const rank = FIRST.indexOf(status?.toLowerCase());
  return rank < 0 ? FIRST.length : rank;
}

function rowElement(task) {
  const status = task.status?.toLowerCase() ?? "unknown";
  const word = status.charAt(0).toUpperCase() + status.slice(1);
  return make("tr", { "data-task": task.task_id },
    make("th", { scope: "row", title: task.name }, task.name ?? `${task.process} (${task.tag ?? task.task_id})`),
    make("td", {}, make("span", { class: "status", "data-status": ICONS[status] ?? "unknown" },
      icon(ICONS[status] ?? "unknown"), word)),
    make("td", { class: "number" }, text(task.exit)),
    make("td", { class: "number" }, text(task.attempt)),
    make("td", { class: "number" }, typeof task.realtime_ms === "number" ? duration(task.realtime_ms / 1000) : "–"),
    make("td", { class: "number" }, bytes(task.peak_rss_bytes) || "–"),
    make("td", { class: "mono" }, text(task.hash)));
}

const text = (value) => (value === null || value === undefined ? "–" : String(value));
