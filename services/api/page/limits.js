// @ts-check
/** What a strategy's runs may use, and how they are watched, stopped and restarted. */

/** @import {Strategy} from "./api.js" */
/** @import {Reader} from "./reader.js" */
import { Problem, address, ask, post } from "./api.js";
import { Dialog } from "./dialog.js";
import { $, hint, named, write } from "./dom.js";
import { toast } from "./messages.js";
import { isLive } from "./words.js";

/** @typedef {Record<string, Record<string, any>> & {restart: string, interpreter: string}} Policy */
/** @typedef {{policy: Policy, host: ?{runner: string, limits: Record<string, string>}, note: ?string}} Told */

/** @type {Record<string, string[]>} Where a policy has what a field sets. */
const SECTIONS = {
  limits: ["memory_mb", "processes", "cpus", "cpu_weight", "disk_mb", "open_files"],
  watchdogs: ["quiet_s", "heartbeat_s", "max_runtime_s"],
  stop: ["signals", "grace_s"],
};
const CHOICES = ["restart", "interpreter"];
const DURATIONS = new Set(SECTIONS.watchdogs);
const DURATION = /^(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?:in)?)?(?:(\d+(?:[.,]\d+)?)s)?$/;
/** @type {[string, number][]} */
const UNITS = [["d", 86_400], ["h", 3600], ["m", 60], ["s", 1]];
/** @type {Record<string, string>} What a host makes of a limit. */
const HOST = {
  enforced: "The host does not let it use more.",
  watched: "Looked at once a second; it is ended when it uses more.",
  none: "This host cannot hold it to this.",
};

export class LimitsDialog extends Dialog {
  /** @param {Reader} reader */
  constructor(reader) {
    super("limits");
    this.reader = reader;
    this.id = "";
    this.tags = named(this.el, "host");
    /** @type {Record<string, string>} What was read, as it was filled in. */
    this.filled = {};
  }

  /** @param {Strategy} strategy */
  async begin(strategy) {
    this.id = strategy.id;
    write($("limits-title"), `Limits of ${strategy.name}`);
    $("limits-live").hidden = !isLive(strategy);
    this.form.reset();
    this.fillHost(null);
    this.el.setAttribute("aria-busy", "true");
    this.show();
    try {
      const told = /** @type {Told} */ (await ask(address("limits", strategy.id)));
      if (this.id !== strategy.id) return;
      this.fill(told.policy);
      this.fillHost(told.host);
      this.el.setAttribute("aria-busy", "false");
    } catch (error) {
      this.fail(error); // it stays busy: what was not read is not sent
    }
  }

  /** @param {Policy} policy */
  fill(policy) {
    for (const [section, fields] of Object.entries(SECTIONS)) {
      for (const field of fields) this.fillIn(field, shown(field, policy[section][field]));
    }
    for (const choice of CHOICES) this.fillIn(choice, policy[choice]);
  }

  /** @param {string} field @param {string} text */
  fillIn(field, text) {
    this.filled[field] = text;
    this.control(field).value = text;
  }

  /** @param {Told["host"]} host */
  fillHost(host) {
    for (const [limit, tag] of Object.entries(this.tags)) {
      const word = host?.limits[limit] ?? "";
      write(tag, word);
      hint(tag, HOST[word] ?? "");
      tag.hidden = !word;
      tag.dataset.enforcement = word;
    }
  }

  /** @param {string} name */
  control(name) {
    return /** @type {HTMLInputElement | HTMLSelectElement} */ (this.form.elements.namedItem(name));
  }

  /** @returns {Record<string, any>} A part of a policy. Throws a Problem that names the field. */
  changed() {
    const differs = (/** @type {string} */ field) => this.value(field).trim() !== this.filled[field];
    const sections = Object.entries(SECTIONS).map(([section, fields]) => {
      return [section, Object.fromEntries(fields.filter(differs).map((field) => [field, meant(field, this.value(field).trim())]))];
    });
    const choices = CHOICES.filter(differs).map((choice) => [choice, this.value(choice)]);
    return Object.fromEntries([...sections.filter(([, fields]) => Object.keys(fields).length), ...choices]);
  }

  /** What was changed here: others may have set the rest meanwhile. What is left empty is its default. */
  async send() {
    const part = this.changed();
    if (!Object.keys(part).length) return;
    const { note } = await post(address("limits", this.id), part).catch((error) => Promise.reject(atFields(error)));
    this.reader.mark(this.id);
    if (note) toast(`${note.charAt(0).toUpperCase()}${note.slice(1)}.`);
  }
}

/** @param {string} field @param {any} value */
function shown(field, value) {
  if (value === null) return "";
  if (field === "signals") return value.length ? value.join(", ") : "none";
  return DURATIONS.has(field) ? written(value) : String(value);
}

/** @param {string} field @param {string} text Throws a Problem that names the field. */
function meant(field, text) {
  if (!text) return null;
  if (field === "signals") return signals(text);
  if (DURATIONS.has(field)) return seconds(field, text);
  const number = Number(text.replace(",", "."));
  if (!Number.isFinite(number)) throw wrong(field, "write a number");
  return number;
}

/** @param {string} text */
function signals(text) {
  const words = text.toUpperCase().split(/[\s,]+/).filter(Boolean);
  if (!words.length) throw wrong("signals", "write signals like SIGINT, SIGTERM, or none");
  return words.join() === "NONE" ? [] : words.map((word) => (word.startsWith("SIG") ? word : `SIG${word}`));
}

/** @param {string} field @param {string} text A duration as people write it: 1h 30m. */
function seconds(field, text) {
  const found = DURATION.exec(text.toLowerCase().replaceAll(" ", ""));
  if (!found) throw wrong(field, "write a duration like 90s, 15m or 1h30m");
  return UNITS.reduce((sum, [, size], n) => sum + size * Number(found[n + 1]?.replace(",", ".") ?? 0), 0);
}

/** @param {number} value */
function written(value) {
  let left = value;
  const parts = UNITS.map(([unit, size]) => {
    const count = size === 1 ? Number(left.toFixed(3)) : Math.floor(left / size);
    left -= count * size;
    return count ? `${count}${unit}` : "";
  });
  return parts.join("") || "0s";
}

/** @param {unknown} error The server names a field by its place in the document, limits.memory_mb, and tells seconds. */
function atFields(error) {
  if (!(error instanceof Problem)) return error;
  const errors = error.errors.map((one) => {
    const [section, ...rest] = one.field.split(".");
    if (!(section in SECTIONS && rest.length)) return one;
    const [field] = rest;
    const message = DURATIONS.has(field) ? one.message.replace(/\d+$/, (value) => written(Number(value))) : one.message;
    return { ...one, field, message };
  });
  const { status, code, retryAfter } = error;
  return new Problem(error.message, errors, { status, code, retryAfter });
}

/** @param {string} field @param {string} message */
const wrong = (field, message) => new Problem(message, [{ field, message }]);
