// @ts-check
/** Instants and durations, as a person reads them, and waiting. */

/** @type {Intl.DateTimeFormatOptions} */
const CLOCK = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
const clock = new Intl.DateTimeFormat(undefined, CLOCK);
const weekdayClock = new Intl.DateTimeFormat(undefined, { weekday: "short", ...CLOCK });
const day = new Intl.DateTimeFormat(undefined, { dateStyle: "short" });
const medium = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short", hourCycle: "h23" });
const full = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "long", hourCycle: "h23" });

const calendarDay = new Intl.DateTimeFormat("en-GB", { weekday: "short", day: "numeric", month: "short", timeZone: "UTC" });
const yearDay = new Intl.DateTimeFormat("en-GB", { weekday: "short", day: "numeric", month: "short", year: "numeric", timeZone: "UTC" });

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** @param {number} at @param {number} now The time, with its weekday unless that is today. */
export const moment = (at, now) => (day.format(at) === day.format(now) ? clock : weekdayClock).format(at);

/** @param {number} at The day and the time. */
export const stamp = (at) => medium.format(at);

/** @param {number} at */
export const exact = (at) => full.format(at);

/** @param {string} day A date, of whichever zone. */
export const dayWords = (day) => calendarDay.format(Date.parse(day)).replace(",", "");

/** @param {string} day A date, with its year. */
export const dateWords = (day) => yearDay.format(Date.parse(day)).replace(",", "");

/** @param {string} at @param {string} zone The time in the zone; with its seconds, if it has any. */
export const zoneClock = (at, zone) => inZone(zone).time.format(Date.parse(at)).replace(/(:\d\d):00$/, "$1");

/** @param {string} at @param {string} zone The date in the zone. */
export const localDay = (at, zone) => inZone(zone).date.format(Date.parse(at));

/** @type {Map<string, {time: Intl.DateTimeFormat, date: Intl.DateTimeFormat}>} */
const zones = new Map();

/** @param {string} timeZone */
function inZone(timeZone) {
  const known = zones.get(timeZone) ?? {
    time: new Intl.DateTimeFormat("en-GB", { timeStyle: "medium", timeZone }),
    date: new Intl.DateTimeFormat("sv-SE", { dateStyle: "short", timeZone }),
  };
  zones.set(timeZone, known);
  return known;
}

/** @param {number} ms */
export function duration(ms) {
  const left = Math.max(0, ms);
  const [d, h, m, s] = [left / DAY, (left % DAY) / HOUR, (left % HOUR) / MINUTE, (left % MINUTE) / SECOND].map(Math.floor);
  if (d) return `${d} d ${h} h`;
  if (h) return `${h} h ${String(m).padStart(2, "0")} m`;
  return m ? `${m} m ${String(s).padStart(2, "0")} s` : `${s} s`;
}

/** @param {number} ms A duration that may be much less than a second. */
export function brief(ms) {
  if (ms < SECOND) return `${Math.max(0, ms)} ms`;
  return ms < 10 * SECOND ? `${(ms / SECOND).toFixed(1)} s` : duration(ms);
}

/** @param {number} ms */
export function ago(ms) {
  if (ms < 10 * SECOND) return "just now";
  if (ms < MINUTE) return `${Math.floor(ms / SECOND / 10) * 10} s ago`;
  if (ms < HOUR) return `${Math.floor(ms / MINUTE)} m ago`;
  return ms < DAY ? `${Math.floor(ms / HOUR)} h ago` : `${Math.floor(ms / DAY)} d ago`;
}

/** @param {number} ms @param {AbortSignal} [signal] @returns {Promise<void>} */
export function pause(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });
}

/** @param {() => void} act On the second; a hidden page catches up when it is seen again. */
export function everySecond(act) {
  const actIfSeen = () => document.hidden || act();
  const next = () => {
    actIfSeen();
    setTimeout(next, SECOND - (Date.now() % SECOND));
  };
  document.addEventListener("visibilitychange", actIfSeen);
  next();
}
