/** The viewer page: puts its parts together, and moves facts from the API and the socket to them. */

import { Access } from "./access.js";
import { Api, Problem, freshKey } from "./api.js";
import { byId, oncePerFrame, setOptionalText, setText, throttled } from "./dom.js";
import { count, pipelineName, statusWord } from "./format.js";
import { History } from "./history.js";
import { LogView } from "./logview.js";
import { Processes } from "./processes.js";
import { RunCard, downloadWithToken, drawQueue } from "./runcard.js";
import { StartForm } from "./start.js";
import { Tasks } from "./tasks.js";
import { Watch } from "./watch.js";

const NOTICE_TIME = 8_000;
const LISTS_PAUSE = 1_000;
/** What the API writes in the place of a secret. */
const HIDDEN = "***";
const CONNECTION_WORDS = {
  connecting: "Connecting…",
  live: "Live",
  reconnecting: "Reconnecting",
  offline: "Offline",
  locked: "Access token needed",
  ended: "Nothing to follow",
};

const api = new Api();
const log = new LogView();
const processes = new Processes();
const tasks = new Tasks(api);
const card = new RunCard(api, { onCancel: cancel, onResume: resume, onAgain: again });
const history = new History(api, { onResume: resume, onAgain: again });
const form = new StartForm(start);
const access = new Access(api, begin);

/** The run that the address names; null for the live view. */
let pinned = null;
let watch = null;
let connection = { state: "connecting" };
let about = null;
let catalog = null;
let drawnQueue = "[]";
let shownStatus = null;
/** How far the server's clock is ahead of this machine's, in milliseconds. */
let clockAhead = 0;
let noticeTimer = null;
/** The start that was tried last, so that trying the same again carries the same key. */
let lastStart = { text: null, key: null };

const draw = oncePerFrame(render);
const refreshLists = throttled(loadLists, LISTS_PAUSE);

function render() {
  const run = watch?.run;
  if (!run) return;
  card.render(run);
  processes.render(run.progress);
  tick();
  if (run.status !== shownStatus) {
    shownStatus = run.status;
    refreshLists();
  }
}

function tick() {
  const run = watch?.run ?? null;
  card.tick(run, Date.now() + clockAhead);
  drawConnection();
  const percent = run?.progress && !run.final ? `${Math.floor(run.percent)}% ` : "";
  const title = run ? `${percent}${statusWord(run.status)} · ${pipelineName(run.info.pipeline)}` : "Nextflow Controller";
  if (document.title !== title) document.title = title;
}

const namedRun = () => new URLSearchParams(location.hash.slice(1)).get("run");

/** Opens the view that the address names: one run, or whatever is active. */
async function show() {
  pinned = namedRun();
  const runId = pinned;
  watch?.stop();
  watch = new Watch(api, runId, { onRun, onChange, onLines, onGap, onSnapshot, onState });
  const opened = watch;
  byId("kept").hidden = !runId;
  enter(null);
  card.renderNone("connecting", "Connecting…", "");
  if (runId && !(await exists(runId))) return;
  if (watch === opened) opened.start();
}

/** A socket cannot tell an unknown run from a lost network, so the API is asked first. */
async function exists(runId) {
  try {
    await api.run(runId);
    return true;
  } catch (problem) {
    if (problem.status !== 404 && problem.status !== 422) return true;
    card.renderNone("unknown", "There is no such run", problem.message);
    onState({ state: "ended" });
    return false;
  }
}

function enter(run) {
  shownStatus = null;
  log.clear();
  processes.render(null);
  tasks.show(run?.id ?? null);
  history.mark(run?.id ?? null);
  byId("log-section").hidden = !run;
  byId("examples").hidden = true;
  if (run) byId("log-download").href = api.logsUrl(run.id);
  byId("log-download").download = run ? `${run.id}.log` : "";
}

function onRun(run) {
  enter(run);
  if (run) draw();
  else idle();
}

function idle() {
  const message = "Start an example, or type a pipeline of your own. Everyone with this page open will see it live.";
  card.renderNone("idle", "Nothing is running", message);
  byId("examples").hidden = false;
  tick();
}

function onChange(what) {
  draw();
  if (what !== "log") tasks.refresh();
}

function onLines(lines) {
  log.append(lines);
}

function onGap() {
  log.gap();
}

function onSnapshot({ data, timestamp }) {
  if (timestamp) clockAhead = Date.parse(timestamp) - Date.now();
  if (typeof data.connected_clients === "number") {
    setText(byId("viewers"), `${count(data.connected_clients)} watching`);
  }
  if (Array.isArray(data.queue) && showQueue(data.queue)) history.refresh();
}

function onState(state) {
  const changed = state.state !== connection.state;
  connection = state;
  drawConnection();
  if (!changed) return;
  setText(byId("announce"), state.state === "connecting" ? "" : CONNECTION_WORDS[state.state]);
  learn();
  if (state.state === "live") refreshLists();
  if (state.state === "locked") access.ask();
}

function drawConnection() {
  const { state, retryAt, reason } = connection;
  const place = byId("connection");
  const seconds = retryAt ? Math.max(0, Math.ceil((retryAt - Date.now()) / 1000)) : 0;
  const soon = state === "reconnecting" ? ` in ${seconds} s` : "";
  place.dataset.state = state;
  place.title = reason ?? "";
  byId("viewers").hidden = state !== "live";
  byId("reconnect").hidden = state !== "reconnecting" && state !== "offline";
  setText(byId("connection-text"), CONNECTION_WORDS[state] + soon);
}

