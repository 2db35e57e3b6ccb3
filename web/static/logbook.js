/** The lines of one run's log, and the search through them; no document here. */

const MOST_LINES = 200_000;
/** Dropped at once when over the limit, so that the array is not moved for each line. */
const DROP = 10_000;
const TERMINAL_CODES = /\u001b\[[0-9;?]*[A-Za-z]/g;
const ERROR_WORD = /\b(?:ERROR|FATAL|Exception|Traceback)\b/;
const WARNING_WORD = /\bWARN(?:ING)?\b/;

/**
 * @typedef {object} Entry
 * @property {number} place position among all entries ever kept; stays the same when older ones are dropped
 * @property {number|null} line the line number in the run; null for a gap
 * @property {string} text
 * @property {string} time
 * @property {"error"|"warning"|"gap"|""} tone
 * @property {boolean} stderr
 */

/** Lines in order, bounded, each with a lasting place. */
export class LogBook {
  /** @type {Entry[]} */
  entries = [];
  /** Places of the entries that match the search. */
  matches = [];
  /** Lines taken, gaps not counted. */
  lines = 0;
  #dropped = 0;
  #lastLine = 0;
  #pattern = null;

  /** The place after the last entry. */
  get end() {
    return this.#dropped + this.entries.length;
  }

  /** The place of the first entry that is kept. */
  get begin() {
    return this.#dropped;
  }

  get pattern() {
    return this.#pattern;
  }

  at(place) {
    return this.entries[place - this.#dropped];
  }

  /** Notes that older lines are gone, until the next line tells which. */
  gap() {
    if (this.entries.at(-1)?.tone !== "gap") this.#push(gapEntry("Earlier lines are no longer kept"));
  }

  /** @param {{timestamp: string, message: string, stream: string, line: number}[]} lines */
  append(lines) {
    for (const line of lines) {
      const number = line.line ?? this.#lastLine + 1;
      this.#explainGap(number);
      this.#push(lineEntry(line, number));
      this.#lastLine = number;
      this.lines += 1;
    }
    if (this.entries.length > MOST_LINES) this.#dropOldest();
  }

  /** Searches for the words as they stand, in any case; an empty text ends the search. */
  search(text) {
    this.#pattern = text ? new RegExp(text.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&"), "i") : null;
    this.matches = [];
    for (const entry of this.entries) this.#match(entry);
  }

  #explainGap(number) {
    const last = this.entries.at(-1);
    const missing = number - this.#lastLine - 1;
    if (last?.tone === "gap") {
      if (missing > 0) last.text = gapText(this.#lastLine + 1, number - 1);
      else this.entries.pop();
    } else if (missing > 0) {
      this.#push(gapEntry(gapText(this.#lastLine + 1, number - 1)));
    }
  }

  #push(entry) {
    entry.place = this.end;
    this.entries.push(entry);
    this.#match(entry);
  }

  #match(entry) {
    if (!this.#pattern || entry.tone === "gap") return;
    if (this.#pattern.test(entry.text)) this.matches.push(entry.place);
  }

  #dropOldest() {
    this.entries.splice(0, DROP);
    this.#dropped += DROP;
    const first = this.entries[0];
    this.entries[0] = { ...gapEntry(`Lines up to ${first.line} are no longer shown`), place: first.place };
    const kept = this.matches.findIndex((place) => place > first.place);
    this.matches = kept < 0 ? [] : this.matches.slice(kept);
  }
}

const gapText = (from, to) =>
  from === to ? `Line ${from} is no longer kept` : `Lines ${from} to ${to} are no longer kept`;

const gapEntry = (text) => ({ place: 0, line: null, text, time: "", tone: "gap", stderr: false });

function lineEntry({ timestamp, message, stream }, number) {
  const text = String(message ?? "").replace(TERMINAL_CODES, "").replace(/[\r\n]+$/, "");
  return { place: 0, line: number, text, time: timestamp ?? "", tone: toneOf(text), stderr: stream === "stderr" };
}

function toneOf(text) {
  if (ERROR_WORD.test(text)) return "error";
  return WARNING_WORD.test(text) ? "warning" : "";
}
