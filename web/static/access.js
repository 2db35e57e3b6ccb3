/** Asks for the access token, once a tab. */

import { byId } from "./dom.js";
import { clearProblem, showProblem } from "./problem.js";

/** The dialog; it tries a token before it believes it. */
export class Access {
  #api;
  #dialog = byId("access");

  /**
   * @param {import("./api.js").Api} api
   * @param {() => void} onUnlocked called when a token was accepted
   */
  constructor(api, onUnlocked) {
    this.#api = api;
    byId("access-open").addEventListener("click", () => this.ask());
    byId("access-close").addEventListener("click", () => this.#dialog.close());
    byId("access-form").addEventListener("submit", async (event) => {
      event.preventDefault();
      if (await this.#accepted(byId("access-token").value.trim())) {
        this.#dialog.close();
        onUnlocked();
      }
    });
  }

  /** Opens the dialog. @param {string} [why] what was wrong with the token before */
  ask(why) {
    if (this.#dialog.open) return;
    byId("access-token").value = "";
    clearProblem(byId("access-problem"));
    if (why) showProblem(byId("access-problem"), new Error(why));
    this.#dialog.showModal();
  }

  async #accepted(token) {
    this.#api.token = token;
    try {
      await this.#api.status();
      return true;
    } catch (problem) {
      this.#api.token = null;
      const wrong = problem.status === 401 || problem.status === 403;
      showProblem(byId("access-problem"), wrong ? new Error("That token was not accepted.") : problem);
      return false;
    }
  }
}
