// @ts-check
/** A form: it is sent once at a time, and shows each error at its field. */

/** @import {FieldError} from "./api.js" */
import { Problem, told } from "./api.js";
import { $, enable, enabled, find, write } from "./dom.js";
import { duration } from "./time.js";
import { capital } from "./words.js";

const SECOND = 1000;

export class Form {
  /** @param {HTMLElement} el Holds the form, and where to say what is wrong. */
  constructor(el) {
    this.el = el;
    /** @type {HTMLFormElement} */
    this.form = find(el, "form");
    this.go = find(this.form, "[type=submit]");
    this.go.removeAttribute("disabled"); // until now the browser itself would have sent it
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.el.getAttribute("aria-busy") !== "true" && enabled(this.go)) this.submit();
    });
    /** @type {NodeListOf<HTMLElement>} */
    const toggles = this.form.querySelectorAll("[data-reveal]");
    for (const toggle of toggles) {
      toggle.addEventListener("click", () => reveal(toggle));
      this.form.addEventListener("reset", () => reveal(toggle, false));
    }
  }

  async submit() {
    this.clearErrors();
    this.el.setAttribute("aria-busy", "true");
    try {
      if (!(await this.send())) this.done();
    } catch (error) {
      this.fail(error);
    } finally {
      this.el.setAttribute("aria-busy", "false");
    }
  }

  /** @returns {Promise<boolean | void>} Whether there is more to do here. */
  async send() {}

  done() {}

  /** @param {string} name */
  value(name) {
    return String(new FormData(this.form).get(name) ?? "");
  }

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
    if (error instanceof Problem && error.retryAfter) this.hold(error.retryAfter);
  }

  /** @param {string} text */
  say(text) {
    const place = find(this.el, "[data-problem]");
    write(place, capital(text));
    place.hidden = false;
  }

  /** @param {number} seconds It can be sent again only then. */
  hold(seconds) {
    const until = Date.now() + seconds * SECOND;
    const usual = this.go.textContent ?? "";
    enable(this.go, false);
    const tick = () => {
      const left = until - Date.now();
      write(this.go, left > 0 ? `Wait ${duration(Math.ceil(left / SECOND) * SECOND)}` : usual);
      if (left > 0) setTimeout(tick, left % SECOND || SECOND);
      else {
        enable(this.go, true);
        this.clearErrors();
      }
    };
    tick();
  }

  /** @param {FieldError} error Whether its field is here. */
  failField({ field, message, line, column }) {
    const [name, ...inner] = field.split(".");
    const root = this.el.querySelector(`[data-field="${CSS.escape(name)}"]:not([hidden])`);
    /** @type {HTMLElement | null | undefined} */
    const place = root?.querySelector("[data-error]");
    if (!root || !place) return false;
    const where = line ? `Line ${line}${column ? `, column ${column}` : ""}` : inner.join(".");
    const text = where ? `${where}: ${message}` : capital(message);
    const said = place.textContent ?? "";
    if (!said.split("; ").includes(text)) write(place, said ? `${said}; ${text}` : text);
    place.hidden = false;
    root.closest("details")?.setAttribute("open", "");
    /** @type {HTMLElement | null} */
    const input = root.querySelector("input, textarea, select");
    input?.setAttribute("aria-invalid", "true");
    if (!this.el.querySelector("[aria-invalid]:focus")) input?.focus();
    return true;
  }
}

/** @param {HTMLElement} toggle Shows what is typed where dots stand, or hides it again. @param {boolean} [wanted] */
function reveal(toggle, wanted) {
  const target = $(toggle.getAttribute("aria-controls") ?? "");
  const shown = target.classList.toggle("revealed", wanted);
  if (target instanceof HTMLInputElement) target.type = shown ? "text" : "password";
  write(find(toggle, "[data-is=verb]"), shown ? "Hide" : "Show");
}
