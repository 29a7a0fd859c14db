// @ts-check
/** What there is to say of a strategy, in words. */

/** @import {Run, Strategy} from "./api.js" */
import { brief, duration } from "./time.js";

const AHEAD = new Set(["granted", "preparing", "parked"]); // states before its process starts

/** @param {string} text */
export const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

/** @param {string} name As programs write it. */
export const plain = (name) => name.replaceAll("_", " ");

/** @param {string} text What a strategy has printed: no colours, and each redrawn line on its own. */
export const printed = (text) => text.replace(/\x1b\[[0-9;?]*[ -/]*[@-~]/g, "").replace(/\r\n?/g, "\n");

/** @type {Record<string, string>} What was done, by the name of its route; the others' names tell it. */
const ACTIONS = {
  login: "Sign in",
  logout: "Sign out",
  accept: "Use a link",
  password: "Change the password",
  revoke_session: "End a session",
  revoke_sessions: "Sign out everywhere else",
  new_token: "Make a token",
  revoke_token: "Revoke a token",
  list_strategies: "List everybody’s strategies",
  status: "See a strategy",
  runs: "See the runs",
  metrics: "See what the runs use",
  run: "See a run",
  limits: "See the limits",
  set_limits: "Set the limits",
  logs: "Read the log",
  follow_log: "Follow the log",
  search_log: "Search the log",
  download_log: "Download the log",
  clear_log: "Clear the log",
  shares: "See with whom it is shared",
  unshare: "Share no longer",
  stop_mine: "Stop all",
  stop_everybody: "Stop all of everybody",
  set_schedule: "Set the schedule",
  remove_schedule: "Remove the schedule",
  strategy_variables: "See the variables",
  set_strategy_variables: "Set the variables",
  set_own_variables: "Set the account’s variables",
  set_role: "Change a role",
  disable: "Disable a user",
  enable: "Enable a user",
  reset: "Make a link for a password",
  invite: "Make an invitation",
  withdraw: "Withdraw a link",
  audit: "Read everybody’s audit",
  events: "Watch everybody’s events",
  rotate_key: "Rotate the key",
  set_override: "Say what an exchange does on a day",
  remove_override: "Leave a day to the calendar again",
};

/** @type {Record<string, string>} Why a run ended. */
const ENDS = {
  stopped_by_user: "Stopped by hand",
  stopped_by_schedule: "Stopped by schedule",
  host_shutdown: "Stopped with its host",
  memory_limit: "Memory limit",
  cpu_limit: "CPU limit",
  process_limit: "Limit of processes",
  disk_limit: "Disk limit",
  time_limit: "Time limit",
  killed: "Killed from outside",
  start_failed: "Could not start",
  fenced: "A second copy",
};
const FAILURES = new Set([
  "crashed", "killed", "start_failed", "memory_limit", "cpu_limit", "process_limit", "disk_limit", "stalled",
]);

/** @param {Run} run */
export const endWords = ({ state, reason }) => (reason ? (ENDS[reason] ?? capital(plain(reason))) : capital(state));

/** @param {Run} run */
export const hasFailed = ({ reason }) => reason !== null && FAILURES.has(reason);

/** @param {string} action */
export const actionWords = (action) => ACTIONS[action] ?? capital(plain(action));

/** @param {Strategy} s */
export const isLive = (s) => s.run !== null && s.run.state !== "exited";

/** @param {Strategy} s Start and stop it. */
export const mayOperate = (s) => s.access !== "viewer";

/** @param {Strategy} s Schedule, share and delete it. */
export const mayEdit = (s) => s.access === "owner" || s.access === "admin";

/** Like: Python 3.12, 14 packages of its own. @param {import("./api.js").Environment} environment */
export function environmentWords({ kind, python, packages }) {
  const which = python ? `Python ${python}` : "The runner's Python";
  if (kind === "default") return `${which}, the default packages`;
  return `${which}, ${packages} ${packages === 1 ? "package" : "packages"} of its own`;
}

/** @param {Strategy} s Whose it is, unless it is the user's own. */
export function ownerWords({ access, owner }) {
  if (access === "owner") return "";
  return access === "admin" ? `Owned by ${owner.name}` : `Shared by ${owner.name}`;
}

/**
 * @param {Strategy} s What comes next by itself: its words, and the instant. @param {number} now
 * @returns {[string, number] | null}
 */
export function nextOf(s, now) {
  if (s.status === "stopping") return null;
  const ahead = s.run && preparedFor(s.run, now);
  if (ahead) return ["Starts", ahead];
  if (isLive(s)) return s.next_stop ? ["Stops", Date.parse(s.next_stop)] : null;
  if (s.retry_at) return ["Starts again", Date.parse(s.retry_at)];
  if (s.intent === "stop" || !s.next_start) return null;
  return ["Starts", Date.parse(s.next_start)];
}

/** @param {Strategy} s */
export function lastChange(s) {
  const moments = [s.created_at, s.run?.granted_at, s.run?.started_at, s.run?.exited_at];
  return Math.max(...moments.map((at) => (at ? Date.parse(at) : 0)));
}

/** @param {Run} run The instant at which it starts, if it is made ready ahead of it. @param {number} now */
function preparedFor({ state, due_at: due }, now) {
  return AHEAD.has(state) && due && Date.parse(due) > now ? Date.parse(due) : null;
}

/** @param {Run} run @param {number} now */
export function runWords(run, now) {
  const ahead = preparedFor(run, now);
  if (ahead) return `${run.state === "parked" ? "Prepared" : "Preparing"} · starts in ${duration(ahead - now)}`;
  const started = run.started_at ? Date.parse(run.started_at) : null;
  if (run.state !== "exited") {
    return started ? `Up ${duration(now - started)}` : `Preparing for ${duration(now - Date.parse(run.granted_at))}`;
  }
  const end = run.signal ?? (run.exit_code === null ? "Ended" : `Exit code ${run.exit_code}`);
  return started && run.exited_at ? `${end} after ${brief(Date.parse(run.exited_at) - started)}` : end;
}

/** @param {Run} run What was said of its end; while it is up, how punctual it was. */
export function runDetail(run) {
  if (run.state === "exited") return (run.reason === "crashed" && run.headline) || run.detail || run.headline || "";
  if (!run.due_at || !run.started_at) return "";
  return `${brief(Date.parse(run.started_at) - Date.parse(run.due_at))} after it was due`;
}
