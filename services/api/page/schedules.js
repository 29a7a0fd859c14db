// @ts-check
/** Schedules, as the server keeps them: what has a default may be left out. What it foretells. */

/** @typedef {{weekdays?: string[]}} Daily */
/** @typedef {{exchange?: ?string, timezone?: ?string, special_sessions?: boolean, open_dates?: string[], skip_dates?: string[], catch_up?: string, max_runtime?: ?string}} Dated */
/** @typedef {Dated & Daily & {kind: "market", start?: string, stop?: ?string}} Market */
/** @typedef {Dated & {kind: "cron", cron: string, stop?: ?string, duration?: ?string, overlap?: string}} Cron */
/** @typedef {Dated & Daily & {kind: "interval", every: string, overlap?: string}} Interval */
/** @typedef {{kind: "once", at: string, stop?: ?string, timezone?: ?string, catch_up?: string, max_runtime?: ?string}} Once */
/** @typedef {{kind: "always" | "manual", max_runtime?: ?string}} Plain */
/** @typedef {Market | Cron | Interval | Once | Plain} Schedule */

/** @typedef {{segment: string, day: string, opens_at: string, closes_at: string, kind: "usual" | "shortened" | "special", reason: ?string, source: ?string}} Session */

/** @typedef {{starts_at: string, start_reason: string, stops_at: ?string, stop_reason: string}} PreviewedWindow */
/** @typedef {{day: string, windows: PreviewedWindow[], skipped: ?string}} PreviewedDay */
/** @typedef {{timezone: string, days: PreviewedDay[], truncated: boolean, warning: ?string}} Preview */

export const WEEKDAYS = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/** What is meant when nothing is said; elsewhere, nothing is. @type {Record<string, unknown>} */
export const DEFAULTS = {
  start: "open", weekdays: WEEKDAYS, special_sessions: true, open_dates: [], skip_dates: [],
  catch_up: "start", overlap: "skip",
};
