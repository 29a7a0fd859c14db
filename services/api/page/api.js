// @ts-check
/** The server: what it says, and how it is asked. */

/** @import {Schedule} from "./schedules.js" */
/** @typedef {{peak_memory_bytes: ?number, cpu_s: ?number, refused: number, out_of_memory: number}} Usage */
/** @typedef {{id: string, epoch: number, version: number, state: string, cause: string, due_at: ?string, granted_at: string, started_at: ?string, exited_at: ?string, exit_code: ?number, signal: ?string, reason: ?string, detail: ?string, headline: ?string, usage: Usage}} Run */
/** @typedef {"owner" | "operator" | "viewer" | "admin"} Access What the user may do with a strategy, and why. */
/** @typedef {{kind: string, python: ?string, packages: ?number}} Environment */
/** @typedef {{id: string, name: string, owner: {id: string, name: string}, access: Access, exchange: ?string, status: string, reason: string, warning: ?string, next_start: ?string, next_stop: ?string, retry_at: ?string, intent: string, stop_grace_s: number, schedule: ?Schedule, version: {filename: string, environment: Environment}, run: ?Run, created_at: string}} Strategy */
/** @typedef {{offset: number, next_offset: number, size: number, first: number, ended: boolean, content: string}} LogView */
/** @typedef {{field: string, message: string, line?: number, column?: number}} FieldError */
/** @typedef {{user: {id: string, name: string, role: string}, scopes: string[]}} Me */

const CSRF = "openbell_csrf=";

/** Whether the page was opened by somebody who is signed in, and who would wonder to be led away. */
export const session = { begun: document.cookie.includes(CSRF) };

/** What the server refused, or could not be asked: its status is then 0. */
export class Problem extends Error {
  /**
   * @param {string} message @param {FieldError[]} errors
   * @param {{status?: number, code?: string, retryAfter?: number}} answer `retryAfter`: seconds.
   */
  constructor(message, errors = [], { status = 0, code = "", retryAfter = 0 } = {}) {
    super(message);
    this.errors = errors;
    this.status = status;
    this.code = code;
    this.retryAfter = retryAfter;
  }
}

/**
 * Never from the browser's cache: `/python/` is this page, too. Whoever is not signed in any more
 * goes to sign in, and nothing that waits for the answer goes on.
 * @param {string} path @param {RequestInit} [options] @returns {Promise<any>}
 */
export async function ask(path, options = {}) {
  const headers = { accept: "application/json", ...proof(options.method), ...options.headers };
  /** @type {Response} */
  let answer;
  try {
    answer = await fetch(path, { ...options, cache: "no-store", headers });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new Problem("Openbell does not answer. Nothing was changed by this page.");
  }
  const body = await answer.json().catch(() => ({}));
  if (answer.ok) return body;
  if (body.code === "not_signed_in" && leaveToSignIn()) return new Promise(() => {});
  const retryAfter = Number(answer.headers.get("retry-after")) || 0;
  const { status } = answer;
  throw new Problem(body.detail || body.title || `The server answered ${status}`, body.errors, { status, code: body.code, retryAfter });
}

/** @param {string} path @param {unknown} [body] */
export function post(path, body) {
  if (body === undefined) return ask(path, { method: "POST" });
  return ask(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
}

/** @param {string} path */
export const remove = (path) => ask(path, { method: "DELETE" });

/** @param {string} [method] What no other site can send: it cannot read our cookies. @returns {Record<string, string>} */
function proof(method = "GET") {
  const cookie = document.cookie.split("; ").find((one) => one.startsWith(CSRF));
  return method === "GET" || !cookie ? {} : { "x-openbell-csrf": cookie.slice(CSRF.length) };
}

/** Whether it leaves: the pages for those who are not signed in stay. */
function leaveToSignIn() {
  const { pathname, search, hash } = location;
  if (pathname === "/login" || pathname === "/join") return false;
  const here = pathname + search + hash;
  const next = `next=${encodeURIComponent(here).replaceAll("%2F", "/")}`;
  const told = [...(session.begun ? ["over=1"] : []), ...(here === "/" ? [] : [next])];
  location.replace(told.length ? `/login#${told.join("&")}` : "/login");
  return true;
}

/** @param {string} action @param {string} id @param {Record<string, string | number | boolean>} [query] @param {string} [part] Of what the action is about. */
export function address(action, id, query = {}, part = "") {
  const pairs = Object.entries(query).map(([key, value]) => [key, String(value)]);
  const path = `/python/${action}/${encodeURIComponent(id)}${part && `/${part}`}`;
  return pairs.length ? `${path}?${new URLSearchParams(pairs)}` : path;
}

/** @param {unknown} error */
export const told = (error) => (error instanceof Error ? error.message : String(error));
