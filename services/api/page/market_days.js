// @ts-check
/** The days on which an exchange is not open as usual. */

/** @import {Exchanges} from "./exchanges.js" */
/** @import {Session} from "./schedules.js" */
import { ask } from "./api.js";
import { $, element, hint, write } from "./dom.js";
import { Entries, entry } from "./entries.js";
import { dateWords, localDay, zoneClock } from "./time.js";
import { capital } from "./words.js";

/** @typedef {{day: string, reason: string, source: ?string}} Closure */
/** @typedef {{segment: string, timezone: string, covered_from: string, covered_until: string, sessions: Session[], closures: Closure[]}} Sessions */
/** @typedef {{day: string, what: string, hours: string, reason: string, source: ?string}} Day */

const AHEAD_DAYS = 365;
const DAY_MS = 86_400_000;
const PAUSE_MS = 300;
const USUAL = "NSE";

export class MarketDays {
  /** @param {Exchanges} exchanges */
  constructor(exchanges) {
    this.exchanges = exchanges;
    /** @type {Entries<Day>} */
    this.entries = new Entries($("days"), line);
    /** @type {HTMLInputElement} */
    this.input = $("days-exchange");
    /** @type {Sessions | null} */
    this.found = null;
    this.timer = 0;
    this.input.value = new URLSearchParams(location.search).get("exchange") ?? USUAL;
    this.input.addEventListener("input", () => {
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.read(), PAUSE_MS);
    });
  }

  async read() {
    const exchange = this.input.value.trim();
    this.found = null;
    this.tell();
    if (!exchange) return this.entries.say("Choose an exchange.");
    const [from, to] = [0, AHEAD_DAYS].map((days) => new Date(Date.now() + days * DAY_MS).toISOString().slice(0, 10));
    await this.entries.load(async () => {
      /** @type {Sessions} */
      const found = await ask(`/calendar/holidays?${new URLSearchParams({ exchange, from, to })}`);
      if (exchange !== this.input.value.trim()) return [];
      this.found = found;
      return daysOf(found);
    });
    this.tell();
  }

  /** Of which exchange this is, how far it is known, and where its iCalendar is. */
  tell() {
    const { found } = this;
    const ics = /** @type {HTMLAnchorElement} */ ($("days-ics"));
    ics.hidden = !found;
    if (!found) return write($("days-text"), "");
    const { segment, timezone, covered_until: until } = found;
    const name = this.exchanges.find(segment)?.name ?? segment;
    write($("days-text"), `${name}. Times are in ${timezone}. What comes after ${dateWords(until)} is not known yet, and nothing starts then.`);
    ics.href = `/calendar/${encodeURIComponent(segment)}.ics`;
    write($("days-ics-of"), ` of ${segment}`);
    history.replaceState(null, "", `?${new URLSearchParams({ exchange: segment })}${location.hash}`);
  }
}

/** @param {Sessions} found */
function daysOf({ timezone, sessions, closures }) {
  /** @type {Day[]} */
  const days = [
    ...sessions.map(({ day, kind, opens_at: from, closes_at: until, reason, source }) => {
      const next = localDay(until, timezone) > localDay(from, timezone) ? " on the day after" : "";
      const hours = `${zoneClock(from, timezone)}–${zoneClock(until, timezone)}${next}`;
      return { day, what: `${kind} session`, hours, reason: reason ?? "", source };
    }),
    ...closures.map(({ day, reason, source }) => ({ day, what: "closed", hours: "", reason, source })),
  ];
  return days.sort((a, b) => (a.day + a.hours < b.day + b.hours ? -1 : 1));
}

/** @param {Day} one */
function line({ day, what, hours, reason, source }) {
  const made = entry(dateWords(day), [reason], [], [capital(what), ...(hours ? [hours] : [])]);
  made.dataset.what = what;
  if (source) {
    const told = element("span", "sub source", source);
    hint(told, source);
    made.firstElementChild?.append(told);
  }
  return made;
}
