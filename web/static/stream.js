/** The live stream: one socket that comes back by itself and goes on where it stopped. */

const SERVICE_RESTART = 1012;
const TRY_AGAIN_LATER = 1013;
const FIRST_WAIT = { [SERVICE_RESTART]: 500, [TRY_AGAIN_LATER]: 5_000 };
const LONGEST_WAIT = 10_000;
/** A socket that says nothing for this long, not even keep-alive, is dead though nobody closed it. */
const SILENCE = 90_000;

/**
 * How long to wait before try number `failures`, in milliseconds: doubling, bounded, and never the same for all
 * browsers at once.
 */
function retryDelay(code, failures) {
  const bound = Math.min(LONGEST_WAIT, (FIRST_WAIT[code] ?? 1_000) * 2 ** failures);
  return bound * (0.5 + Math.random() / 2);
}

/**
 * Follows one run, or whatever run is active. States told: `connecting`, `live`, `reconnecting` (with `retryAt`, a
 * Date.now() time), `offline` (the same, and the machine has no network), `locked` (the token is missing or wrong),
 * `ended` (nothing more will come).
 */
export class Stream {
  #address;
  #onFrame;
  #onState;
  #socket = null;
  #timer = null;
  #watchdog = null;
  #heardAt = 0;
  #failures = 0;
  #attempt = 0;
  #state = "connecting";

  /**
   * @param {object} how
   * @param {() => Promise<string|null>} how.address the URL to open now, `since` included; null when all is known
   * @param {(frame: object) => void} how.onFrame
   * @param {(state: {state: string, retryAt?: number, reason?: string}) => void} how.onState
   */
  constructor({ address, onFrame, onState }) {
    this.#address = address;
    this.#onFrame = onFrame;
    this.#onState = onState;
  }

  start() {
    window.addEventListener("online", this.#hurry);
    document.addEventListener("visibilitychange", this.#hurry);
    this.#watchdog = setInterval(() => this.#checkSilence(), SILENCE / 6);
    this.#connect();
  }

  stop() {
    window.removeEventListener("online", this.#hurry);
    document.removeEventListener("visibilitychange", this.#hurry);
    clearInterval(this.#watchdog);
    this.#drop();
  }

  /** Opens a new socket at once, asking `address` anew. */
  reopen() {
    this.#drop();
    this.#connect();
  }

  #hurry = () => {
    const waiting = this.#state === "reconnecting" || this.#state === "offline";
    if (waiting && document.visibilityState === "visible") this.reopen();
  };

  #drop() {
    clearTimeout(this.#timer);
    this.#attempt += 1;
    this.#socket?.close();
    this.#socket = null;
  }

  async #connect() {
    const attempt = ++this.#attempt;
    this.#tell({ state: "connecting" });
    let url;
    try {
      url = await this.#address();
    } catch (problem) {
      if (attempt === this.#attempt) this.#refused(problem);
      return;
    }
    if (attempt !== this.#attempt) return;
    if (url === null) this.#tell({ state: "ended" });
    else this.#open(url, attempt);
  }

  #open(url, attempt) {
    const socket = new WebSocket(url);
    this.#socket = socket;
    this.#heardAt = Date.now();
    let greeted = false;
    socket.onmessage = ({ data }) => {
      if (attempt !== this.#attempt) return;
      this.#heardAt = Date.now();
      if (greeted) this.#failures = 0; // A greeting alone is no success.
      greeted = true;
      if (this.#state !== "live") this.#tell({ state: "live" });
      this.#onFrame(JSON.parse(data));
    };
    socket.onclose = ({ code, reason }) => {
      if (attempt === this.#attempt) this.#wait(retryDelay(code, this.#failures), reason);
    };
  }

  #refused(problem) {
    if (problem.status === 401 || problem.status === 403) this.#tell({ state: "locked" });
    else this.#wait(Math.max(retryDelay(0, this.#failures), (problem.retryAfter ?? 0) * 1000), problem.message);
  }

  #wait(delay, reason) {
    this.#drop();
    this.#failures += 1;
    this.#timer = setTimeout(() => this.#connect(), delay);
    this.#tell({ state: navigator.onLine ? "reconnecting" : "offline", retryAt: Date.now() + delay, reason });
  }

  #checkSilence() {
    if (this.#socket && Date.now() - this.#heardAt > SILENCE) this.#wait(retryDelay(0, 0), "nothing was heard");
  }

  #tell(state) {
    this.#state = state.state;
    this.#onState(state);
  }
}
