// @ts-check
/** What is written about a schedule: filled in from one, and read as one. */

/** @import {Exchanges} from "./exchanges.js" */
/** @import {Schedule} from "./schedules.js" */
import { Problem } from "./api.js";
import { $, find, write } from "./dom.js";
import { Instants } from "./instants.js";
import { DEFAULTS, WEEKDAYS } from "./schedules.js";

/** @typedef {HTMLInputElement | HTMLTextAreaElement | HTMLSelectElement} Control */
/** @typedef {Record<string, unknown>} Values */

/** @type {Record<string, string>} What the server would not say as well. */
const MISSING = { exchange: "write one like NSE", at: "choose a day and a time" };
const REQUIRED = new Set(["kind", "start", "every", "cron", "at"]);
const NOT_THEIRS = new Set(["kind", "weekdays"]); // read by themselves
const ZONED = new Set(["cron", "once"]); // kinds that may have no exchange to take their zone from
const MAY_LACK = new Set(["cron", "interval", "once"]);
const RARE = ["special_sessions", "open_dates", "skip_dates", "catch_up", "overlap"];
const DAY = /^\d{4}-\d{2}-\d{2}$/;
/** @type {Record<string, string>} */
const RENAMED = { "Asia/Calcutta": "Asia/Kolkata" }; // as browsers still call it

export class ScheduleForm {
  /** @param {HTMLFormElement} form @param {Exchanges} exchanges */
  constructor(form, exchanges) {
    this.form = form;
    this.exchanges = exchanges;
    this.instants = new Instants($("schedule-at"), $("schedule-stop-at"), $("schedule-timezone"));
    /** @type {Values} */
    this.stored = {};
    /** @type {?string} The strategy's own exchange. */
    this.home = null;
    /** @type {?string} Null: no zone is offered now. */
    this.offered = null;
    /** @type {HTMLElement[]} */
    this.places = [...form.querySelectorAll("[data-kinds]")].map((one) => /** @type {HTMLElement} */ (one));
  }

  get kind() {
    return String(new FormData(this.form).get("kind"));
  }

  /** @param {?Schedule} schedule @param {?string} home */
  fill(schedule, home) {
    this.stored = { ...schedule };
    this.home = home;
    this.offered = null;
    /** @type {Values} */
    const given = { kind: "market", ...DEFAULTS, exchange: home ?? "NSE", ...schedule };
    this.form.reset();
    for (const control of this.controls()) {
      const theirs = control.name === "exchange" || fits(control.closest("[data-kinds]"), String(given.kind));
      if (theirs && (schedule || control.name in given)) fillIn(control, given);
    }
    this.instants.fill(this.stored);
    const more = RARE.some((name) => JSON.stringify(given[name]) !== JSON.stringify(DEFAULTS[name]));
    const zoned = Boolean(given.timezone) && !ZONED.has(String(given.kind));
    /** @type {HTMLDetailsElement} */ ($("schedule-more")).open = more || zoned || Boolean(given.max_runtime);
    this.arrange();
  }

  controls() {
    /** @type {NodeListOf<Control>} */
    const all = this.form.querySelectorAll("input[name], textarea[name], select[name]");
    return [...all];
  }

  /** What is of no use to this kind is neither seen nor sent. */
  arrange() {
    const { kind } = this;
    this.form.dataset.kind = kind;
    const exchanged = written("schedule-exchange") !== "";
    for (const place of this.places) {
      const useful = fits(place, kind) && (!place.dataset.needs || exchanged);
      place.hidden = !useful;
      /** @type {NodeListOf<Control>} */
      const controls = place.querySelectorAll("input, textarea, select");
      for (const control of controls) control.disabled = !useful;
    }
    write($("schedule-exchange-optional"), kind === "market" ? "" : "optional");
    const free = this.isFree(exchanged);
    this.offerZone(free);
    this.placeZone(free || ZONED.has(kind));
    /** @type {HTMLInputElement} */ ($("schedule-timezone")).placeholder = (kind === "once" && this.instants.zoneName()) || this.zone();
  }

  /** @param {boolean} exchanged Whether nothing but the browser tells its zone. */
  isFree(exchanged) {
    const { kind } = this;
    return !this.home && MAY_LACK.has(kind) && (kind === "once" || !exchanged) && !this.keepsNone();
  }

  /** Whether it was kept without a zone, and needs none still. */
  keepsNone() {
    const { kind, stored } = this;
    if (stored.kind !== kind || stored.exchange || stored.timezone) return false;
    const days = new FormData(this.form).getAll("weekdays");
    return kind === "once" || (kind === "interval" && days.length === WEEKDAYS.length && !written("schedule-skip"));
  }

