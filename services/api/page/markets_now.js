// @ts-check
/** Which markets are open now, and what comes next. */

/** @import {Exchanges} from "./exchanges.js" */
/** @import {Session} from "./schedules.js" */
import { ask } from "./api.js";
import { $, element, find, hint, write } from "./dom.js";
import { Entries } from "./entries.js";
import { dayWords, duration, everySecond, exact, localDay, zoneClock } from "./time.js";
import { capital } from "./words.js";

/** @typedef {{segment: string, is_open: ?boolean, reason: string, session: ?Session, next: ?Session}} Market */

const SHOWN = /^(closed: (opens at \d\d:\d\d)?|open until \d\d:\d\d)(: )?/; // the badge and the clock say it
const AGAIN_MS = 60_000;
const DAY_MS = 86_400_000;
const WEEK = 7; // days, within which a weekday's name is enough

export class MarketsNow {
  /** @param {Exchanges} exchanges */
  constructor(exchanges) {
    this.exchanges = exchanges;
    this.readAt = 0;
    /** @type {Entries<Market>} */
    this.entries = new Entries($("now"), tile);
    everySecond(() => this.tick());
  }

  async read() {
    this.readAt = Date.now();
    await this.entries.load(async () => (await ask("/calendar/now")).markets);
    this.tick();
  }

  tick() {
    const now = Date.now();
    const all = this.entries.all.map((market, index) => this.show(market, this.entries.el.children[index], now));
    const waited = now - this.readAt;
    if (waited > AGAIN_MS || (waited > 1000 && all.some((at) => at && at <= now && at > this.readAt))) this.read();
  }

  /** @param {Market} market @param {Element | undefined} el @param {number} now @returns {number} When it changes. */
  show({ segment, is_open: open, reason, session, next }, el, now) {
    if (!el) return 0;
    const known = this.exchanges.find(segment);
    const zone = known?.timezone ?? "UTC";
    const name = find(el, ".market-name");
    write(name, known?.name ?? "");
    hint(name, known?.name ?? "");
    const endless = open && session && session.closes_at === next?.opens_at;
    const turn = endless ? null : open ? session?.closes_at : next?.opens_at;
    const at = turn ? Date.parse(turn) : 0;
    const left = at - now < DAY_MS ? ` · in ${duration(at - now)}` : "";
    const when = find(el, ".market-when");
    write(when, turn ? `${open ? "Closes" : "Opens"} ${clockWords(turn, zone, now)}${left}` : endless ? "Around the clock" : "");
    hint(when, turn ? exact(at) : "");
    const after = open && next && !endless ? `opens next ${clockWords(next.opens_at, zone, now)}` : "";
    write(find(el, ".market-why"), capital([reason.replace(SHOWN, ""), after].filter(Boolean).join("; ")));
    return at;
  }
}

/** @param {string} at @param {string} zone @param {number} now The time, with its day unless that is today there. */
function clockWords(at, zone, now) {
  const [day, today] = [localDay(at, zone), localDay(new Date(now).toISOString(), zone)];
  const days = (Date.parse(day) - Date.parse(today)) / DAY_MS;
  const words = days < WEEK ? dayWords(day).slice(0, 3) : dayWords(day);
  return `${days ? `${words} ` : ""}${zoneClock(at, zone)}`;
}

/** @param {Market} market */
function tile({ segment, is_open: open }) {
  const made = element("li", "entry market");
  const head = element("span", "entry-head");
  const badge = element("span", "badge", open === null ? "Unknown" : open ? "Open" : "Closed");
  badge.dataset.status = open === null ? "waiting" : open ? "running" : "stopped";
  head.append(element("b", "entry-name", segment), badge);
  made.append(head, element("span", "sub market-name"), element("span", "market-when"), element("span", "sub market-why"));
  return made;
}
