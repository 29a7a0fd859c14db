// @ts-check
/** When a strategy runs. */

/** @import {Strategy} from "./api.js" */
/** @import {Reader} from "./reader.js" */
import { address, ask } from "./api.js";
import { Dialog } from "./dialog.js";
import { $, write } from "./dom.js";
import { toast } from "./messages.js";
import { WEEKDAYS } from "./words.js";

export class ScheduleDialog extends Dialog {
  /** @param {Reader} reader */
  constructor(reader) {
    super("schedule");
    this.reader = reader;
    this.id = "";
    this.form.addEventListener("change", () => this.showKind());
  }

  /** @param {Strategy} strategy */
  begin(strategy) {
    const { id, name, schedule } = strategy;
    this.id = id;
    write($("schedule-title"), `When ${name} runs`);
    const usual = { exchange: strategy.exchange ?? "NSE", start: "09:15", stop: "15:30", weekdays: WEEKDAYS };
    const market = schedule?.kind === "market" ? schedule : usual;
    this.set("kind", schedule?.kind ?? "market");
    this.set("exchange", market.exchange);
    this.set("start", market.start);
    this.set("stop", market.stop ?? "");
    /** @type {NodeListOf<HTMLInputElement>} */
    const boxes = this.form.querySelectorAll("[name=weekdays]");
    for (const box of boxes) box.checked = market.weekdays.includes(box.value);
    this.showKind();
    this.show();
  }

  /** @param {string} name @param {string} value */
  set(name, value) {
    /** @type {RadioNodeList | HTMLInputElement} */ (this.form.elements.namedItem(name)).value = value;
  }

  showKind() {
    $("market").hidden = new FormData(this.form).get("kind") !== "market";
  }

  async send() {
    const schedule = chosen(new FormData(this.form));
    const headers = { "content-type": "application/json" };
    const options = schedule ? { method: "POST", headers, body: JSON.stringify(schedule) } : { method: "DELETE" };
    const { note } = await ask(address("schedule", this.id), options);
    this.reader.mark(this.id);
    if (note) toast(note);
  }
}

/** @param {FormData} given */
function chosen(given) {
  const kind = given.get("kind");
  if (kind === "none") return null;
  if (kind === "always") return { kind };
  const [exchange, start, stop] = ["exchange", "start", "stop"].map((name) => given.get(name));
  return { kind, exchange, start, stop: stop || null, weekdays: given.getAll("weekdays") };
}
