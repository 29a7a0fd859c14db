// @ts-check
/** What a run prints, as it comes: one stream at a time, none while nobody looks at the page. */

import { address, ask, told } from "./api.js";

/** @typedef {{run_id: string, offset: number, next_offset: number, first: number, content: string}} Lines */
/** @typedef {{lines: (lines: Lines) => void, reset: (reason: string) => void, ended: () => void, trouble: (text: string) => void}} Listener */

const RETRY_MS = 2000;

export class LogStream {
  /** @param {Listener} listener */
  constructor(listener) {
    this.listener = listener;
    /** @type {EventSource | null} */
    this.source = null;
    this.id = "";
    this.run = "";
    this.offset = 0;
    this.at = ""; // where to go on
    this.retry = 0;
    document.addEventListener("visibilitychange", () => {
      if (!this.id) return;
      if (document.hidden) this.disconnect(); // a browser has six connections for one host
      else this.connect();
    });
  }

  /** @param {string} id @param {string} run @param {number} offset From where on; negative: from the end. */
  open(id, run, offset) {
    this.close();
    this.id = id;
    this.run = run;
    this.offset = offset;
    this.connect();
  }

  close() {
    this.id = "";
    this.at = "";
    this.disconnect();
  }

  disconnect() {
    clearTimeout(this.retry);
    this.source?.close();
    this.source = null;
  }

  connect() {
    this.disconnect();
    const from = this.at ? { after: this.at } : { offset: this.offset };
    const source = new EventSource(address("logs", this.id, { run: this.run, ...from }, "stream"));
    this.source = source;
    const on = (/** @type {string} */ kind, /** @type {(data: any) => void} */ act) =>
      source.addEventListener(kind, (event) => source === this.source && act(JSON.parse(event.data)));
    on("lines", (lines) => this.listener.lines(lines));
    source.addEventListener("lines", (event) => { this.at = event.lastEventId; });
    on("reset", ({ reason }) => this.listener.reset(reason));
    on("trouble", ({ reason }) => this.listener.trouble(reason));
    on("closed", ({ reason }) => { this.close(); this.listener.trouble(reason); });
    on("ended", () => { this.close(); this.listener.ended(); });
    source.addEventListener("error", () => source === this.source && this.lost(source));
  }

  /** The browser connects again by itself, unless it was refused; why, it does not tell. @param {EventSource} source */
  async lost(source) {
    this.listener.trouble("Reconnecting…");
    if (source.readyState !== EventSource.CLOSED) return;
    this.source = null;
    try {
      await ask(address("logs", this.id, { run: this.run, limit: 1 }));
    } catch (error) {
      this.listener.trouble(told(error));
    }
    if (this.id) this.retry = setTimeout(() => this.connect(), RETRY_MS);
  }
}
