/** One row a process: its name, a bar in segments, the same in words. */

import { byId, make, setText } from "./dom.js";
import { count, plural } from "./format.js";

const KINDS = ["succeeded", "cached", "failed", "aborted", "running", "pending"];

/** Draws the processes of a run, keeping the rows it has, so that the bars move and do not jump. */
export class Processes {
  #rows = new Map();
  #list = byId("processes");

  /** @param {{processes: object[]}|null} progress */
  render(progress) {
    const processes = progress?.processes ?? [];
    byId("processes-section").hidden = processes.length === 0;
    const names = new Set(processes.map(({ name }) => name));
    for (const [name, row] of this.#rows) {
      if (names.has(name)) continue;
      row.remove();
      this.#rows.delete(name);
    }
    for (const process of processes) this.#update(process);
  }

  #update(process) {
    let row = this.#rows.get(process.name);
    if (!row) {
      row = rowElement(process.name);
      this.#rows.set(process.name, row);
      this.#list.append(row);
    }
    fill(row, process);
  }
}

function rowElement(name) {
  const cut = name.lastIndexOf(":") + 1;
  const bar = make("div", { class: "bar segments", role: "progressbar", "aria-label": name, "aria-valuemin": 0 });
  bar.append(...KINDS.slice(0, -1).map((kind) => make("span", { class: "segment", "data-kind": kind })));
  return make("li", { "data-process": name },
    make("span", { class: "process-name", title: name },
      cut > 0 ? make("span", { class: "process-path" }, name.slice(0, cut)) : null, name.slice(cut)),
    bar,
    make("span", { class: "process-words" }),
    make("span", { class: "process-sum" }));
}

function fill(row, process) {
  const total = KINDS.reduce((sum, kind) => sum + (process[kind] ?? 0), 0);
  const done = total - ["pending", "running", "aborted"].reduce((sum, kind) => sum + (process[kind] ?? 0), 0);
  for (const kind of KINDS) row.dataset[kind] = process[kind] ?? 0;
  const bar = row.querySelector(".bar");
  for (const segment of bar.children) {
    segment.style.width = `${total ? ((process[segment.dataset.kind] ?? 0) / total) * 100 : 0}%`;
  }
  const words = wordsOf(process);
  bar.setAttribute("aria-valuemax", Math.max(total, 1));
  bar.setAttribute("aria-valuenow", done);
  bar.setAttribute("aria-valuetext", `${done} of ${total} done, ${words}`);
  setText(row.querySelector(".process-words"), words);
  setText(row.querySelector(".process-sum"), `${count(done)} / ${count(total)}`);
}

function wordsOf(process) {
  const words = KINDS.filter((kind) => process[kind] > 0).map((kind) => `${count(process[kind])}\u00a0${kind}`);
  if (process.retries > 0) words.push(plural(process.retries, "retry", "retries"));
  return words.join(" · ") || "waiting";
}
