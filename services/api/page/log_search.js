// @ts-check
/** Searches a run's log: the newest lines first, each leads to its place. */

/** @import {LogPanel} from "./log.js" */
import { Problem, address, ask, told } from "./api.js";
import { $, button, element, write } from "./dom.js";
import { capital, printed } from "./words.js";

const LIMIT = 100;

/** @typedef {{offset: number, line: string}} Hit */
/** @typedef {{hits: Hit[], before: ?number, cut_short: boolean, passed_over: number}} Found */

export class LogSearch {
  /** @param {LogPanel} panel */
  constructor(panel) {
    this.panel = panel;
    this.searching = new AbortController();
    this.found = 0;
    $("log-find").addEventListener("click", () => (this.isOpen ? this.close() : this.open()));
    $("log-search").addEventListener("submit", (event) => {
      event.preventDefault();
      this.begin();
    });
    for (const id of ["log-regex", "log-case"]) $(id).addEventListener("change", () => this.begin());
    $("log-search").addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      event.stopPropagation();
      this.close();
      $("log-find").focus();
    });
  }

  get isOpen() {
    return !$("log-search").hidden;
  }

  open() {
    $("log-search").hidden = false;
    $("log-find").setAttribute("aria-expanded", "true");
    $("log-query").focus();
  }

  close() {
    this.searching.abort();
    $("log-search").hidden = true;
    $("log-find").setAttribute("aria-expanded", "false");
    this.forget();
  }

  forget() {
    $("log-found").replaceChildren();
    $("log-found").hidden = true;
    write($("log-count"), "");
  }

  begin() {
    this.forget();
    this.found = 0;
    /** @type {HTMLInputElement} */
    const query = $("log-query");
    if (query.value && this.panel.strategy) this.search(null);
  }

  /** @param {?number} before */
  async search(before) {
    this.searching.abort();
    this.searching = new AbortController();
    const { signal } = this.searching;
    const [text, regex, exact] = ["log-query", "log-regex", "log-case"].map((id) => /** @type {HTMLInputElement} */ ($(id)));
    const query = { run: this.panel.runId, text: text.value, regex: regex.checked, ignore_case: !exact.checked, limit: LIMIT };
    write($("log-count"), "Searching…");
    try {
      const more = before === null ? {} : { before };
      this.show(await ask(address("logs", this.panel.strategy?.id ?? "", { ...query, ...more }, "search"), { signal }));
    } catch (error) {
      if (!signal.aborted) write($("log-count"), why(error));
    }
  }

  /** @param {Found} found */
  show({ hits, before, cut_short: cut, passed_over: passed }) {
    const list = $("log-found");
    list.querySelector(".more-found")?.remove();
    this.found += hits.length;
    for (const hit of hits) {
      const item = element("li", "");
      item.append(button("found-line", printed(hit.line) || " ", () => this.panel.showAt(hit.offset)));
      list.append(item);
    }
    if (before !== null) {
      const item = element("li", "more-found");
      item.append(button("button small", "Search further back", () => this.search(before)));
      list.append(item);
    }
    list.hidden = !list.childElementCount;
    const lines = this.found === 1 ? "1 line" : `${this.found} lines`;
    const told = [lines, before !== null ? (cut ? "the time was over" : "there may be more") : "", passed ? `${passed} took too long` : ""];
    write($("log-count"), told.filter(Boolean).join(", "));
  }
}

/** @param {unknown} error One field can be wrong, and it is the one above. */
function why(error) {
  const [wrong] = error instanceof Problem ? error.errors : [];
  return capital(wrong ? wrong.message : told(error));
}
