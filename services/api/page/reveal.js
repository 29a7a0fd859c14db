// @ts-check
/** A dialog that shows what is shown this once. */

import { Dialog } from "./dialog.js";
import { $, write } from "./dom.js";

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

export const reveal = new Reveal();
