// @ts-check
/** A schedule in a few words. */

/** @import {Daily, Schedule} from "./schedules.js" */
import { WEEKDAYS } from "./schedules.js";
import { capital } from "./words.js";

/** @param {?Schedule} schedule */
export function scheduleWords(schedule) {
  switch (schedule?.kind) {
    case "market": return `${schedule.exchange} ${hours(schedule.start ?? "open", schedule.stop)}${onDays(schedule)}`;
    case "cron": return ["Cron", schedule.cron, schedule.exchange ?? schedule.timezone, ending(schedule)].filter(Boolean).join(" ");
    case "interval": return `Every ${durationWords(schedule.every)}${schedule.exchange ? ` in ${schedule.exchange}` : ""}${onDays(schedule)}`;
    case "once": return `Once ${instantWords(schedule.at)}${schedule.stop ? `–${instantWords(schedule.stop, schedule.at)}` : ""}`;
    case "always": return "Always";
    case "manual": return "By hand";
    default: return "Add a schedule";
  }
}

/** @param {string} from @param {?string | undefined} until */
function hours(from, until) {
  if (!until) return `from ${from}`;
  return /[-+]/.test(from + until) ? `${from} – ${until}` : `${from}–${until}`;
}

/** @param {{stop?: ?string, duration?: ?string}} cron */
function ending({ stop, duration }) {
  return stop ? `until ${stop}` : duration ? `for ${durationWords(duration)}` : "";
}

/** @param {string} text As it is written: 1h30m. */
export const durationWords = (text) => text.replace(/(\d+)(h|m|s)/g, (_, number, unit) => `${number} ${unit === "m" ? "min" : unit} `).trim();

const UTC_DAY = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", timeZone: "UTC" });
const UTC_YEAR = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric", timeZone: "UTC" });

/** @param {string} at A local time as it was written. @param {string} [beside] One whose day need not be said again. */
function instantWords(at, beside = "") {
  const [day, time] = [at.slice(0, 10), at.slice(11, 16)];
  if (day === beside.slice(0, 10)) return time;
  const form = day.slice(0, 4) === String(new Date().getFullYear()) ? UTC_DAY : UTC_YEAR;
  return `${form.format(Date.parse(day))} ${time}`;
}

/** @param {Daily} schedule */
function onDays({ weekdays = WEEKDAYS }) {
  return weekdays.length < WEEKDAYS.length ? ` · ${weekdayWords(weekdays)}` : "";
}

/** @param {string[]} days In the order of the week. */
function weekdayWords(days) {
  const [first, last] = [days[0], days[days.length - 1]];
  const joined = WEEKDAYS.indexOf(last) - WEEKDAYS.indexOf(first) === days.length - 1;
  return joined && days.length > 2 ? `${capital(first)}–${capital(last)}` : days.map(capital).join(" ");
}
