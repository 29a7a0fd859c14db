// @ts-check
/** The stream of events, and how the connection stands. */

/** @import {Reader} from "./reader.js" */
import { $, write } from "./dom.js";
import { toast } from "./messages.js";
import { moment } from "./time.js";

const EVENTS = [
  "strategy_uploaded", "strategy_deleted", "schedule_changed", "schedule_removed", "intent_changed",
  "plan_changed", "run_granted", "run_parked", "run_started", "run_stopping", "run_exited", "strategy_gave_up",
  "start_delayed", "start_missed", "start_skipped", "strategy_shared", "variables_changed", "limits_changed",
];
/** @type {Record<string, string>} Of no row that stays: they are said. */
const SAID = { start_missed: "was missed", start_skipped: "was left out" };
const PATIENCE_MS = 2000; // before a lost connection gets a banner
const REOPEN_MS = 1000;
const ASLEEP_MS = 60_000;

export class Events {
  /** @param {Reader} reader @param {() => void} whoAmI Leads away whoever is not signed in any more. */
  constructor(reader, whoAmI) {
    this.reader = reader;
    this.whoAmI = whoAmI;
    this.lastSign = Date.now();
    this.warning = 0;
    reader.onList = () => this.live();
    window.addEventListener("online", () => this.open());
    window.addEventListener("offline", () => this.lost());
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden && Date.now() - this.lastSign > ASLEEP_MS) this.open();
    });
    this.open();
  }

  /** A new stream begins with `hello`, after which everything is read. */
  open() {
    this.source?.close();
    this.warnLater();
    this.source = new EventSource("/python/events");
    for (const kind of ["hello", "reset"]) this.source.addEventListener(kind, () => this.gap());
    for (const kind of EVENTS) this.source.addEventListener(kind, (event) => this.told(event));
    this.source.addEventListener("access_changed", () => this.otherRights());
    this.source.addEventListener("error", () => this.lost());
  }

  gap() {
    this.lastSign = Date.now();
    this.reader.all();
  }

  /** Something was shared or is no longer, or the user may do more or less. */
  otherRights() {
    this.lastSign = Date.now();
    this.whoAmI();
    this.reader.afresh();
  }

  /** @param {MessageEvent} event */
  told(event) {
    this.lastSign = Date.now();
    const { strategy_id: id, due_at: due, reason } = JSON.parse(event.data);
    const name = this.reader.list.rows.get(id)?.strategy.name;
    if (event.type in SAID && name) {
      const text = `${name}: its start of ${moment(Date.parse(due), Date.now())} ${SAID[event.type]}: ${reason}`;
      toast(text, event.type === "start_missed" ? "error" : "info", id);
    }
    if (event.type === "strategy_deleted") this.reader.forget(id);
    else this.reader.mark(id);
  }

  /** Everything was read; events tell the rest, if they are heard. */
  live() {
    if (this.source?.readyState !== EventSource.OPEN) return;
    this.show("live", "Live");
    clearTimeout(this.warning);
    this.warning = 0;
    $("banner").hidden = true;
    document.body.classList.remove("stale");
  }

  /**
   * The browser connects again by itself, unless it was answered with an error. It does not tell
   * which: the session may be over.
   */
  lost() {
    this.whoAmI();
    this.show("reconnecting", "Reconnecting…");
    this.warnLater();
    const { source } = this;
    if (source?.readyState === EventSource.CLOSED) setTimeout(() => source === this.source && this.open(), REOPEN_MS);
  }

  /** @param {string} state @param {string} text */
  show(state, text) {
    $("connection").dataset.state = state;
    write($("connection"), text);
  }

  /** Until it is live again, after a moment's patience, the list says of itself that it is old. */
  warnLater() {
    const since = Date.now();
    this.warning ||= setTimeout(() => {
      const trouble = navigator.onLine ? "Openbell does not answer." : "You are offline.";
      write($("banner"), `${trouble} This is how things stood at ${moment(since, Date.now())}; they may have changed since.`);
      $("banner").hidden = false;
      document.body.classList.add("stale");
    }, PATIENCE_MS);
  }
}
