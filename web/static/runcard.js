/** The card of the run in view: what it is, how it goes, what can be done with it. */

import { button, byId, icon, make, setOptionalText, setText } from "./dom.js";
import { bytes, clock, longTime, pipelineName, plural, shortTime, statusIcon, statusWord } from "./format.js";
import { clearProblem, showProblem } from "./problem.js";

const CAN_CANCEL = new Set(["queued", "starting", "running"]);
const CAN_RESUME = new Set(["failed", "cancelled"]);

/** Draws one run, or that there is none. */
export class RunCard {
  #api;
  #artifactsOf = null;
  #errorsDrawn = -1;
  #runId = null;

  /**
   * @param {import("./api.js").Api} api
   * @param {{onCancel: (runId: string) => Promise<void>, onResume: (runId: string) => Promise<void>,
   *   onAgain: (runId: string) => Promise<void>}} actions each rejects with a Problem
   */
  constructor(api, { onCancel, onResume, onAgain }) {
    this.#api = api;
    byId("cancel").addEventListener("click", () => this.#ask(true));
    byId("cancel-keep").addEventListener("click", () => this.#ask(false));
    byId("cancel-confirm").addEventListener("click", () => this.#act("cancel-confirm", onCancel));
    byId("resume").addEventListener("click", () => this.#act("resume", onResume));
    byId("again").addEventListener("click", () => this.#act("again", onAgain));
    byId("cancel-ask").addEventListener("keydown", ({ key }) => {
      if (key === "Escape") this.#ask(false);
    });
  }

  /** Draws a run. @param {import("./run.js").Run} run */
  render(run) {
    if (run.id !== this.#runId) this.#begin(run.id);
    drawStatus(run.status);
    setText(byId("run-title"), pipelineName(run.info.pipeline));
    byId("run-title").title = run.info.pipeline ?? "";
    setOptionalText(byId("run-message"), run.info.message);
    drawProgress(run);
    drawFacts(run);
    drawParameters(run.info.parameters);
    this.#drawErrors(run.errors);
    this.#drawActions(run.status);
    if (run.final) this.#loadArtifacts(run.id);
  }

  /** Draws that no run is active, or that the one asked for is not there. */
  renderNone(status, title, message) {
    this.#begin(null);
    drawStatus(status);
    setText(byId("run-title"), title);
    byId("run-title").title = "";
    setOptionalText(byId("run-message"), message);
    for (const id of ["run-progress", "run-facts", "run-parameters", "run-actions", "errors"]) byId(id).hidden = true;
  }

  /** Moves the clock. @param {import("./run.js").Run|null} run @param {number} now the server's clock */
  tick(run, now) {
    const seconds = run?.elapsed(now) ?? null;
    byId("run-clock").hidden = seconds === null;
    if (seconds !== null) setText(byId("run-clock"), clock(seconds));
  }

  #begin(runId) {
    this.#runId = runId;
    this.#artifactsOf = null;
    this.#errorsDrawn = -1;
    byId("artifacts").hidden = true;
    byId("run-facts").replaceChildren();
    byId("cancel-ask").hidden = true;
    clearProblem(byId("run-problem"));
  }

  #drawErrors(errors) {
    byId("errors").hidden = errors.length === 0;
    if (errors.length === this.#errorsDrawn) return;
    this.#errorsDrawn = errors.length;
    const onlyWarnings = errors.every(({ level }) => level === "warning");
    setText(byId("errors-title"), onlyWarnings ? "Worth a look" : "What went wrong");
    byId("errors").dataset.level = onlyWarnings ? "warning" : "error";
    byId("error-list").replaceChildren(...errors.map(errorElement));
  }

  #drawActions(status) {
    const asking = !byId("cancel-ask").hidden;
    const canCancel = CAN_CANCEL.has(status);
    if (!canCancel) byId("cancel-ask").hidden = true;
    byId("cancel").hidden = !canCancel || asking;
    byId("resume").hidden = !CAN_RESUME.has(status);
    byId("again").hidden = canCancel || status === "cancelling";
    byId("run-actions").hidden = status === "cancelling";
  }

  #ask(on) {
    byId("cancel-ask").hidden = !on;
    byId("cancel").hidden = on;
    byId(on ? "cancel-confirm" : "cancel").focus();
  }

  async #act(id, action) {
    const control = byId(id);
    const runId = this.#runId;
    control.disabled = true;
    clearProblem(byId("run-problem"));
    try {
      await action(runId);
    } catch (problem) {
      if (runId === this.#runId) showProblem(byId("run-problem"), problem);
    }
    control.disabled = false;
  }

  async #loadArtifacts(runId) {
    if (this.#artifactsOf === runId) return;
    this.#artifactsOf = runId;
    try {
      const { artifacts } = await this.#api.artifacts(runId);
      if (this.#artifactsOf !== runId) return;
      byId("artifact-list").replaceChildren(...artifacts.map((artifact) => artifactElement(this.#api, artifact)));
      byId("artifacts").hidden = artifacts.length === 0;
    } catch {
      // Reports are an extra: a run without them is shown as it is.
      byId("artifacts").hidden = true;
    }
  }
}

/** A link that also works when the API asks for a token, which a plain link cannot carry. */
export function downloadWithToken(api, link, fileName) {
  link.addEventListener("click", async (event) => {
    if (!api.token) return;
    event.preventDefault();
    const address = URL.createObjectURL(await api.blob(link.href));
    make("a", { href: address, download: fileName() }).click();
    setTimeout(() => URL.revokeObjectURL(address), 60_000);
  });
}

function drawStatus(status) {
  const pill = byId("run-status");
  if (pill.dataset.status === status && pill.childElementCount > 0) return;
  pill.dataset.status = status;
  pill.replaceChildren(icon(statusIcon(status)), make("span", {}, statusWord(status)));
}

function drawProgress({ status, percent, progress }) {
  const bar = byId("overall-bar");
  const shown = Math.floor(percent);
  byId("run-progress").hidden = status === "queued" || (!progress && status !== "running" && status !== "starting");
  bar.dataset.status = status;
  bar.toggleAttribute("data-waiting", !progress && (status === "starting" || status === "running"));
  bar.setAttribute("aria-valuenow", shown);
  bar.firstElementChild.style.width = `${percent}%`;
  setText(byId("overall-percent"), progress ? `${shown}%` : "");
  setText(byId("overall-words"), progress ? progressWords(progress) : "Waiting for the first task");
  bar.setAttribute("aria-valuetext", progress ? `${shown}%, ${progressWords(progress)}` : "Waiting for the first task");
}

function progressWords({ completed, total, executor }) {
  const words = `${completed} of ${plural(total, "task")}`;
  return executor ? `${words} · ${executor} executor` : words;
}

function drawFacts({ id, info, status }) {
  const facts = [
    ["Run", make("a", { id: "run-id", class: "mono", href: `#run=${id}`, title: "A link to this run" }, id)],
    ["Revision", info.revision],
    ["Profile", info.profile],
    [info.started_at ? "Started" : "Queued", timeElement(info.started_at ?? info.queued_at)],
    ["Finished", timeElement(info.finished_at)],
    ["Started by", info.triggered_by],
    ["Job", info.job_name],
    ["Exit code", info.exit_code],
  ].filter(([, value]) => value !== null && value !== undefined && value !== "");
  const list = byId("run-facts");
  const key = JSON.stringify([id, status, info]);
  list.hidden = false;
  if (list.dataset.key === key && list.childElementCount > 0) return;
  list.dataset.key = key;
  list.replaceChildren(...facts.map(([name, value]) =>
    make("div", { "data-fact": name }, make("dt", {}, name), make("dd", {}, value instanceof Node ? value : String(value)))));
}

function timeElement(moment) {
  return moment ? make("time", { datetime: moment, title: longTime(moment) }, shortTime(moment)) : null;
}

function drawParameters(parameters) {
  const entries = Object.entries(parameters ?? {});
  const list = byId("parameter-list");
  const key = JSON.stringify(entries);
  byId("run-parameters").hidden = entries.length === 0;
  if (list.dataset.key === key) return;
  list.dataset.key = key;
  list.replaceChildren(...entries.map(([name, value]) => make("div", {},
    make("dt", {}, name),
    make("dd", {}, typeof value === "string" ? value : JSON.stringify(value)))));
}

function errorElement({ level, message, source, task, hint }) {
  const where = [level === "warning" ? "Warning" : "Error", source, task && `task ${task}`].filter(Boolean).join(" · ");
  return make("li", { "data-level": level },
    make("p", { class: "error-where" }, where),
    make("p", { class: "error-message" }, message),
    hint ? make("p", { class: "error-hint" }, make("strong", {}, "What to try: "), hint) : null);
}

function artifactElement(api, { name, size, kind, url }) {
  const link = make("a", { href: url, target: "_blank", rel: "noopener" }, name);
  downloadWithToken(api, link, () => name.split("/").at(-1));
  const words = [kind, bytes(size)].filter(Boolean).join(", ");
  return make("li", {}, link, words ? make("span", { class: "muted" }, ` ${words}`) : null);
}

/**
 * Draws the runs that wait.
 * @param {{run_id: string, pipeline?: string, queued_at?: string}[]} queue in order
 * @param {(runId: string) => Promise<void>} onCancel
 */
export function drawQueue(queue, onCancel) {
  byId("queue-section").hidden = queue.length === 0;
  // Rows that stay are kept: somebody may be answering the question in one.
  const rows = new Map([...byId("queue").children].map((row) => [row.dataset.runId, row]));
  byId("queue").replaceChildren(...queue.map((waiting, index) => {
    const row = rows.get(waiting.run_id) ?? queueElement(waiting, onCancel);
    row.dataset.position = index + 1;
    setText(row.firstElementChild, String(index + 1));
    return row;
  }));
}

function queueElement({ run_id: runId, pipeline, queued_at: queuedAt, triggered_by: by }, onCancel) {
  const since = [queuedAt && `since ${shortTime(queuedAt)}`, by && `by ${by}`].filter(Boolean).join(", ");
  const ask = make("span", { class: "ask", hidden: true });
  const cancel = button("Cancel", () => toggle(true), { class: "small" });
  const keep = button("Keep", () => toggle(false), { class: "small" });
  const confirm = button("Yes, cancel it", () => onCancel(runId), { class: "small danger" });
  function toggle(asking) {
    ask.hidden = !asking;
    cancel.hidden = asking;
    (asking ? confirm : cancel).focus();
  }
  ask.append(confirm, keep);
  return make("li", { "data-run-id": runId },
    make("span", { class: "position" }),
    make("a", { href: `#run=${runId}` }, pipelineName(pipeline ?? runId)),
    make("span", { class: "muted" }, since), cancel, ask);
}
