// @ts-check
/** Deleting a strategy; what it means is said again if it starts or ends meanwhile. */

/** @import {Strategy} from "./api.js" */
/** @import {Reader} from "./reader.js" */
import { address, ask } from "./api.js";
import { Dialog } from "./dialog.js";
import { $, write } from "./dom.js";
import { toast } from "./messages.js";
import { isLive } from "./words.js";

export class DeleteDialog extends Dialog {
  /** @param {Reader} reader */
  constructor(reader) {
    super("delete");
    this.reader = reader;
    /** @type {Strategy | null} */
    this.strategy = null;
  }

  /** @param {Strategy} strategy */
  begin(strategy) {
    this.explain(strategy);
    this.show();
  }

  /** @param {Strategy | null} strategy @param {string} id */
  changed(strategy, id) {
    if (this.dialog.open && strategy && this.strategy?.id === id) this.explain(strategy);
  }

  /** @param {Strategy} strategy */
  explain(strategy) {
    this.strategy = strategy;
    const live = isLive(strategy);
    const first = `It is ${strategy.status}. It is stopped first, with ${strategy.stop_grace_s} s to clean up, and leaves this list at once. (In the API: DELETE with ?stop=true.)`;
    write($("delete-title"), `Delete ${strategy.name}?`);
    write($("delete-text"), `${live ? first : "It leaves this list and is not started any more."} Its logs are kept.`);
    write($("delete-go"), live ? "Stop and delete" : "Delete");
  }

  async send() {
    const strategy = /** @type {Strategy} */ (this.strategy);
    const path = address("delete", strategy.id, isLive(strategy) ? { stop: true } : {});
    const { note } = await ask(path, { method: "DELETE" });
    this.reader.forget(strategy.id);
    toast(`${strategy.name} is deleted${note ? `; ${note}` : ""}.`);
  }
}
