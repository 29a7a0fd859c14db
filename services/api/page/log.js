// @ts-check
/** The log of a strategy's latest run, from its tail on. */

/** @import {LogView, Strategy} from "./api.js" */
/** @import {Lines} from "./log_stream.js" */
import { address, ask, remove } from "./api.js";
import { confirmation } from "./asking.js";
import { $, element, write } from "./dom.js";
import { LogSearch } from "./log_search.js";
import { LogStream } from "./log_stream.js";
import { complain, toast } from "./messages.js";
import { capital, isLive, mayEdit, printed, runWords } from "./words.js";

const TAIL = 65_536; // bytes
const MOST = 1_000_000; // characters kept in the document; the download has them all
const MOST_PAUSED = 2_000_000; // while its reader has scrolled back, and nothing is taken from the top
const BEFORE = 16_384; // bytes that are shown before a line that was found

export class LogPanel {
  constructor() {
    this.text = $("log-text");
    /** @type {Strategy | null} */
    this.strategy = null;
    this.runId = "";
    /** @type {?number} Up to where it is shown. */
    this.offset = null;
    this.length = 0;
    this.following = true;
    this.height = 0;
    this.away = false; // at a line that was found, far from what is written now
    this.trouble = "";
    /** @type {HTMLElement | null} */
    this.opener = null;
    this.text.addEventListener("scroll", () => this.scrolled(), { passive: true });
    $("log-close").addEventListener("click", () => this.close());
    $("log-jump").addEventListener("click", () => this.toNewest());
    /** @type {HTMLInputElement} */
    const wrap = $("log-wrap");
    wrap.addEventListener("change", () => this.text.classList.toggle("nowrap", !wrap.checked));
    $("log-clear").addEventListener("click", () => this.clear());
    this.stream = new LogStream({
      lines: (lines) => this.take(lines),
      reset: (reason) => this.note(`… ${reason}`),
      ended: () => this.ended(),
      trouble: (text) => this.say(text),
    });
    this.search = new LogSearch(this);
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
    this.stream.close();
    this.search.close();
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
    this.strategy = strategy;
    this.showHead();
    if (strategy.run?.id !== this.runId) this.read(strategy);
  }

  /** @param {Strategy} strategy */
  read(strategy) {
    if (this.strategy?.id !== strategy.id || this.runId !== strategy.run?.id) this.search.forget();
    this.strategy = strategy;
    this.runId = strategy.run?.id ?? "";
    this.empty();
    this.showHead();
    this.follow();
    if (this.runId) this.stream.open(strategy.id, this.runId, -TAIL);
  }

  empty() {
    this.offset = null;
    this.length = 0;
    this.away = false;
    this.trouble = "";
    this.text.replaceChildren();
  }

  /** @param {Lines} lines */
  take(lines) {
    this.trouble = "";
    let content = printed(lines.content);
    if (lines.offset > (this.offset ?? 0)) {
      const why = lines.offset === lines.first ? "what came before was dropped" : "the download has what came before";
      content = `… ${why}\n${lines.offset === lines.first ? content : content.slice(content.indexOf("\n") + 1)}`;
    }
    this.offset = lines.next_offset;
    this.append(content);
  }

  /** @param {string} text */
  append(text) {
    this.text.append(text);
    this.length += text.length;
    if (this.following) {
      this.trim();
      this.toEnd();
    } else if (this.length > MOST_PAUSED) {
      this.stream.close();
      this.away = true; // whoever goes to the newest line reads anew
    }
    this.showState();
  }

  /** @param {string} text What was shown is of another generation. */
  note(text) {
    this.offset = null;
    this.append(`${text}\n`);
  }

  ended() {
    if (!this.length) this.text.replaceChildren(element("span", "quiet", "It printed nothing."));
    this.showState();
  }

  /** @param {string} text */
  say(text) {
    this.trouble = text;
    this.showState();
  }

  /** @param {number} offset A line that was found, and what is around it. */
  async showAt(offset) {
    const { strategy, runId } = this;
    if (!strategy) return;
    const begin = Math.max(0, offset - BEFORE);
    try {
      /** @type {LogView} */
      const view = await ask(address("logs", strategy.id, { run: runId, offset: begin, limit: TAIL }));
      if (this.strategy?.id !== strategy.id || this.runId !== runId) return;
      this.stream.close();
      this.showAround(view, offset);
    } catch (error) {
      complain("The line could not be shown", error);
    }
  }

  /** @param {LogView} view @param {number} offset Of the line that is marked. */
  showAround(view, offset) {
    const bytes = new TextEncoder().encode(view.content);
    const cut = Math.max(0, offset - view.offset);
    const text = (/** @type {number} */ from, /** @type {number} [to] */ to) => printed(new TextDecoder().decode(bytes.slice(from, to)));
    const rest = text(cut);
    const end = rest.indexOf("\n") < 0 ? rest.length : rest.indexOf("\n");
    const before = text(0, cut);
    this.empty();
    this.away = true;
    this.following = false;
    const mark = element("mark", "", rest.slice(0, end));
    this.text.append(view.offset > view.first ? before.slice(before.indexOf("\n") + 1) : before, mark, rest.slice(end));
    mark.scrollIntoView({ block: "center" });
    this.showState();
  }

  toNewest() {
    if (this.away && this.strategy) this.read(this.strategy);
    else this.follow();
  }

  trim() {
    while (this.length > MOST && this.text.firstChild !== this.text.lastChild) {
      this.length -= this.text.firstChild?.textContent?.length ?? 0;
      this.text.firstChild?.remove();
    }
  }

  scrolled() {
    if (this.following && this.text.clientHeight !== this.height) return; // it was resized, not read
    this.following = !this.away && this.text.scrollHeight - this.text.scrollTop - this.text.clientHeight < 24;
    this.showState();
  }

  follow() {
    this.following = true;
    this.toEnd();
    this.showState();
  }

  toEnd() {
    this.height = this.text.clientHeight;
    this.text.scrollTop = this.text.scrollHeight;
  }

  showHead() {
    const s = /** @type {Strategy} */ (this.strategy);
    write($("log-badge"), capital(s.status));
    $("log-badge").dataset.status = s.status;
    write($("log-run"), s.run ? `Run ${s.run.epoch}` : "");
    $("log-clear").hidden = !mayEdit(s);
    /** @type {HTMLAnchorElement} */
    const download = $("log-download");
    download.href = address("logs", s.id, { run: this.runId }, "download");
    this.showState();
  }

  showState() {
    const s = this.strategy;
    if (!s?.run) return;
    $("log-jump").hidden = this.following;
    const reading = this.following ? "Following" : "Paused while you read";
    write($("log-state"), this.trouble || (isLive(s) ? reading : runWords(s.run, Date.now())));
  }

  clear() {
    const { strategy, runId } = this;
    if (!strategy || !runId) return;
    const more = isLive(strategy) ? " It goes on: what it prints from then on is kept." : "";
    confirmation.ask("Clear this log?", `All that ${strategy.name} has printed in this run is gone for good.${more}`, "Clear it", async () => {
      await remove(address("logs", strategy.id, { run: runId }));
      if (this.strategy?.id !== strategy.id || this.runId !== runId) return;
      toast("The log is cleared.");
      this.search.close();
      this.read(this.strategy);
    });
  }
}
