// @ts-check
/** A form in a dialog: it stays open until it was accepted. */

import { $, find } from "./dom.js";
import { Form } from "./form.js";
import { settle } from "./messages.js";

export class Dialog extends Form {
  /** @param {string} id */
  constructor(id) {
    super($(id));
    /** @type {HTMLDialogElement} */
    this.dialog = $(id);
    find(this.dialog, "[data-close]").addEventListener("click", () => this.dialog.close());
    this.dialog.addEventListener("close", settle);
  }

  show() {
    this.clearErrors();
    this.dialog.showModal();
  }

  done() {
    this.dialog.close();
  }
}
