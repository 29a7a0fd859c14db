// @ts-check
/** A strategy's row. */

/** @import {Strategy} from "./api.js" */
import { $, enable, find, hint, named, write, writeWords } from "./dom.js";
import { scheduleWords } from "./schedule_words.js";
import { ago, duration, exact, moment } from "./time.js";
import { capital, environmentWords, isLive, lastChange, mayEdit, mayOperate, nextOf, ownerWords, runDetail, runWords } from "./words.js";

const LABELLED = { start: "Start", stop: "Stop", restart: "Restart", log: "Log", more: "More for" };

export class Row {
  /** @param {Strategy} strategy @param {number} ticket */
  constructor(strategy, ticket) {
    /** @type {HTMLTemplateElement} */
    const template = $("row");
    this.el = find(/** @type {DocumentFragment} */ (template.content.cloneNode(true)), "tr");
    this.el.dataset.id = strategy.id;
    this.parts = named(this.el, "is");
    this.buttons = named(this.el, "action");
    this.busy = false;
    this.ticket = ticket;
    this.strategy = strategy;
    this.show();
  }

  /** @param {Strategy} strategy @param {number} ticket Whether anything is different now. */
  update(strategy, ticket) {
    this.ticket = ticket;
    if (JSON.stringify(strategy) === JSON.stringify(this.strategy)) return false;
    if (strategy.status !== this.strategy.status) this.flash();
    this.strategy = strategy;
    this.show();
    return true;
  }

  /** One of two equal animations, for the same one would not begin again. */
  flash() {
    this.el.dataset.fresh = this.el.dataset.fresh === "0" ? "1" : "0";
  }

  show() {
    const { strategy: s, parts, buttons } = this;
    write(parts.name, s.name);
    hint(parts.name, `${s.name} (${s.id})`);
    write(parts.exchange, s.exchange ?? "");
    parts.exchange.hidden = !s.exchange;
    write(parts.file, s.version.filename);
    hint(parts.file, environmentWords(s.version.environment));
    write(parts.owner, ownerWords(s));
    parts.owner.hidden = s.access === "owner";
    this.el.dataset.status = parts.badge.dataset.status = s.status;
    write(parts.badge, capital(s.status));
    const detail = s.run ? runDetail(s.run) : "";
    write(parts.reason, capital(detail ? s.reason.replace(`: ${detail}`, "") : s.reason));
    hint(parts.reason, s.reason);
    writeWords(parts.schedule, scheduleWords(s.schedule));
    hint(buttons.schedule, s.schedule ? scheduleWords(s.schedule) : "");
    write(parts.plan, s.schedule ? scheduleWords(s.schedule) : "No schedule");
    write(parts.warning, capital(s.warning ?? ""));
    hint(parts.warning, s.warning ?? "");
    parts.warning.hidden = !s.warning;
    write(parts.detail, detail);
    hint(parts.detail, detail);
    parts.detail.classList.toggle("mono", s.run?.state === "exited");
    this.showActions();
    this.tick(Date.now());
  }

  /** @param {boolean} busy While it is, nothing else is asked of its strategy. */
  setBusy(busy) {
    this.busy = busy;
    this.showActions();
  }

  showActions() {
    const { strategy: s, parts, buttons } = this;
    const live = isLive(s);
    const wouldStart = s.intent !== "stop" && Boolean(s.schedule || s.retry_at || s.status === "waiting");
    enable(buttons.start, !this.busy && !live);
    enable(buttons.stop, !this.busy && (live ? s.status !== "stopping" : wouldStart));
    enable(buttons.restart, !this.busy && live);
    enable(buttons.resume, !this.busy);
    enable(buttons.log, s.run !== null);
    buttons.resume.hidden = !(s.schedule && s.intent === "stop" && mayOperate(s));
    parts.operations.hidden = !mayOperate(s);
    buttons.schedule.hidden = !mayEdit(s);
    parts.plan.hidden = mayEdit(s);
    for (const [action, label] of Object.entries(LABELLED)) {
      buttons[action].setAttribute("aria-label", `${label} ${s.name}`);
      hint(buttons[action], capital(action));
    }
    if (!live && wouldStart) hint(buttons.stop, "Keep it stopped until you start or resume it");
    buttons.schedule.setAttribute("aria-label", `Schedule of ${s.name}: ${scheduleWords(s.schedule)}`);
  }

  /** @param {number} now Whatever moves with the clock. */
  tick(now) {
    const { strategy: s, parts } = this;
    const [what, at] = nextOf(s, now) ?? ["", 0];
    const when = at > now ? `in ${duration(at - now)}` : "now";
    write(parts.next, what && `${what} ${when} · ${moment(at, now)}`);
    hint(parts.next, what && exact(at));
    write(parts.run, s.run ? runWords(s.run, now) : "–");
    hint(parts.run, s.run?.started_at ? `Started ${exact(Date.parse(s.run.started_at))}` : "");
    const changed = lastChange(s);
    write(parts.changed, ago(now - changed));
    hint(parts.changed, exact(changed));
  }
}
