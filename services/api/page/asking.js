// @ts-check
/** A dialog that asks whether to go on. */

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

export const confirmation = new Confirmation();
