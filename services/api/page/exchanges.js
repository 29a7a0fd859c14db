// @ts-check
/** The exchanges whose sessions are known: suggested where one is written. */

import { ask } from "./api.js";
import { $ } from "./dom.js";

/** @typedef {{code: string, names: string[], name: string, timezone: string, covered_from: ?string, covered_until: ?string, source: string}} Exchange */

const RETRY_MS = 10_000;

export class Exchanges {
  constructor() {
    /** @type {Exchange[]} */
    this.all = [];
    this.readAt = 0;
    this.onRead = () => {};
    document.addEventListener("focusin", ({ target }) => {
      if (target instanceof HTMLInputElement && target.getAttribute("list") === "exchanges") this.read();
    });
  }

  /** Unless they are known. */
  async read() {
    if (this.all.length || Date.now() - this.readAt < RETRY_MS) return;
    this.readAt = Date.now();
    /** @type {{exchanges: Exchange[]}} */
    const { exchanges } = await ask("/calendar/exchanges").catch(() => ({ exchanges: [] }));
    this.all = exchanges;
    $("exchanges").replaceChildren(...exchanges.map(({ code, names, name }) => option(code, [...names, name].join(" · "))));
    this.onRead();
  }

  /** @param {string} written Its code, or another name of it. */
  find(written) {
    const code = written.trim().toUpperCase();
    return this.all.find((one) => one.code === code || one.names.includes(code));
  }

  /** The zones that are near at hand. */
  zones() {
    return [...new Set([...this.all.map((one) => one.timezone), "UTC"])];
  }
}

/** @param {string} value @param {string} [label] */
export function option(value, label = "") {
  const made = document.createElement("option");
  made.value = value;
  if (label) made.label = label;
  return made;
}
