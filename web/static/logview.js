/** The log on the page: only the rows in sight are in the document, however many lines there are. */

import { byId, make, oncePerFrame, setText } from "./dom.js";
import { count, plural } from "./format.js";
import { LogBook } from "./logbook.js";

/** Height of a row in pixels; viewer.css says the same (--log-row). */
const ROW = 20;
/** Rows kept ready above and below those in sight. */
const SPARE = 20;
const LONGEST_SHOWN = 4_000;
const SEARCH_PAUSE = 120;
const time = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23",
});

/** Shows a LogBook: follow, pause, search. */
export class LogView {
  #book = new LogBook();
  #rows = new Map();
  #scroller = byId("log");
  #sizer = this.#scroller.querySelector(".log-sizer");
  #list = this.#scroller.querySelector(".log-rows");
  #following = true;
  /** The place where the view was paused; null when it is not. */
  #pausedAt = null;
  /** Lines the person has been shown, or could scroll to, when following stopped. */
  #seen = 0;
  #lastTop = 0;
  #height = 0;
  #longest = 0;
  #current = -1;
  #filter = false;
  #searchTimer = null;
  #draw = oncePerFrame(() => this.#render());

  constructor() {
    this.#scroller.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    new ResizeObserver(([entry]) => {
      this.#height = entry.contentRect.height;
      this.#draw();
    }).observe(this.#scroller);
    byId("log-follow").addEventListener("click", () => this.#follow(!this.#following));
    byId("log-pause").addEventListener("click", () => this.#pause(this.#pausedAt === null));
    byId("log-new").addEventListener("click", () => this.#toNewest());
    byId("log-next").addEventListener("click", () => this.#step(1));
    byId("log-previous").addEventListener("click", () => this.#step(-1));
    byId("log-filter").addEventListener("change", ({ target }) => this.#setFilter(target.checked));
    const search = byId("log-search");
    search.addEventListener("input", () => this.#searchSoon());
    search.addEventListener("keydown", (event) => this.#searchKey(event));
  }

  /** Begins anew, for another run. */
  clear() {
    this.#book = new LogBook();
    this.#book.search(byId("log-search").value);
    this.#forgetRows();
    this.#longest = 0;
    this.#current = -1;
    this.#lastTop = 0;
    this.#pause(false);
    this.#follow(true);
  }

  append(lines) {
    this.#book.append(lines);
    for (const { message } of lines) this.#longest = Math.max(this.#longest, message?.length ?? 0);
    this.#draw();
  }

  /** Says in the log that lines before this point are lost. */
  gap() {
    this.#book.gap();
    this.#draw();
  }

  #shownEnd() {
    return this.#pausedAt ?? this.#book.end;
  }

  #rowCount() {
    const end = this.#shownEnd();
    if (!this.#filtering()) return Math.max(0, end - this.#book.begin);
    const { matches } = this.#book;
    return matches.length > 0 && matches.at(-1) >= end ? lowerBound(matches, end) : matches.length;
  }

  #filtering() {
    return this.#filter && this.#book.pattern !== null;
  }

  #entryOfRow(row) {
    return this.#book.at(this.#filtering() ? this.#book.matches[row] : this.#book.begin + row);
  }

  #rowOfPlace(place) {
    return this.#filtering() ? lowerBound(this.#book.matches, place) : place - this.#book.begin;
  }

  #render() {
    const total = this.#rowCount();
    this.#sizer.style.height = `${total * ROW}px`;
    this.#sizer.style.setProperty("--longest", Math.min(this.#longest, LONGEST_SHOWN));
    if (this.#following && this.#pausedAt === null) this.#scroller.scrollTop = total * ROW;
    const top = this.#scroller.scrollTop;
    this.#lastTop = top;
    const first = Math.max(0, Math.floor(top / ROW) - SPARE);
    const last = Math.min(total, Math.ceil((top + this.#height) / ROW) + SPARE);
    this.#place(first, last);
    this.#tellCounts(total);
  }

  /** Rows that stay are kept as they are, so that selected text stays selected while lines arrive. */
  #place(first, last) {
    const wanted = new Map();
    for (let row = first; row < last; row += 1) {
      const entry = this.#entryOfRow(row);
      wanted.set(entry, this.#rows.get(entry) ?? this.#rowElement(entry));
    }
    for (const [entry, element] of this.#rows) if (!wanted.has(entry)) element.remove();
    let at = this.#list.firstChild;
    for (const element of wanted.values()) {
      if (element === at) at = at.nextSibling;
      else this.#list.insertBefore(element, at);
    }
    this.#rows = wanted;
    this.#list.style.transform = `translateY(${first * ROW}px)`;
  }

  #rowElement(entry) {
    if (entry.tone === "gap") return make("div", { class: "log-row gap" }, entry.text);
    const row = make("div", {
      class: "log-row", "data-line": entry.line, "data-tone": entry.tone || null, "data-stderr": entry.stderr,
      "data-current": entry.place === this.#book.matches[this.#current],
    });
    const moment = new Date(entry.time);
    row.append(
      make("span", { class: "log-number" }, String(entry.line)),
      make("time", {}, Number.isNaN(moment.getTime()) ? "" : time.format(moment)),
      make("span", { class: "log-text" }, ...highlighted(shortened(entry.text), this.#book.pattern)),
    );
    if (entry.stderr) row.children[2].prepend(make("span", { class: "log-tag" }, "stderr"));
    return row;
  }

  #forgetRows() {
    this.#rows.clear();
    this.#list.replaceChildren();
    this.#draw();
  }

  #tellCounts(total) {
    const { lines, matches, pattern } = this.#book;
    setText(byId("log-count"), lines ? plural(lines, "line") : "");
    byId("log-count").dataset.count = lines;
    const fresh = lines - this.#seen;
    const behind = fresh > 0 && (!this.#following || this.#pausedAt !== null);
    byId("log-new").hidden = !behind;
    if (behind) setText(byId("log-new"), `${plural(fresh, "new line")} ↓`);
    const none = !lines ? "No lines yet." : "No line matches.";
    byId("log-empty").hidden = total > 0;
    setText(byId("log-empty"), none);
    setText(byId("log-search-count"), pattern ? this.#searchWords() : "");
    byId("log-next").disabled = matches.length === 0;
    byId("log-previous").disabled = matches.length === 0;
  }

  #searchWords() {
    const { matches } = this.#book;
    if (matches.length === 0) return "none";
    if (this.#current < 0) return plural(matches.length, "match", "matches");
    return `${count(this.#current + 1)} of ${count(matches.length)}`;
  }

  #scrolled() {
    const { scrollTop, scrollHeight } = this.#scroller;
    const atEnd = scrollHeight - scrollTop - this.#height < ROW * 1.5;
    const wentUp = scrollTop < this.#lastTop - 1;
    const wentDown = scrollTop > this.#lastTop + 1;
    if (this.#following && wentUp && !atEnd) this.#follow(false);
    else if (!this.#following && wentDown && atEnd && this.#pausedAt === null) this.#follow(true);
    this.#lastTop = scrollTop;
    this.#draw();
  }

  #follow(on) {
    this.#following = on;
    this.#seen = this.#book.lines;
    byId("log-follow").setAttribute("aria-pressed", on);
    this.#draw();
  }

  #pause(on) {
    this.#pausedAt = on ? this.#book.end : null;
    this.#seen = this.#book.lines;
    byId("log-pause").setAttribute("aria-pressed", on);
    setText(byId("log-pause"), on ? "Paused" : "Pause");
    this.#draw();
  }

  #toNewest() {
    this.#pause(false);
    this.#follow(true);
  }

  #searchSoon() {
    clearTimeout(this.#searchTimer);
    this.#searchTimer = setTimeout(() => this.#search(), SEARCH_PAUSE);
  }

  #search() {
    this.#book.search(byId("log-search").value);
    this.#current = -1;
    if (this.#book.matches.length > 0) this.#show(this.#firstMatchInSight());
    this.#forgetRows();
  }

  /** The match nearest below the top of the view; the last one when the view is beyond all. */
  #firstMatchInSight() {
    const place = this.#book.begin + Math.floor(this.#scroller.scrollTop / ROW);
    return Math.min(lowerBound(this.#book.matches, place), this.#book.matches.length - 1);
  }

  #searchKey(event) {
    if (event.key === "Enter") {
      event.preventDefault();
      this.#step(event.shiftKey ? -1 : 1);
    } else if (event.key === "Escape") {
      event.target.value = "";
      this.#search();
    }
  }

  #step(by) {
    const { length } = this.#book.matches;
    if (length > 0) this.#show((this.#current + by + length) % length);
  }

  #show(match) {
    this.#current = match;
    this.#follow(false);
    const row = this.#rowOfPlace(this.#book.matches[match]);
    this.#sizer.style.height = `${this.#rowCount() * ROW}px`;
    this.#scroller.scrollTop = row * ROW - this.#height / 2;
    this.#forgetRows();
  }

  #setFilter(on) {
    this.#filter = on;
    if (this.#current >= 0) this.#show(this.#current);
    this.#forgetRows();
  }
}

/** The index of the first number that is not below `value`, in a sorted array. */
function lowerBound(sorted, value) {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] < value) low = middle + 1;
    else high = middle;
  }
  return low;
}

function shortened(text) {
  if (text.length <= LONGEST_SHOWN) return text;
  return `${text.slice(0, LONGEST_SHOWN)}… (${count(text.length - LONGEST_SHOWN)} more characters in the download)`;
}

/** The text in pieces, those that match marked. */
function highlighted(text, pattern) {
  if (!pattern) return [text];
  const pieces = [];
  let from = 0;
  for (const { 0: found, index } of text.matchAll(new RegExp(pattern, "gi"))) {
    pieces.push(text.slice(from, index), make("mark", {}, found));
    from = index + found.length;
  }
  return [...pieces, text.slice(from)];
}
