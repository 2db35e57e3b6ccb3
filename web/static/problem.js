/** Failures of the API, said beside the control that met them. */

import { make } from "./dom.js";

/**
 * Shows a failure in its place: the sentence of the server, then each bad field, then when to try again.
 * @param {HTMLElement} place
 * @param {Error & {errors?: {loc: *, msg: string}[], retryAfter?: number|null}} error
 */
export function showProblem(place, error) {
  const lines = [make("p", {}, error.message)];
  const more = (error.errors ?? []).filter(({ msg }) => !error.message.includes(msg));
  if (more.length) lines.push(make("ul", {}, ...more.map(({ loc, msg }) => make("li", {}, fieldLine(loc, msg)))));
  if (error.retryAfter) lines.push(make("p", {}, `Try again in ${error.retryAfter} s.`));
  place.replaceChildren(...lines);
  place.hidden = false;
}

export function clearProblem(place) {
  place.replaceChildren();
  place.hidden = true;
}

/** ["body", "parameters", "n"], "parameters.n" or "/parameters/n" → ["parameters", "n"]. */
export function fieldPath(loc) {
  const parts = Array.isArray(loc) ? loc.map(String) : String(loc ?? "").split(/[./]/);
  return parts.filter((part) => part !== "" && part !== "body" && part !== "$");
}

function fieldLine(loc, msg) {
  const path = fieldPath(loc).join(".");
  return path ? `${path}: ${msg}` : msg;
}
