// @ts-check
/** The page of the runners: how many more fit, what each enforces, and for admins how busy its machine is. */

import { ask } from "./api.js";
import { $, element, hint } from "./dom.js";
import { Entries } from "./entries.js";
import { signOut } from "./session.js";
import { ago, exact } from "./time.js";
import { capital } from "./words.js";

/** @typedef {{cpu_percent: number, processors: number, memory_bytes: number, memory_total_bytes: number, disk_free_bytes: number, disk_total_bytes: number, load: number}} Host */
/** @typedef {{total_bytes: number, free_bytes: number, promised_bytes: number, each_bytes: number, most_runs: ?number}} Memory */
/** @typedef {{id: string, alive: boolean, heard_at: string, platform: string, python: string, capabilities: Record<string, string>, pythons: string[], runs: number, fits: ?number, warning: ?string, memory: ?Memory, host: ?Host}} Runner */

const AGAIN_MS = 5000; // how often runners tell of themselves
const MB = 1024 ** 2;
const GB = 1024 ** 3;
/** @type {Record<string, string>} */
const LIMITS = { memory_limit: "memory", pids_limit: "process", cpu_limit: "processor", disk_limit: "disk", files_limit: "open files" };
/** @type {Record<string, string>} */
const TONES = { enforced: "running", watched: "scheduled", none: "waiting" };
/** @type {Record<string, string>} */
const EXTENTS = { enforced: "enforced", watched: "watched", none: "not limited" };
/** @type {Record<string, [string, string]>} With, and without. */
const APART = {
  own_user: ["The strategies of each owner run as a user of their own", "Strategies run as the user that runs Openbell"],
  namespaces: ["each sees its own files and processes alone", "they can see what that user can"],
};

/** @type {Entries<Runner>} */
const entries = new Entries($("runners"), line);
entries.usual = "No runner is connected: nothing can start.";

$("sign-out").addEventListener("click", signOut);
read();
setInterval(() => document.hidden || read(), AGAIN_MS);
document.addEventListener("visibilitychange", () => document.hidden || read());

async function read() {
  await entries.load(async () => (await ask("/runners")).runners);
}

/** @param {Runner} runner */
function line(runner) {
  const { id, alive, heard_at: heardAt, platform, pythons, capabilities, runs, fits, warning, memory, host } = runner;
  const made = element("li", "entry runner");
  const head = element("span", "entry-head");
  const badge = element("span", "badge", alive ? "Alive" : "Gone");
  badge.dataset.status = alive ? "running" : "crashed";
  head.append(element("b", "entry-name", id), badge);
  const heard = Date.parse(heardAt);
  const last = alive ? `${runs} ${runs === 1 ? "run" : "runs"}${host ? "" : " of yours"}` : `last heard of ${ago(Date.now() - heard)}`;
  const about = element("span", "sub", `${platform}, Python ${pythons.join(", ") || "being found"} · ${last}`);
  hint(about, exact(heard));
  made.append(head, about);
  if (fits !== null) made.append(room(fits, memory));
  if (warning) made.append(element("p", "sub why", `${capital(warning)}.`));
  if (host) made.append(machine(host));
  made.append(limits(capabilities), element("p", "sub", apart(capabilities)));
  if (capabilities.why_not) made.append(element("p", "sub why", capabilities.why_not));
  return made;
}

/** @param {number} fits @param {?Memory} memory */
function room(fits, memory) {
  const made = element("p", "room");
  made.append(element("b", fits ? "" : "why", fits ? `${fits} more ${fits === 1 ? "fits" : "fit"}` : "No more fit: starts wait until there is room"));
  if (memory) made.append(element("span", "sub", ` ${share(memory)}`));
  return made;
}

/** @param {Memory} memory */
function share({ free_bytes: free, promised_bytes: promised, total_bytes: total, each_bytes: each, most_runs: most }) {
  const left = `${(Math.max(0, free) / GB).toFixed(1)} of ${(total / GB).toFixed(1)} GB free for runs`;
  const kept = promised >= 0.05 * GB ? `, ${(promised / GB).toFixed(1)} GB promised to those that are there` : "";
  return `${left}${kept}; one is reckoned at ${Math.round(each / MB)} MB${most === null ? "" : `; by its settings, ${most} at one time`}`;
}

/** @param {Host} host */
function machine(host) {
  const list = element("dl", "meters");
  const { cpu_percent: cpu, processors, memory_bytes: memory, memory_total_bytes: all, disk_free_bytes: free, disk_total_bytes: disk, load } = host;
  list.append(
    meter("Processors", cpu / 100, `${Math.round(cpu)}% of ${processors}, load ${load.toFixed(1)}`),
    meter("Memory", memory / all, `${(memory / GB).toFixed(1)} of ${(all / GB).toFixed(1)} GB`),
    meter("Disk", 1 - free / disk, `${(free / GB).toFixed(1)} of ${(disk / GB).toFixed(1)} GB free`),
  );
  return list;
}

/** @param {string} name @param {number} used Of 1. @param {string} words */
function meter(name, used, words) {
  const made = element("div", "");
  const bar = document.createElement("progress");
  bar.max = 1;
  bar.value = Math.min(1, Math.max(0, used));
  bar.classList.toggle("full", used > 0.9);
  bar.setAttribute("aria-label", name);
  const value = element("dd", "");
  value.append(element("span", "", words), bar);
  made.append(element("dt", "", name), value);
  return made;
}

/** @param {Record<string, string>} told */
function limits(told) {
  const list = element("dl", "limits-of");
  for (const [key, name] of Object.entries(LIMITS)) {
    if (!(told[key] in EXTENTS)) continue;
    const value = element("dd", "");
    const badge = element("span", "badge", EXTENTS[told[key]]);
    badge.dataset.status = TONES[told[key]];
    value.append(badge);
    const made = element("div", "");
    made.append(element("dt", "", `${capital(name)} limit`), value);
    list.append(made);
  }
  return list;
}

/** @param {Record<string, string>} told How strategies are kept apart. */
function apart(told) {
  const words = Object.entries(APART).map(([key, [yes, no]]) => (told[key] === "yes" ? yes : no));
  return `${words.join("; ")}.`;
}