/** @returns {boolean} whether the queue differs from what was shown */
function showQueue(waiting) {
  const drawn = JSON.stringify(waiting);
  if (drawn === drawnQueue) return false;
  drawnQueue = drawn;
  drawQueue(waiting, (runId) => cancel(runId).catch((problem) => notify(problem.message)));
  return true;
}

async function loadLists() {
  history.refresh();
  try {
    showQueue((await api.status()).queue ?? []);
  } catch {
    // The connection line already says when the server is away.
  }
}

async function start(body) {
  const text = JSON.stringify(body);
  if (lastStart.text !== text) lastStart = { text, key: freshKey() };
  const answer = await api.start(body, lastStart.key);
  lastStart = { text: null, key: null };
  notify(startWords(answer));
  refreshLists();
  if (answer.status !== "queued" && location.hash) backToLive();
}

function startWords({ attached, status, queue_position: position }) {
  if (attached) return "Another run was active already: you are watching that one.";
  if (status === "queued" && position) return `Queued, at position ${position}.`;
  return "Started.";
}

async function cancel(runId) {
  const { cancelled, detail } = await api.cancel(runId);
  if (!cancelled) throw new Problem({ status: 200, detail: detail || "There was nothing to cancel." });
  notify(detail || "Cancelling.");
  refreshLists();
}

/** What is not given is taken from the run that is resumed, secrets included, which this page never sees. */
async function resume(runId) {
  await start({ resume: runId, when_busy: "queue" });
}

async function again(runId) {
  const { pipeline, revision, profile, parameters } = await api.run(runId);
  const body = { pipeline, parameters: parameters ?? {}, when_busy: "queue" };
  if (revision) body.revision = revision;
  if (profile) body.profile = profile;
  if (!JSON.stringify(body).includes(HIDDEN)) {
    await start(body);
    return;
  }
  form.fill(body);
  notify("Some values of that run are hidden. Type them again, then press Run.");
}

function notify(text) {
  const place = byId("notice");
  clearTimeout(noticeTimer);
  setOptionalText(place, text);
  noticeTimer = setTimeout(() => setOptionalText(place, ""), NOTICE_TIME);
}

/** One step of the browser's history may be told twice: as popstate and as hashchange. */
function followAddress() {
  if (namedRun() === pinned) return;
  byId("main").scrollIntoView();
  show();
}

/** Moves to a part of the page and leaves the address alone, which names the run. */
function jump(event) {
  const link = event.target.closest("[data-jump]");
  if (!link) return;
  event.preventDefault();
  byId(link.dataset.jump).scrollIntoView({ block: "start" });
  byId(link.dataset.jump).focus({ preventScroll: true });
}

function backToLive() {
  window.history.pushState(null, "", location.pathname + location.search);
  show();
}

/** Learns what the service is and offers; asked again with each change of the connection until it answered. */
async function learn() {
  try {
    about ??= told(await api.about());
    catalog ??= offered(await api.catalog());
  } catch {
    // The connection line already says when the server is away.
  }
}

function told(facts) {
  const { name, version, runner, flower_url: flower, docs_url: docs } = facts;
  byId("flower-link").hidden = !flower;
  if (flower) byId("flower-link").href = flower;
  if (docs) byId("docs-link").href = docs;
  byId("access-open").hidden = !facts.auth_required;
  document.body.dataset.runner = runner;
  setText(byId("about"), [`${name} ${version}`, runner && `${runner} runner`].filter(Boolean).join(" · "));
  return facts;
}

function offered(facts) {
  form.offer(facts.workflows ?? []);
  return facts;
}

/** The socket's name for a run in the page's address is understood too. */
function takeQuery() {
  const runId = new URLSearchParams(location.search).get("run_id");
  if (runId) window.history.replaceState(null, "", location.pathname + (location.hash || `#run=${runId}`));
}

async function begin() {
  try {
    about ??= told(await api.about());
  } catch {
    // The stream tells, and tries again.
  }
  if (api.authRequired && !api.token) {
    onState({ state: "locked" });
    card.renderNone("locked", "An access token is needed", "This service shows its runs only to those who have one.");
    return;
  }
  refreshLists();
  show();
}

function offerCopy() {
  const copy = byId("log-copy");
  // The clipboard is closed to pages that came over plain http from another machine.
  copy.hidden = !navigator.clipboard;
  copy.addEventListener("click", async () => {
    await navigator.clipboard.writeText(byId("log-download").href);
    notify("The log's address is on the clipboard.");
  });
}

function focusSearch(event) {
  const typing = event.target.closest("input, textarea, select, dialog");
  if (event.key !== "/" || typing || byId("log-section").hidden) return;
  event.preventDefault();
  byId("log-search").focus();
}

api.onLocked = (hadToken) => access.ask(hadToken ? "The token is no longer accepted." : "");
window.addEventListener("hashchange", followAddress);
window.addEventListener("popstate", followAddress);
document.addEventListener("click", jump);
document.addEventListener("keydown", focusSearch);
byId("back-to-live").addEventListener("click", backToLive);
byId("reconnect").addEventListener("click", () => watch?.hurry());
downloadWithToken(api, byId("log-download"), () => byId("log-download").download);
offerCopy();
takeQuery();
setInterval(tick, 1_000);
begin();
