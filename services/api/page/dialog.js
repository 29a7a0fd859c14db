// @ts-check
/** A form in a dialog: it stays open until it was accepted, and shows each error at its field. */

/** @import {FieldError} from "./api.js" */
import { $, find, write } from "./dom.js";
import { Problem, told } from "./api.js";
import { capital } from "./words.js";

export class Dialog {
  /** @param {string} id */
  constructor(id) {
    /** @type {HTMLDialogElement} */
    this.el = $(id);
    /** @type {HTMLFormElement} */
    this.form = find(this.el, "form");
    find(this.el, "[data-close]").addEventListener("click", () => this.el.close());
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.el.getAttribute("aria-busy") !== "true") this.submit();
    });
  }

  show() {
    this.clearErrors();
    this.el.showModal();
  }

  async submit() {
    this.clearErrors();
    this.el.setAttribute("aria-busy", "true");
    try {
      await this.send();
      this.el.close();
    } catch (error) {
      this.fail(error);
    } finally {
      this.el.setAttribute("aria-busy", "false");
    }
  }

  /** @returns {Promise<void>} */
  async send() {}

  clearErrors() {
    /** @type {NodeListOf<HTMLElement>} */
    const places = this.el.querySelectorAll("[data-error], [data-problem]");
    for (const place of places) {
      place.hidden = true;
      write(place, "");
    }
    for (const input of this.el.querySelectorAll("[aria-invalid]")) input.removeAttribute("aria-invalid");
  }

  /** @param {unknown} error Each of its errors at its field; what has no field here above them all. */
  fail(error) {
    const errors = error instanceof Problem ? error.errors : [];
    const homeless = errors.filter((one) => !this.failField(one));
    if (homeless.length) this.say(homeless.map((one) => one.message).join("; "));
    else if (!errors.length) this.say(told(error));
  }

  /** @param {string} text */
  say(text) {
    const place = find(this.el, "[data-problem]");
    write(place, capital(text));
    place.hidden = false;
  }

  /** @param {FieldError} error Whether its field is here. */
  failField({ field, message, line, column }) {
    const [name, ...inner] = field.split(".");
    const root = this.el.querySelector(`[data-field="${CSS.escape(name)}"]`);
    /** @type {HTMLElement | null | undefined} */
    const place = root?.querySelector("[data-error]");
    if (!root || !place) return false;
    const where = line ? `Line ${line}${column ? `, column ${column}` : ""}` : inner.join(".");
    const text = where ? `${where}: ${message}` : capital(message);
    write(place, place.textContent ? `${place.textContent}; ${text}` : text);
    place.hidden = false;
    /** @type {HTMLElement | null} */
    const input = root.querySelector("input, textarea");
    input?.setAttribute("aria-invalid", "true");
    if (!this.el.querySelector("[aria-invalid]:focus")) input?.focus();
    return true;
  }
}
