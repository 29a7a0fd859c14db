// @ts-check
/** Stopping all at once, and what came of it. */

/** @import {Me, Strategy} from "./api.js" */
/** @import {List} from "./list.js" */
/** @import {Reader} from "./reader.js" */
import { Problem, post } from "./api.js";
import { Dialog } from "./dialog.js";
import { $, element, find, write } from "./dom.js";
import { toast } from "./messages.js";
import { capital, isLive } from "./words.js";

/** @typedef {{id: string, name: string, owner?: string, status: string, gone: boolean, note?: ?string}} Stopped */

export class StopAllDialog extends Dialog {
  /** @param {List} list @param {Reader} reader */
  constructor(list, reader) {
    super("stop-all");
    this.list = list;
    this.reader = reader;
    /** @type {HTMLInputElement} */
    this.everybody = $("stop-all-everybody");
    this.everybody.addEventListener("change", () => this.explain());
  }

  /** @param {Me} me */
  begin(me) {
    this.everybody.checked = false;
    $("stop-all-admin").hidden = me.user.role !== "admin" || !me.scopes.includes("admin");
    $("stop-all-results").replaceChildren();
    this.go.hidden = false;
    write(this.go, "Stop all");
    write(find(this.dialog, "[data-close]"), "Cancel");
    this.explain();
    this.show();
  }

  explain() {
    const all = [...this.list.rows.values()].map((row) => row.strategy);
    const live = all.filter((s) => s.access === "owner" && isLive(s)).length;
    const mine = live === 0 ? "None of your strategies runs now." : `${live} of your strategies ${live === 1 ? "runs" : "run"} now.`;
    const each = live === 1 ? "It" : "Each";
    const asked = this.everybody.checked ? "Everything that runs here, whoever owns it, is asked to clean up first." : live ? `${each} is asked to clean up first.` : "";
    write($("stop-all-title"), this.everybody.checked ? "Stop everybody's strategies?" : "Stop all your strategies?");
    write($("stop-all-text"), `${mine} ${asked} What has a schedule or would be tried again stays stopped, too, until it is started or resumed.`);
  }

  async send() {
    write(this.go, "Stopping…");
    const path = this.everybody.checked ? "/admin/stop-all" : "/python/stop-all";
    /** @type {{all_gone: boolean, strategies: Stopped[]}} */
    let answer;
    try {
      answer = await post(path);
    } catch (error) {
      write(this.go, "Stop all");
      if (error instanceof Problem && error.status === 0) throw new Problem("Openbell did not answer. Some may have been stopped: look at the list, or try again.");
      throw error;
    } finally {
      this.reader.all();
    }
    if (this.dialog.open) this.showResults(answer.all_gone, answer.strategies);
    else toast(verdict(answer.all_gone, answer.strategies), answer.all_gone ? "info" : "error");
    return true;
  }

  /** @param {boolean} allGone @param {Stopped[]} stopped */
  showResults(allGone, stopped) {
    write($("stop-all-title"), allGone ? "All is stopped" : "Not all is stopped");
    write($("stop-all-text"), verdict(allGone, stopped));
    $("stop-all-results").replaceChildren(...stopped.map((one) => result(one, this.everybody.checked)));
    $("stop-all-admin").hidden = true;
    this.go.hidden = true;
    const close = find(this.dialog, "[data-close]");
    write(close, "Close");
    close.focus();
  }
}

/** @param {boolean} allGone @param {Stopped[]} stopped */
function verdict(allGone, stopped) {
  const left = stopped.filter((one) => !one.gone).length;
  if (!stopped.length) return "There was nothing to stop.";
  if (allGone) return "No process of any of them is left.";
  return `${left} of ${stopped.length} could not be confirmed gone.`;
}

/** @param {Stopped} one @param {boolean} everybody */
function result(one, everybody) {
  const made = element("li", "entry");
  const badge = element("span", "badge", one.gone ? "Gone" : capital(one.status));
  badge.dataset.status = one.gone ? "stopped" : "failed";
  const text = element("div", "entry-text");
  text.append(element("b", "entry-name", one.name));
  const facts = [everybody && one.owner ? `owned by ${one.owner}` : "", one.note ?? ""].filter(Boolean).join(" · ");
  if (facts) text.append(element("span", "sub", capital(facts)));
  made.append(text, badge);
  return made;
}
