/** One view: the active run and those that follow it, or one run of the past. */

import { Run, isFinal } from "./run.js";
import { Stream } from "./stream.js";

const PAGE = 500;
const CATCH_UP_AGAIN = 3_000;

/**
 * Follows a view over its socket and keeps the run it shows. In the live view cursors belong to runs, so a connection
 * that meets another run than the one its cursor was for is opened again from that run's beginning.
 */
export class Watch {
  /** @type {Run|null} */
  run = null;
  #api;
  #pinned;
  #tell;
  #stream;
  #askedSince = 0;
  #past = new Set();
  #stopped = false;
  /** The service has lost events that are shown here, and their ids mean others now: all that it keeps comes again. */
  #anew = false;

  /**
   * @param {import("./api.js").Api} api
   * @param {string|null} runId null for the live view
   * @param {object} tell
   * @param {(run: Run|null) => void} tell.onRun another run came into view, or none is active
   * @param {(what: string) => void} tell.onChange the run in view changed: `snapshot`, or the type of an event
   * @param {(lines: object[]) => void} tell.onLines
   * @param {() => void} tell.onGap lines before this point are lost
   * @param {(frame: object) => void} tell.onSnapshot a snapshot or keep-alive, whatever the run
   * @param {(state: object) => void} tell.onState of the connection
   */
  constructor(api, runId, tell) {
    this.#api = api;
    this.#pinned = runId;
    this.#tell = tell;
    this.#stream = new Stream({
      address: () => this.#address(),
      onFrame: (frame) => this.#frame(frame),
      onState: (state) => this.#state(state),
    });
  }

  start() {
    this.#stream.start();
  }

  /** Comes back at once, whatever wait is left. */
  hurry() {
    this.#stream.reopen();
  }

  stop() {
    this.#stopped = true;
    this.#stream.stop();
  }

  async #address() {
    if (this.#pinned && this.run?.complete && !this.#anew) return null;
    this.#askedSince = this.#anew ? 0 : (this.run?.lastId ?? 0);
    return this.#api.streamUrl(this.#pinned, this.#askedSince);
  }

  #frame(frame) {
    if (frame.id === null || frame.id === undefined) this.#snapshot(frame);
    else this.#event(frame);
  }

  #snapshot(frame) {
    this.#tell.onSnapshot(frame);
    if (frame.data.status === "keep-alive") return;
    if (!frame.run_id) this.#idle();
    else if (this.run?.id !== frame.run_id) this.#meet(frame);
    else this.#takeSnapshot(frame.data);
  }

  #meet(frame) {
    this.#adopt(frame.run_id);
    this.#takeSnapshot(frame.data);
    if (this.#askedSince > 0) this.#stream.reopen();
  }

  #state(state) {
    if (state.reason?.includes("since=0")) this.#anew = true;
    this.#tell.onState(state);
  }

  /** Whether the service is back without an event that is shown here. */
  #isLost({ last_id, status }) {
    const { lastId, complete } = this.run;
    return last_id < lastId || (last_id === lastId && lastId > 0 && isFinal(status) && !complete);
  }

  #takeSnapshot(data) {
    if (!this.#anew && this.#isLost(data)) {
      this.#anew = true;
      this.#stream.reopen();
      return;
    }
    if (this.#anew) {
      this.#anew = false;
      this.run = new Run(this.run.id);
      this.#tell.onRun(this.run);
    }
    this.run.snapshot(data);
    if (data.first_id > this.run.lastId + 1) {
      this.run.lastId = data.first_id - 1;
      this.#tell.onGap();
    }
    this.#tell.onChange("snapshot");
  }

  #event(frame) {
    if (frame.run_id !== this.run?.id) {
      if (this.#past.has(frame.run_id)) return;
      this.#adopt(frame.run_id);
      if (frame.id !== 1) {
        this.#stream.reopen();
        return;
      }
    }
    this.#take(frame);
  }

  #take(frame) {
    if (!this.run.event(frame)) return;
    if (frame.type === "log") this.#tell.onLines(frame.data.lines);
    this.#tell.onChange(frame.type);
  }

  #adopt(runId) {
    this.#anew = false;
    if (this.run) this.#past.add(this.run.id);
    this.run = new Run(runId);
    this.#tell.onRun(this.run);
  }

  #forget() {
    this.run = null;
    this.#tell.onRun(null);
  }

  #idle() {
    if (this.#stopped) return;
    if (this.run && !this.run.final) this.#catchUp(this.run);
    else if (!this.run) this.#tell.onRun(null);
  }

  /** The run ended while the connection was away: its last events are in the API only. */
  async #catchUp(run) {
    try {
      for (;;) {
        const { events } = await this.#api.events(run.id, run.lastId, PAGE);
        if (this.#stopped || this.run !== run) return;
        for (const frame of events) this.#take(frame);
        if (run.final || events.length === 0) return;
      }
    } catch (problem) {
      if (this.#stopped || this.run !== run) return;
      if (problem.status === 404) this.#forget();
      else setTimeout(() => this.#idle(), CATCH_UP_AGAIN);
    }
  }
}