  /** What is offered is seen, and goes away again unless it was changed. @param {boolean} free */
  offerZone(free) {
    /** @type {HTMLInputElement} */
    const zone = $("schedule-timezone");
    if (free && this.offered === null) {
      this.offered = zone.value ? "" : browserZone();
      zone.value ||= this.offered;
    } else if (!free && this.offered !== null) {
      if (zone.value === this.offered) zone.value = "";
      this.offered = null;
    }
  }

  /** @param {boolean} shown Where local times hang on it; else it is among the rare options. */
  placeZone(shown) {
    const zone = $("schedule-zone");
    const before = shown ? $("schedule-times-hint") : find($("schedule-more"), ".grid > :not(#schedule-zone)");
    if (zone.nextElementSibling !== before) before.before(zone);
  }

  /** In which local times are meant when no zone is written. */
  zone() {
    const known = this.kind !== "once" && this.exchanges.find(written("schedule-exchange"));
    if (known) return known.timezone;
    if (this.keepsNone()) return "UTC";
    return (this.home && this.exchanges.find(this.home)?.timezone) || browserZone();
  }

  /** @returns {Values | null} Null: none. Throws a Problem that names the field. */
  read() {
    const given = new FormData(this.form);
    const { kind } = this;
    /** @type {Values} */
    const values = { kind };
    for (const control of this.controls()) {
      if (!control.disabled && !NOT_THEIRS.has(control.name)) values[control.name] = valueOf(control);
    }
    if (!find(this.form, "[data-field=weekdays]").hidden) values.weekdays = given.getAll("weekdays");
    if (kind === "once") Object.assign(values, this.instants.read());
    if (this.lacksZone(values)) values.timezone = this.zone();
    for (const [name, message] of Object.entries(MISSING)) {
      if (values[name] === "" || (kind === "market" && name in values && values[name] === null)) throw wrong(name, message);
    }
    if (kind === this.stored.kind) return { ...unseen(this.stored, this.form), ...values };
    return kind === "manual" && !values.max_runtime ? null : values;
  }

  /** @param {Values} values Whether its local times would hang in the air. */
  lacksZone({ kind, timezone, exchange, at }) {
    if (timezone || exchange || !MAY_LACK.has(String(kind))) return false;
    if (kind === "once") return Boolean(at) && !this.instants.offset;
    return !this.keepsNone();
  }
}

function browserZone() {
  const { timeZone } = Intl.DateTimeFormat().resolvedOptions();
  return RENAMED[timeZone] ?? timeZone;
}

/** @param {Element | null} place @param {string} kind */
const fits = (place, kind) => !(place instanceof HTMLElement) || (place.dataset.kinds ?? "").split(" ").includes(kind);

/** @param {string} id */
const written = (id) => /** @type {HTMLInputElement} */ ($(id)).value.trim();

/** @param {string} field @param {string} message */
const wrong = (field, message) => new Problem(message, [{ field, message }]);

/** @param {Control} control @param {Values} given */
function fillIn(control, given) {
  const value = given[control.name];
  if (control instanceof HTMLInputElement && control.type === "radio") control.checked = control.value === value;
  else if (control.name === "weekdays") /** @type {HTMLInputElement} */ (control).checked = /** @type {string[]} */ (value).includes(control.value);
  else if (control instanceof HTMLInputElement && control.type === "checkbox") control.checked = Boolean(value);
  else if (control.name.endsWith("_dates")) control.value = /** @type {string[]} */ (value).join("\n");
  else control.value = typeof value === "string" ? value : "";
}

/** @param {Control} control */
function valueOf(control) {
  const text = control.value.trim();
  if (control instanceof HTMLInputElement && control.type === "checkbox") return control.checked;
  if (control.name.endsWith("_dates")) return dates(control.name, text);
  if (control.name === "start" || control.name === "stop") return clockTime(text) || (REQUIRED.has(control.name) ? "" : null);
  return text || (REQUIRED.has(control.name) ? "" : null);
}

/** @param {string} field @param {string} text */
function dates(field, text) {
  const all = text.split(/[\s,;]+/).filter(Boolean);
  const odd = all.find((one) => !DAY.test(one) || Number.isNaN(Date.parse(one)));
  if (odd) throw wrong(field, `“${odd}” is no date like 2026-12-24`);
  return [...new Set(all)].sort();
}

/** @param {string} text As people write it: 9:15, Open + 5 min. */
const clockTime = (text) => text.toLowerCase().replaceAll(" ", "").replace(/^\d:/, "0$&");

/** @param {Values} stored @param {HTMLFormElement} form What the form has no place for is kept as it was. */
function unseen(stored, form) {
  return Object.fromEntries(Object.entries(stored).filter(([name]) => !form.elements.namedItem(name)));
}
