/** The runs of the past, newest first. */

import { button, byId, icon, make } from "./dom.js";
import { duration, longTime, pipelineName, shortTime, statusIcon, statusWord } from "./format.js";
import { clearProblem, showProblem } from "./problem.js";
import { isFinal } from "./run.js";

const PAGE = 12;

/** Lists runs and lets one be looked at, resumed or run again. */
export class History {
  #api;
  #actions;
  #runs = [];
  #shown = null;

  /**
   * @param {import("./api.js").Api} api
   * @param {{onResume: (runId: string) => Promise<void>, onAgain: (runId: string) => Promise<void>}} actions
   */
  constructor(api, actions) {
    this.#api = api;
    this.#actions = actions;
    byId("history-status").addEventListener("change", () => this.#reload());
    byId("history-more").addEventListener("click", () => this.#load({ before: this.#runs.at(-1)?.run_id }));
  }

  /** Asks for the newest runs; older ones that were loaded stay. */
  refresh() {
    return this.#load({});
  }

  /** Marks the run in view. */
  mark(runId) {
    this.#shown = runId;
    for (const row of byId("history").children) {
      row.querySelector(".history-open").ariaCurrent = row.dataset.runId === runId ? "true" : null;
    }
  }

  #reload() {
    this.#runs = [];
    byId("history").replaceChildren();
    return this.#load({});
  }

  async #load({ before }) {
    const status = byId("history-status").value;
    try {
      const page = await this.#api.history({ limit: PAGE, before, status });
      if (status !== byId("history-status").value) return;
      clearProblem(byId("history-problem"));
      if (before || this.#runs.length <= PAGE) byId("history-more").hidden = page.length < PAGE;
      this.#runs = before ? merged(this.#runs, page) : merged(page, this.#runs);
      this.#render();
    } catch (problem) {
      showProblem(byId("history-problem"), problem);
    }
  }

  #render() {
    byId("history-empty").hidden = this.#runs.length > 0;
    const focused = document.activeElement.closest("#history [data-run-id]")?.dataset.runId;
    byId("history").replaceChildren(...this.#runs.map((run) => this.#row(run)));
    this.mark(this.#shown);
    if (focused) byId("history").querySelector(`[data-run-id="${CSS.escape(focused)}"] a`)?.focus();
  }

  #row(run) {
    const name = pipelineName(run.pipeline);
    const length = duration(run.duration_seconds);
    return make("li", { "data-run-id": run.run_id, "data-status": run.status },
      make("a", { class: "history-open", href: `#run=${run.run_id}` },
        make("span", { class: "status", "data-status": run.status },
          icon(statusIcon(run.status)), make("span", {}, statusWord(run.status))),
        make("time", { datetime: run.started_at, title: longTime(run.started_at) }, shortTime(run.started_at)),
        make("strong", { title: run.pipeline }, name),
        make("span", { class: "history-length" }, length),
        run.message ? make("span", { class: "history-message", title: run.message }, run.message) : null),
      isFinal(run.status) ? this.#rowActions(run, name) : null);
  }

  #rowActions({ run_id: runId, status }, name) {
    const place = make("div", { class: "problem", role: "alert", hidden: true });
    const act = (action) => async ({ currentTarget }) => {
      currentTarget.disabled = true;
      try {
        await action(runId);
      } catch (problem) {
        showProblem(place, problem);
      }
      currentTarget.disabled = false;
    };
    const resume = button("Resume", act(this.#actions.onResume), { class: "link", "aria-label": `Resume ${name}` });
    const again = button("Run again", act(this.#actions.onAgain), { class: "link", "aria-label": `Run ${name} again` });
    return make("div", { class: "history-actions" }, status === "succeeded" ? null : resume, again, place);
  }
}

/** The first list, then what only the second has. */
function merged(first, second) {
  const known = new Set(first.map(({ run_id: runId }) => runId));
  return [...first, ...second.filter(({ run_id: runId }) => !known.has(runId))];
}
