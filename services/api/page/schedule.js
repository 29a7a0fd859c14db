// @ts-check
/** When a strategy runs: asked for in a dialog that shows what will come of it. */

/** @import {Strategy} from "./api.js" */
/** @import {Reader} from "./reader.js" */
import { address, ask, post, remove } from "./api.js";
import { Dialog } from "./dialog.js";
import { $, write } from "./dom.js";
import { Exchanges, option } from "./exchanges.js";
import { toast } from "./messages.js";
import { Preview } from "./preview.js";
import { ScheduleForm } from "./schedule_form.js";

const DAYS = 30;
const NOTHING_COMES = {
  always: "It starts now, and again whenever it has ended, until you stop it.",
  manual: "Nothing starts or stops it but you.",
};

export class ScheduleDialog extends Dialog {
  /** @param {Reader} reader */
  constructor(reader) {
    super("schedule");
    this.reader = reader;
    this.id = "";
    this.asFilled = "";
    this.exchanges = new Exchanges();
    this.exchanges.onRead = () => {
      $("zones").replaceChildren(...this.exchanges.zones().map((zone) => option(zone)));
      this.written.arrange();
      this.lookAhead();
    };
    this.written = new ScheduleForm(this.form, this.exchanges);
    this.preview = new Preview($("preview"));
    this.form.addEventListener("input", () => {
      this.written.arrange();
      this.lookAhead();
    });
    this.dialog.addEventListener("close", () => this.preview.end());
  }

  /** @param {Strategy} strategy */
  begin(strategy) {
    const { id, name, schedule } = strategy;
    this.id = id;
    write($("schedule-title"), `When ${name} runs`);
    this.exchanges.read();
    this.written.fill(schedule, strategy.exchange);
    this.asFilled = schedule ? this.said() : "";
    this.preview.clear(strategy.intent === "stop");
    this.show();
    this.lookAhead();
  }

  said() {
    try {
      return JSON.stringify(this.written.read());
    } catch {
      return "";
    }
  }

  /** What is kept already is previewed from when it was set. */
  lookAhead() {
    if (!this.dialog.open) return;
    const unchanged = this.asFilled !== "" && this.said() === this.asFilled;
    this.preview.look(() => {
      const schedule = this.written.read();
      const { kind } = schedule ?? { kind: "manual" };
      if (kind === "manual" || kind === "always") return NOTHING_COMES[kind];
      if (unchanged) return (signal) => ask(address("preview", this.id, { days: DAYS }), { signal });
      const headers = { "content-type": "application/json" };
      return (signal) => ask(`/python/preview?days=${DAYS}`, { method: "POST", headers, body: JSON.stringify(schedule), signal });
    });
  }

  async send() {
    const schedule = this.written.read();
    const path = address("schedule", this.id);
    const { note } = await (schedule ? post(path, schedule) : remove(path));
    this.reader.mark(this.id);
    if (note) toast(note);
  }
}
