// @ts-check
/** The days of a preview, a line each: what runs, and what is left out. */

/** @import {PreviewedDay, PreviewedWindow} from "./schedules.js" */
import { element } from "./dom.js";
import { dayWords, localDay, zoneClock } from "./time.js";
import { capital } from "./words.js";

const STARTS = 10; // days with a start; what is left out is shown to the end
const FEW = 3; // windows of one day that are told one by one
const EXPECTED = /^(weekend|not scheduled on)/i; // nobody wonders about them
const TOLD = /^(at \d\d:\d\d(:\d\d)?)?$/; // the times say it
const DAY_MS = 86_400_000;

/** @typedef {{first: string, last: string, reason: string}} Gap Days that are left out for one reason. */

/**
 * @param {PreviewedDay[]} days @param {string} zone @param {boolean} truncated
 * @returns {HTMLElement[]}
 */
export function dayLines(days, zone, truncated) {
  const starting = days.filter((day) => day.windows.length);
  const shown = starting.slice(0, STARTS);
  const cut = truncated ? starting[starting.length - 1] : null; // more may start on it than is told
  const gaps = folded(days.filter(({ skipped }) => skipped && !EXPECTED.test(skipped)));
  /** @type {[string, HTMLElement][]} */
  const lines = [
    ...shown.map((one) => /** @type {[string, HTMLElement]} */ ([one.day, one === cut ? cutLine(one, zone) : startLine(one, zone)])),
    ...gaps.map((gap) => /** @type {[string, HTMLElement]} */ ([gap.first, gapLine(gap)])),
  ];
  lines.sort(([a], [b]) => (a < b ? -1 : 1));
  const all = lines.map(([, line]) => line);
  if (truncated || shown.length < starting.length) all.push(element("li", "sub on", "… and so on"));
  return all;
}

/** @param {PreviewedDay[]} days Those that follow each other for one reason are one. */
function folded(days) {
  /** @type {Gap[]} */
  const gaps = [];
  for (const { day, skipped } of days) {
    const reason = (skipped ?? "").replace(` ${day}`, " these days");
    const before = gaps[gaps.length - 1];
    if (before?.reason === reason && Date.parse(day) - Date.parse(before.last) === DAY_MS) before.last = day;
    else gaps.push({ first: day, last: day, reason });
  }
  return gaps;
}

/** @param {Gap} gap */
function gapLine({ first, last, reason }) {
  const made = line(first === last ? dayWords(first) : `${dayWords(first)} – ${dayWords(last)}`, "No start", reason);
  made.classList.add("skipped");
  return made;
}

/** @param {PreviewedDay} day @param {string} zone */
function cutLine({ day, windows: [{ starts_at: first, start_reason: reason }] }, zone) {
  return line(dayWords(day), `from ${clockWords(first, zone, day)}, and more`, TOLD.test(reason) ? "" : reason);
}

/** @param {PreviewedDay} day @param {string} zone */
function startLine({ day, windows }, zone) {
  if (windows.length > FEW) {
    const [first, second, last] = [windows[0], windows[1], windows[windows.length - 1]].map((one) => zoneClock(one.starts_at, zone));
    return line(dayWords(day), `${first}, ${second} … ${last}`, `${windows.length} starts; ${windows[0].start_reason}`);
  }
  const times = windows.map((one) => hoursWords(one, day, zone)).join(", ");
  const reasons = [...new Set(windows.flatMap((one) => [one.start_reason, one.stop_reason]))].filter((reason) => !TOLD.test(reason));
  return line(dayWords(day), times, reasons.join("; "));
}

/** @param {PreviewedWindow} window @param {string} day @param {string} zone */
function hoursWords({ starts_at: from, stops_at: until }, day, zone) {
  const begins = localDay(from, zone);
  const start = clockWords(from, zone, day);
  return until ? `${start} – ${clockWords(until, zone, begins)}` : start;
}

/** @param {string} at @param {string} zone @param {string} day The date that is known already. */
function clockWords(at, zone, day) {
  const own = localDay(at, zone);
  return `${own === day ? "" : `${dayWords(own)} `}${zoneClock(at, zone)}`;
}

/** @param {string} day @param {string} times @param {string} reason */
function line(day, times, reason) {
  const made = element("li", "day-ahead");
  made.append(element("span", "day", day), element("span", "times", times), element("span", "sub why", capital(reason)));
  return made;
}
