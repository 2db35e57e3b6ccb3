/** The public REST API, as the viewer uses it: one call a method, every failure a Problem. */

const BASE = "/api/v1/pipeline";
const TOKEN_KEY = "nextflow-controller-token";

/** What the server (or the network) refused, in the shape of RFC 9457. `status` 0 means that no answer came. */
export class Problem extends Error {
  /** @param {{status: number, title?: string, detail?: string, errors?: {loc: *, msg: string}[], retryAfter?: number}} facts */
  constructor({ status, title, detail, errors, retryAfter }) {
    super(detail || title || `The server answered ${status}.`);
    this.name = "Problem";
    this.status = status;
    this.errors = Array.isArray(errors) ? errors : [];
    this.retryAfter = retryAfter ?? null;
  }
}

/** Speaks to the API with the token of this tab, when there is one. */
export class Api {
  /** Whether a ticket is needed before each socket; told by `about`. */
  authRequired = false;
  /** Called with whether a token had been sent, each time the server answers 401. */
  onLocked = () => {};

  get token() {
    return sessionStorage.getItem(TOKEN_KEY);
  }

  set token(value) {
    if (value) sessionStorage.setItem(TOKEN_KEY, value);
    else sessionStorage.removeItem(TOKEN_KEY);
  }

  async about() {
    const about = await this.#json("GET", "/about");
    this.authRequired = Boolean(about.auth_required);
    return about;
  }

  catalog() {
    return this.#json("GET", "/catalog");
  }

  /** @param {string} key the same for each try of one start, so that a lost answer never starts a second run */
  start(body, key) {
    return this.#json("POST", "/run", { body, headers: { "Idempotency-Key": key } });
  }

  status() {
    return this.#json("GET", "/status");
  }

  cancel(runId) {
    return this.#json("DELETE", "/cancel", { query: { run_id: runId } });
  }

  history({ limit, before, status }) {
    return this.#json("GET", "/history", { query: { limit, before, status } });
  }

  run(runId) {
    return this.#json("GET", `/runs/${encodeURIComponent(runId)}`);
  }

  tasks(runId) {
    return this.#json("GET", `/runs/${encodeURIComponent(runId)}/tasks`);
  }

  events(runId, since, limit) {
    return this.#json("GET", `/runs/${encodeURIComponent(runId)}/events`, { query: { since, limit } });
  }

  artifacts(runId) {
    return this.#json("GET", `/runs/${encodeURIComponent(runId)}/artifacts`);
  }

  logsUrl(runId) {
    return `${BASE}/runs/${encodeURIComponent(runId)}/logs`;
  }

  /** The bytes behind an address of this API, fetched with the token that a plain link could not carry. */
  async blob(url) {
    return (await this.#fetch("GET", url)).blob();
  }

  /** The address of the live stream; with authentication, carrying a fresh ticket that is good for one socket. */
  async streamUrl(runId, since) {
    const url = new URL(`${BASE}/stream`, location.href);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    if (runId) url.searchParams.set("run_id", runId);
    url.searchParams.set("since", since);
    if (this.authRequired) {
      const { ticket } = await this.#json("POST", "/ticket");
      url.searchParams.set("ticket", ticket);
    }
    return url.href;
  }

  async #json(method, path, { query = {}, body, headers = {} } = {}) {
    const url = new URL(BASE + path, location.href);
    for (const [name, value] of Object.entries(query)) {
      if (value !== undefined && value !== null && value !== "") url.searchParams.set(name, value);
    }
    const response = await this.#fetch(method, url.href, {
      headers: body === undefined ? headers : { ...headers, "Content-Type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    return response.json();
  }

  async #fetch(method, url, { headers = {}, body } = {}) {
    const token = this.token;
    const authorization = token ? { Authorization: `Bearer ${token}` } : {};
    let response;
    try {
      response = await fetch(url, { method, body, headers: { ...headers, ...authorization } });
    } catch {
      throw new Problem({ status: 0, title: "The server cannot be reached just now." });
    }
    if (response.ok) return response;
    if (response.status === 401) this.onLocked(Boolean(token));
    throw await problemFrom(response);
  }
}

/** A key for `Idempotency-Key`; randomUUID is absent where the page is served over plain http. */
export function freshKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function problemFrom(response) {
  const seconds = Number(response.headers.get("Retry-After"));
  let facts = {};
  try {
    facts = await response.json();
  } catch {
    facts = { title: `The server answered ${response.status} ${response.statusText}`.trim() };
  }
  return new Problem({ ...facts, status: response.status, retryAfter: seconds > 0 ? seconds : undefined });
}
