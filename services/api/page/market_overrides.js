// @ts-check
/** What admins say of single days. */

import { Problem, ask, remove } from "./api.js";
import { confirmation } from "./asking.js";
import { $, button, find } from "./dom.js";
import { Entries, entry } from "./entries.js";
import { Form } from "./form.js";
import { toast } from "./messages.js";
import { dateWords, stamp } from "./time.js";

/** @typedef {{opens: string, closes: string}} Hours */
/** @typedef {{segment: string, day: string, hours: Hours[], reason: string, by: string, at: string}} Override */

export class MarketOverrides extends Form {
  /** @param {() => void} onChange */
  constructor(onChange) {
    super($("overrides"));
    this.onChange = onChange;
    this.mayChange = false;
    /** @type {Entries<Override>} */
    this.entries = new Entries(this.el, (one) => this.line(one));
    this.form.addEventListener("input", () => this.showHours());
    this.form.addEventListener("reset", () => setTimeout(() => this.showHours()));
  }

  /** @param {boolean} may */
  allow(may) {
    this.form.hidden = !may;
    if (may === this.mayChange) return;
    this.mayChange = may;
    this.entries.shown = "";
    this.read();
  }

  async read() {
    await this.entries.load(async () => (await ask("/calendar/overrides")).overrides);
  }

  showHours() {
    find(this.form, "[data-field=hours]").hidden = this.value("what") === "closed";
  }

  async send() {
    const [exchange, day, reason] = [this.value("exchange").trim(), this.value("day"), this.value("reason").trim()];
    const hours = this.value("what") === "closed" ? [] : hoursOf(this.value("hours"));
    const missing = [
      ...(exchange ? [] : [{ field: "exchange", message: "write one like NSE" }]),
      ...(day ? [] : [{ field: "day", message: "choose a day" }]),
      ...(hours ? [] : [{ field: "hours", message: "write when it opens and closes, like 18:00-19:15" }]),
      ...(reason ? [] : [{ field: "reason", message: "write why, and who says so" }]),
    ];
    if (missing.length || !hours) throw new Problem("Something is missing", missing);
    const body = JSON.stringify({ hours, reason });
    await ask(path(exchange, day), { method: "PUT", headers: { "content-type": "application/json" }, body });
    toast(`It holds now: ${exchange.toUpperCase()}, ${dateWords(day)}.`);
    this.form.reset();
    await this.changed();
    return true;
  }

  async changed() {
    this.onChange();
    await this.read();
  }

  /** @param {Override} one */
  line(one) {
    const { segment, day, hours, reason, by, at } = one;
    const name = `${segment} · ${dateWords(day)}`;
    const tags = hours.length ? hours.map(({ opens, closes }) => `Open ${opens}–${closes}`) : ["Closed"];
    const ending = button("button small", "Remove", () => this.ask(one, name));
    ending.setAttribute("aria-label", `Remove ${name}`);
    return entry(name, [`${reason} · by ${by}, ${stamp(Date.parse(at))}`], this.mayChange ? [ending] : [], tags);
  }

  /** @param {Override} one @param {string} name */
  ask({ segment, day }, name) {
    confirmation.ask(`Remove what was said of ${name}?`, "The calendar tells of this day again, at once: strategies start by it, and what has a stop is stopped.", "Remove", async () => {
      await remove(path(segment, day));
      toast("The calendar tells of this day again.");
      await this.changed();
    });
  }
}

/** @param {string} exchange @param {string} day */
const path = (exchange, day) => `/calendar/overrides/${encodeURIComponent(exchange)}/${encodeURIComponent(day)}`;

/** @param {string} text @returns {Hours[] | null} Null: it cannot be read. */
function hoursOf(text) {
  const all = text.split(/[,;]/).map((part) => part.split(/[-–—]|\bto\b/).map((time) => time.trim().replace(/^\d:/, "0$&")));
  if (all.some((pair) => pair.length !== 2 || !pair.every(Boolean))) return null;
  return all.map(([opens, closes]) => ({ opens, closes }));
}
