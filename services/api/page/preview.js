// @ts-check
/** What a schedule will do, while it is written: the latest answer wins, and errors stay calm. */

/** @import {Preview as Told} from "./schedules.js" */
import { Problem, told } from "./api.js";
import { named, write } from "./dom.js";
import { dayLines } from "./preview_days.js";
import { capital } from "./words.js";

/** @typedef {((signal: AbortSignal) => Promise<Told>) | string} Question Or what there is to say, unasked. */

const PAUSE_MS = 250; // after the last key
const STOPPED = "Stopped by hand: none of this happens until you resume it.";

export class Preview {
  /** @param {HTMLElement} el */
  constructor(el) {
    this.el = el;
    this.parts = named(el, "is");
    this.timer = 0;
    this.stopped = false; // by hand
    this.asking = new AbortController();
  }

  /** @param {boolean} stopped */
  clear(stopped) {
    this.stopped = stopped;
    this.say("");
    this.timer = 0;
  }

  end() {
    clearTimeout(this.timer);
    this.asking.abort();
  }

  /** @param {() => Question} prepare */
  look(prepare) {
    this.end();
    this.timer = setTimeout(() => this.ask(prepare), this.el.classList.contains("told") ? PAUSE_MS : 0);
  }

  /** @param {() => Question} prepare */
  async ask(prepare) {
    const asking = (this.asking = new AbortController());
    this.el.setAttribute("aria-busy", "true");
    try {
      const question = prepare();
      if (typeof question === "string") this.say(question, this.stopped ? STOPPED : "");
      else {
        const answer = await question(asking.signal);
        if (!asking.signal.aborted) this.show(answer);
      }
    } catch (error) {
      if (!asking.signal.aborted) this.say(trouble(error));
    } finally {
      if (asking === this.asking) this.el.setAttribute("aria-busy", "false");
    }
  }

  /** @param {Told} answer */
  show({ timezone, days, truncated, warning }) {
    const starts = truncated || days.some((day) => day.windows.length);
    const news = [starts ? "" : "nothing starts in the next 30 days", warning ?? ""].filter(Boolean).map(capital).join(". ");
    this.set(timezone, this.stopped ? `${STOPPED} ${news}`.trim() : news, dayLines(days, timezone, truncated), "");
  }

  /** @param {string} text Instead of days. @param {string} [warning] */
  say(text, warning = "") {
    this.set("", warning, [], text);
  }

  /** @param {string} zone @param {string} warning @param {HTMLElement[]} lines @param {string} none */
  set(zone, warning, lines, none) {
    const { parts } = this;
    write(parts.zone, zone);
    write(parts.warning, warning);
    parts.warning.hidden = !warning;
    parts.days.replaceChildren(...lines);
    parts.days.hidden = !lines.length;
    write(parts.none, none);
    this.el.classList.toggle("told", Boolean(lines.length || none || warning));
  }
}

/** @param {unknown} error */
function trouble(error) {
  const [first] = error instanceof Problem ? error.errors : [];
  return first ? `${capital(first.message)}.` : `It cannot be foretold now: ${told(error)}`;
}
