/** What the viewer knows of one run, folded from its frames. */

/** How far along a status is. A run may become unknown while it runs, and be found running again. */
const STAGES = {
  queued: 1, starting: 2, running: 3, unknown: 3, cancelling: 4, succeeded: 5, failed: 5, cancelled: 5,
};
const FINAL = new Set(["succeeded", "failed", "cancelled"]);
const INFO_FIELDS = [
  "started_at", "finished_at", "job_name", "message", "pipeline", "revision", "profile", "parameters",
  "triggered_by", "queued_at", "exit_code", "session_id",
];

export const isFinal = (status) => FINAL.has(status);

/**
 * One run. A snapshot may come before the kept past that led to it, so nothing here goes backwards: neither the
 * status, nor the progress.
 */
export class Run {
  /** @type {string|null} null until the first frame that says it */
  status = null;
  progress = null;
  percent = 0;
  durationSeconds = null;
  errors = [];
  /** Whether the last event of the run was taken. */
  complete = false;
  info = {};
  /** The last event taken: the cursor to come back with. */
  lastId = 0;

  constructor(id) {
    this.id = id;
  }

  get final() {
    return isFinal(this.status);
  }

  /** Takes the first frame of a connection. */
  snapshot(data) {
    this.#takeStatus(data);
    if (data.progress) this.#takeProgress(data.progress);
  }

  /**
   * Takes an event, once.
   * @returns {boolean} false when it was known already
   */
  event({ type, data, id }) {
    if (id <= this.lastId) return false;
    this.lastId = id;
    if (type === "status") this.#takeStatus(data);
    if (type === "progress") this.#takeProgress(data);
    if (type === "error") this.errors.push(data);
    if (type === "complete") this.#takeComplete(data);
    return true;
  }

  /** Seconds since the run began (or was queued), at a moment of the server's clock in milliseconds. */
  elapsed(now) {
    if (this.final && this.durationSeconds !== null) return this.durationSeconds;
    const from = Date.parse(this.info.started_at ?? this.info.queued_at ?? "");
    const to = this.final ? Date.parse(this.info.finished_at ?? "") : now;
    const seconds = (to - from) / 1000;
    return Number.isFinite(seconds) ? Math.max(0, seconds) : null;
  }

  #takeStatus(data) {
    const stage = STAGES[data.status] ?? 0;
    if (stage < (STAGES[this.status] ?? 0) || (this.final && data.status !== this.status)) return;
    this.status = data.status;
    for (const field of INFO_FIELDS) {
      if (data[field] !== undefined && data[field] !== null) this.info[field] = data[field];
    }
    if (typeof data.progress_percent === "number") this.percent = Math.max(this.percent, data.progress_percent);
  }

  #takeProgress(progress) {
    if (this.progress && progress.percent < this.progress.percent) return;
    this.progress = progress;
    this.percent = Math.max(this.percent, progress.percent);
  }

  #takeComplete(data) {
    this.complete = true;
    this.#takeStatus({ ...data.run, status: data.status });
    this.durationSeconds = data.duration_seconds ?? null;
    if (data.exit_code !== undefined && data.exit_code !== null) this.info.exit_code = data.exit_code;
  }
}
