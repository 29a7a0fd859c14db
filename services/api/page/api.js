// @ts-check
/** The server: what it says, and how it is asked. */

/** @typedef {{id: string, epoch: number, state: string, due_at: ?string, granted_at: string, started_at: ?string, exited_at: ?string, exit_code: ?number, signal: ?string, detail: ?string}} Run */
/** @typedef {{kind: "always"} | {kind: "market", exchange: string, start: string, stop: ?string, weekdays: string[]}} Schedule */
/** @typedef {{id: string, name: string, exchange: ?string, status: string, reason: string, next_start: ?string, next_stop: ?string, retry_at: ?string, intent: string, stop_grace_s: number, schedule: ?Schedule, version: {filename: string}, run: ?Run, created_at: string}} Strategy */
/** @typedef {{offset: number, next_offset: number, size: number, ended: boolean, content: string}} LogView */
/** @typedef {{field: string, message: string, line?: number, column?: number}} FieldError */

/** What the server refused, or could not be asked: its status is then 0. */
export class Problem extends Error {
  /** @param {string} message @param {FieldError[]} errors @param {number} status */
  constructor(message, errors = [], status = 0) {
    super(message);
    this.errors = errors;
    this.status = status;
  }
}

/**
 * Never from the browser's cache: `/python/` is this page, too.
 * @param {string} path @param {RequestInit} [options] @returns {Promise<any>}
 */
export async function ask(path, options = {}) {
  const headers = { accept: "application/json", ...options.headers };
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
  throw new Problem(body.detail || body.title || `The server answered ${answer.status}`, body.errors, answer.status);
}

/** @param {string} action @param {string} id @param {Record<string, string | number | boolean>} [query] */
export function address(action, id, query = {}) {
  const pairs = Object.entries(query).map(([key, value]) => [key, String(value)]);
  const path = `/python/${action}/${encodeURIComponent(id)}`;
  return pairs.length ? `${path}?${new URLSearchParams(pairs)}` : path;
}

/** @param {unknown} error */
export const told = (error) => (error instanceof Error ? error.message : String(error));
