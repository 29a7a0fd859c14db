// @ts-check
/** Two dialogs: one asks whether to go on, one shows what is shown this once. */

import { Dialog } from "./dialog.js";
import { $, write } from "./dom.js";

export class Confirmation extends Dialog {
  constructor() {
    super("confirm");
    /** @type {() => Promise<unknown>} */
    this.act = () => Promise.resolve();
  }

  /** @param {string} title @param {string} text @param {string} go @param {() => Promise<unknown>} act */
  ask(title, text, go, act) {
    write($("confirm-title"), title);
    write($("confirm-text"), text);
    write($("confirm-go"), go);
    this.act = act;
    this.show();
  }

  async send() {
    await this.act();
  }
}

export class Reveal extends Dialog {
  constructor() {
    super("reveal");
    /** @type {HTMLTextAreaElement} */
    this.field = $("reveal-value");
    this.dialog.addEventListener("close", () => (this.field.value = ""));
  }

  /** @param {string} title @param {string} text @param {string} value */
  tell(title, text, value) {
    write($("reveal-title"), title);
    write($("reveal-text"), text);
    write(this.go, "Copy");
    this.field.value = value;
    this.show();
    this.go.focus();
  }

  /** A browser lends its clipboard only to pages of HTTPS or of this machine; there is an older way. */
  async send() {
    try {
      await navigator.clipboard.writeText(this.field.value);
    } catch {
      this.field.select();
      if (!document.execCommand("copy")) throw new Error("This browser does not let the page copy: copy it by hand.");
    }
    write(this.go, "Copied");
    return true;
  }
}

export const confirmation = new Confirmation();
export const reveal = new Reveal();
