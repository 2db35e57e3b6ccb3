/** The parameters of a run, typed as rows or as JSON. */

import { byId, button, icon, make } from "./dom.js";

/** Two views of one object; turning from one to the other loses nothing. */
export class Parameters {
  #asJson = false;
  #rows = byId("parameter-rows");
  #text = byId("parameter-json");

  constructor() {
    byId("parameter-add").addEventListener("click", () => this.#add("", "").focus());
    byId("parameters-as-rows").addEventListener("click", () => this.#turn(false));
    byId("parameters-as-json").addEventListener("click", () => this.#turn(true));
    this.#text.addEventListener("input", () => this.#text.setCustomValidity(""));
  }

  /** @returns {object} what was typed; throws an Error with a sentence for people when it is no JSON object */
  read() {
    if (this.#asJson) return objectFrom(this.#text.value);
    const pairs = [...this.#rows.children].map((row) => [...row.querySelectorAll("input")].map(({ value }) => value));
    return Object.fromEntries(pairs.filter(([name]) => name.trim()).map(([name, value]) => [name.trim(), parsed(value)]));
  }

  /** @param {object} parameters */
  write(parameters) {
    this.#text.value = JSON.stringify(parameters, null, 2);
    this.#rows.replaceChildren();
    for (const [name, value] of Object.entries(parameters)) this.#add(name, typed(value));
  }

  #turn(asJson) {
    if (asJson === this.#asJson) return;
    try {
      this.write(this.read());
    } catch (error) {
      this.#text.setCustomValidity(error.message);
      this.#text.reportValidity();
      return;
    }
    this.#asJson = asJson;
    this.#rows.hidden = asJson;
    byId("parameter-add").hidden = asJson;
    this.#text.hidden = !asJson;
    byId("parameters-as-rows").setAttribute("aria-pressed", !asJson);
    byId("parameters-as-json").setAttribute("aria-pressed", asJson);
  }

  #add(name, value) {
    const first = make("input", { "aria-label": "Parameter name", placeholder: "name", spellcheck: "false", value: name });
    const second = make("input", { "aria-label": "Value", placeholder: "value", spellcheck: "false", value });
    const row = make("div", { class: "parameter-row" }, first, second);
    const remove = button("", () => row.remove(), { class: "icon-button", "aria-label": "Remove this parameter" });
    remove.append(icon("close"));
    row.append(remove);
    this.#rows.append(row);
    return first;
  }
}

function objectFrom(text) {
  if (!text.trim()) return {};
  let value;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new Error(`The parameters are not JSON yet: ${error.message}`, { cause: error });
  }
  if (value === null || typeof value !== "object" || Array.isArray(value)) {
    throw new Error('The parameters must be a JSON object, like {"input": "samples.csv"}.');
  }
  return value;
}

/** What a value typed in a row means: 5, true, null and [1, 2] are JSON, 007 and a word are text. */
function parsed(text) {
  try {
    const value = JSON.parse(text);
    return typeof value === "number" && String(value) !== text ? text : value;
  } catch {
    return text;
  }
}

/** The text that `parsed` turns back into this value. */
function typed(value) {
  return typeof value === "string" && parsed(value) === value ? value : JSON.stringify(value);
}
