// @ts-check
/** The log of a strategy's latest run, from its tail on. */

/** @import {LogView, Strategy} from "./api.js" */
import { address, ask, told } from "./api.js";
import { $, element, write } from "./dom.js";
import { complain } from "./messages.js";
import { pause } from "./time.js";
import { capital, isLive, runWords } from "./words.js";

const TAIL = 65_536; // bytes
const MOST = 1_000_000; // characters kept in the document; the download has them all
const PIECE = 524_288; // bytes that one answer may hold
const WAIT_S = 10; // for something new
const PAUSE_MS = 100;
const RETRY_MS = 2000;

/** @param {string} text No colours, and each redrawn line on its own. */
const plain = (text) => text.replace(/\x1b\[[0-9;?]*[ -/]*[@-~]/g, "").replace(/\r\n?/g, "\n");

/** @param {LogView} view */
const isComplete = (view) => view.ended && view.next_offset >= view.size;

export class LogPanel {
  constructor() {
    this.text = $("log-text");
    /** @type {Strategy | null} */
    this.strategy = null;
    this.runId = "";
    this.offset = -TAIL;
    this.length = 0;
    this.following = true;
    this.reading = new AbortController();
    /** @type {HTMLElement | null} */
    this.opener = null;
    this.text.addEventListener("scroll", () => this.scrolled(), { passive: true });
    $("log-close").addEventListener("click", () => this.close());
    $("log-jump").addEventListener("click", () => this.follow());
    /** @type {HTMLInputElement} */
    const wrap = $("log-wrap");
    wrap.addEventListener("change", () => this.text.classList.toggle("nowrap", !wrap.checked));
    $("log-download").addEventListener("click", () => {
      this.download().catch((error) => complain("The log could not be downloaded", error));
    });
    document.addEventListener("keydown", (event) => {
      const elsewhere = /** @type {Element} */ (event.target).closest("dialog, input[type=search]");
      if (event.key === "Escape" && !elsewhere && this.strategy) this.close();
    });
    new ResizeObserver(() => this.following && this.toEnd()).observe(this.text);
  }

  /** @param {Strategy} strategy @param {HTMLElement} opener Gets the focus back. */
  open(strategy, opener) {
    this.opener = opener;
    $("log").hidden = false;
    document.body.classList.add("with-log");
    write($("log-title"), strategy.name);
    this.read(strategy);
    this.text.focus({ preventScroll: true });
  }

  close() {
    const focused = $("log").contains(document.activeElement);
    this.reading.abort();
    this.strategy = null;
    $("log").hidden = true;
    document.body.classList.remove("with-log");
    if (focused && this.opener?.isConnected) this.opener.focus({ preventScroll: true });
  }

  /** @param {Strategy | null} strategy @param {string} id What became of a strategy; it may be ours. */
  changed(strategy, id) {
    if (this.strategy?.id !== id) return;
    if (!strategy) {
      this.close();
      return;
    }
    const ended = isLive(this.strategy) && !isLive(strategy);
    this.strategy = strategy;
    this.showHead();
    if (strategy.run?.id !== this.runId) this.read(strategy);
    else if (ended) this.poll(strategy.id); // not after the wait that is under way
  }

  /** @param {Strategy} strategy */
  read(strategy) {
    this.strategy = strategy;
    this.runId = strategy.run?.id ?? "";
    this.offset = -TAIL;
    this.length = 0;
    this.text.replaceChildren();
    this.showHead();
    this.follow();
    this.poll(strategy.id);
  }

  /** @param {string} id Ask for what follows until the run has ended or something else is read. */
  async poll(id) {
    this.reading.abort();
    this.reading = new AbortController();
    const { signal } = this.reading;
    for (let wait = 0; !signal.aborted; wait = WAIT_S) {
      try {
        /** @type {LogView} */
        const view = await ask(address("logs", id, { run: this.runId, offset: this.offset, wait }), { signal });
        if (signal.aborted) return;
        this.take(view);
        if (isComplete(view)) return;
        await pause(PAUSE_MS, signal);
      } catch (error) {
        if (signal.aborted) return;
        write($("log-state"), told(error));
        await pause(RETRY_MS, signal);
      }
    }
  }

  /** @param {LogView} view */
  take(view) {
    let content = plain(view.content);
    if (this.offset < 0 && view.offset > 0) {
      content = `… the download has what came before\n${content.slice(content.indexOf("\n") + 1)}`;
    }
    this.offset = view.next_offset;
    if (content) {
      this.text.append(content);
      this.length += content.length;
    } else if (isComplete(view) && !this.length) {
      this.text.replaceChildren(element("span", "quiet", "It printed nothing."));
    }
    if (this.following) {
      this.trim();
      this.toEnd();
    }
    this.showState();
  }

  trim() {
    while (this.length > MOST && this.text.firstChild !== this.text.lastChild) {
      this.length -= this.text.firstChild?.textContent?.length ?? 0;
      this.text.firstChild?.remove();
    }
  }

  scrolled() {
    this.following = this.text.scrollHeight - this.text.scrollTop - this.text.clientHeight < 24;
    this.showState();
  }

  follow() {
    this.following = true;
    this.toEnd();
    this.showState();
  }

  toEnd() {
    this.text.scrollTop = this.text.scrollHeight;
  }

  showHead() {
    const s = /** @type {Strategy} */ (this.strategy);
    write($("log-badge"), capital(s.status));
    $("log-badge").dataset.status = s.status;
    write($("log-run"), s.run ? `Run ${s.run.epoch}` : "");
    this.showState();
  }

  showState() {
    const s = this.strategy;
    if (!s?.run) return;
    $("log-jump").hidden = this.following;
    const reading = this.following ? "Following" : "Paused while you read";
    write($("log-state"), isLive(s) ? reading : runWords(s.run, Date.now()));
  }

  /** The whole run, piece by piece. */
  async download() {
    const { strategy, runId } = this;
    if (!strategy) return;
    const pieces = [];
    for (let offset = 0, more = true; more; ) {
      /** @type {LogView} */
      const view = await ask(address("logs", strategy.id, { run: runId, offset, limit: PIECE }));
      pieces.push(view.content);
      more = view.next_offset > offset && view.next_offset < view.size;
      offset = view.next_offset;
    }
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob(pieces, { type: "text/plain" }));
    link.download = `${runId}.log`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  }
}
