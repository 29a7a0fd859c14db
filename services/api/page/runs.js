// @ts-check
/** The latest runs of a strategy, and what is left of each. */

/** @import {Run, Strategy} from "./api.js" */
import { address, ask, told } from "./api.js";
import { Dialog } from "./dialog.js";
import { $, element, find, hint, named, write } from "./dom.js";
import { brief, exact, stamp } from "./time.js";
import { capital, endWords, hasFailed, plain, printed, runDetail } from "./words.js";

/** @typedef {Run & {last_lines: ?string[]}} Record What is left of a run. */

const PAGE = 25;
const MB = 2 ** 20;

export class RunsDialog extends Dialog {
  constructor() {
    super("runs");
    this.parts = named(this.el, "is");
    this.id = "";
    this.ticket = 0;
    /** @type {Run[]} */
    this.runs = [];
    /** @type {HTMLElement | null} */
    this.opened = null;
    find(this.el, "[data-back]").addEventListener("click", () => this.back());
  }

  /** @param {Strategy} strategy */
  begin({ id, name }) {
    this.id = id;
    this.runs = [];
    this.parts.lines.replaceChildren();
    write($("runs-title"), `Runs of ${name}`);
    this.say("Reading…");
    this.choose(false);
    this.show();
    this.submit(); // the first page
  }

  /** The next page. */
  async send() {
    const { id } = this;
    const last = this.runs[this.runs.length - 1];
    const query = { limit: PAGE, ...(last ? { before: last.epoch } : {}) };
    /** @type {Run[]} */
    const page = await ask(address("runs", id, query));
    if (id !== this.id) return true;
    this.runs.push(...page);
    this.parts.lines.append(...page.map((run) => this.line(run)));
    this.say(this.runs.length ? "" : "It has not run yet.");
    this.go.hidden = page.length < PAGE;
    return true;
  }

  /** @param {unknown} error */
  fail(error) {
    this.say("");
    super.fail(error);
  }

  /** @param {string} text Instead of the runs. */
  say(text) {
    write(this.parts.none, text);
    this.parts.none.hidden = !text;
    this.parts.head.hidden = Boolean(text);
    this.go.hidden = true;
  }

  /** @param {Run} run */
  line(run) {
    const made = element("button", "run-line");
    made.setAttribute("type", "button");
    const began = Date.parse(run.started_at ?? run.granted_at);
    const cells = {
      number: element("b", "", `Run ${run.epoch}`),
      began: element("span", "", stamp(began)),
      end: badge(run),
      lasted: element("span", "", lasted(run)),
      memory: element("span", "", memory(run)),
      cpu: element("span", "", cpu(run)),
      why: element("span", "mono", runDetail(run)),
    };
    for (const [name, cell] of Object.entries(cells)) cell.dataset.cell = name;
    hint(cells.began, exact(began));
    hint(cells.why, runDetail(run));
    made.append(...Object.values(cells));
    made.addEventListener("click", () => this.open(run, made));
    const item = element("li", "");
    item.append(made);
    return item;
  }

  /** @param {Run} run @param {HTMLElement} opener Gets the focus back. */
  async open(run, opener) {
    const ticket = ++this.ticket;
    this.opened = opener;
    const { parts } = this;
    write(parts.number, `Run ${run.epoch}`);
    parts.badge.replaceChildren(badge(run));
    parts.facts.replaceChildren(...facts(run));
    write(parts.headline, run.headline ?? run.detail ?? "");
    parts.headline.hidden = !parts.headline.textContent;
    this.showTail("Reading…", []);
    this.choose(true);
    find(this.el, "[data-back]").focus();
    try {
      const found = /** @type {Record} */ (await ask(`${address("runs", this.id)}/${encodeURIComponent(run.id)}`));
      const lines = found.last_lines ?? [];
      const none = run.state === "exited" ? "It left no lines." : "Its log tells what it prints.";
      if (ticket === this.ticket) this.showTail(none, lines);
    } catch (error) {
      if (ticket === this.ticket) this.showTail(told(error), []);
    }
  }

  /** @param {string} none @param {string[]} lines */
  showTail(none, lines) {
    write(this.parts.tail, printed(lines.join("\n")));
    this.parts.tail.hidden = !lines.length;
    this.parts.tail.scrollTop = this.parts.tail.scrollHeight; // the end tells most
    write(this.parts.notail, lines.length ? "The last lines of its log" : capital(none));
  }

  back() {
    this.ticket++;
    this.choose(false);
    this.opened?.focus();
  }

  /** @param {boolean} one One run is shown, instead of all. */
  choose(one) {
    this.parts.list.hidden = one;
    this.parts.record.hidden = !one;
    this.el.classList.toggle("one", one);
  }
}

/** @param {Run} run */
function badge(run) {
  const made = element("span", "badge", endWords(run));
  const live = run.state === "exited" ? "stopped" : "running";
  made.dataset.status = hasFailed(run) ? "crashed" : live;
  return made;
}

/** @param {Run} run */
function lasted({ started_at: started, exited_at: ended }) {
  if (!started) return "–";
  return brief((ended ? Date.parse(ended) : Date.now()) - Date.parse(started));
}

/** @param {Run} run */
function memory({ usage: { peak_memory_bytes: bytes } }) {
  if (bytes === null) return "–";
  return bytes < 1000 * MB ? `${Math.ceil(bytes / MB)} MB` : `${(bytes / MB / 1024).toFixed(1)} GB`;
}

/** @param {Run} run */
function cpu({ usage: { cpu_s: seconds } }) {
  return seconds === null ? "–" : brief(Math.round(seconds * 1000));
}

/** @param {Run} run Names and values, as far as there are any. */
function facts(run) {
  const { usage } = run;
  /** @type {[string, string | null][]} */
  const all = [
    ["Version", String(run.version)],
    ["Cause", capital(plain(run.cause))],
    ["Due", run.due_at && stamp(Date.parse(run.due_at))],
    ["Granted", stamp(Date.parse(run.granted_at))],
    ["Started", run.started_at && stamp(Date.parse(run.started_at))],
    ["Ended", run.exited_at && stamp(Date.parse(run.exited_at))],
    ["Lasted", lasted(run)],
    ["Exit code", run.exit_code === null ? null : String(run.exit_code)],
    ["Signal", run.signal],
    ["Peak memory", memory(run)],
    ["Processor time", cpu(run)],
    ["Processes refused", usage.refused ? String(usage.refused) : null],
    ["Ended for memory", usage.out_of_memory ? String(usage.out_of_memory) : null],
    ["Detail", run.headline ? run.detail : null],
  ];
  return all.filter(([, value]) => value).flatMap(([name, value]) => {
    const item = element("div", "");
    item.append(element("dt", "", name), element("dd", "", value ?? ""));
    return [item];
  });
}
