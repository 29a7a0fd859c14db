// @ts-check
/** The latest of the audit. */

import { ask } from "./api.js";
import { $, element, hint } from "./dom.js";
import { Entries, entry } from "./entries.js";
import { exact, stamp } from "./time.js";
import { actionWords, plain } from "./words.js";

/** @typedef {{id: number, at: string, user_id: string, user: string, action: string, outcome: string, strategy_id: ?string, owner: ?string, address: string, before: ?Record<string, unknown>, after: ?Record<string, unknown>, detail: ?string}} Entry */

/** @type {Record<string, string>} What an entry's values are called, if not by their own names. */
const TITLES = { by: "made by", user_id: "for" };
const STEP = 50;
const MOST = 500; // what one answer may hold; the download has them all

export class Audit {
  constructor() {
    this.limit = STEP;
    /** @type {Entries<Entry>} */
    this.entries = new Entries($("audit"), line);
    /** @type {HTMLInputElement} */
    this.everybody = $("audit-everybody");
    this.everybody.addEventListener("change", () => {
      this.limit = STEP;
      this.read();
    });
    $("audit-older").addEventListener("click", () => {
      this.limit = Math.min(MOST, this.limit * 3);
      this.read();
    });
  }

  async read() {
    const path = this.everybody.checked ? "/admin/audit" : "/auth/audit";
    /** @type {HTMLAnchorElement} */ ($("audit-download")).href = `${path}?format=jsonl`;
    await this.entries.load(async () => (await ask(`${path}?limit=${this.limit}`)).entries);
    $("audit-older").hidden = this.entries.all.length < this.limit || this.limit >= MOST;
  }
}

/** @param {Entry} one */
function line(one) {
  const at = element("time", "", stamp(Date.parse(one.at)));
  hint(at, exact(Date.parse(one.at)));
  const facts = [one.user, one.strategy_id, one.address].filter(Boolean).map((fact) => ` · ${fact}`);
  const made = entry(actionWords(one.action), [at, ...facts], [], [plain(one.outcome)]);
  const change = [one.detail, changeWords(one)].filter(Boolean).join("; ");
  if (change) made.firstElementChild?.append(element("span", "sub mono", change));
  return made;
}

/** @param {Entry} one What it was about, and what it was before. */
function changeWords({ user_id: user, before, after }) {
  const names = new Set([...Object.keys(before ?? {}), ...Object.keys(after ?? {})]);
  if ((before?.by ?? after?.by) === user) names.delete("by");
  return [...names].map((name) => {
    const [was, is] = [before?.[name], after?.[name]].map(valueWords);
    const title = TITLES[name] ?? plain(name);
    if (before && after && name in before && name in after) return was === is ? `${title}: ${is}` : `${title}: ${was} → ${is}`;
    return `${title}: ${is ?? was}`;
  }).join(", ");
}

/** @param {unknown} value */
function valueWords(value) {
  if (value === null) return "none";
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (Array.isArray(value)) return value.length ? value.join(" ") : "none";
  return typeof value === "string" ? value : JSON.stringify(value);
}
