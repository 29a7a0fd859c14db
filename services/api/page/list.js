// @ts-check
/** The list: trouble first, then what runs, then what rests; within these by name. */

/** @import {Strategy} from "./api.js" */
import { $ } from "./dom.js";
import { Filter } from "./filter.js";
import { Row } from "./row.js";

/** @type {Record<string, number>} */
const RANK = {
  failed: 0, crashed: 1, waiting: 2,
  running: 3, starting: 3, stopping: 3,
  scheduled: 4, paused: 4, stopped: 4,
};
const TROUBLE = new Set(["failed", "crashed", "waiting"]);
const HOLD_MS = 3000; // rows stay in place under a hand that is about to press

const byName = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });

/** @param {Row} a @param {Row} b */
function compare({ strategy: a }, { strategy: b }) {
  return (RANK[a.status] ?? 0) - (RANK[b.status] ?? 0) || byName.compare(a.name, b.name) || (a.id < b.id ? -1 : 1);
}

export class List {
  /** @param {(strategy: Strategy | null, id: string) => void} onChange Told what a strategy is now; null: gone. */
  constructor(onChange) {
    this.onChange = onChange;
    /** @type {Map<string, Row>} */
    this.rows = new Map();
    /** @type {Row[]} */
    this.order = [];
    /** @type {Set<Row>} */
    this.misplaced = new Set();
    this.heldUntil = 0;
    this.loaded = false;
    /** @type {boolean | null} Whether the user may upload; null: not known yet. */
    this.uploads = null;
    this.summing = false;
    this.filter = new Filter(Object.keys(RANK), () => {
      for (const row of this.order) this.hideOrShow(row);
      this.summarise();
    });
    for (const kind of ["pointermove", "pointerdown", "keydown"]) {
      $("rows").addEventListener(kind, () => (this.heldUntil = Date.now() + HOLD_MS), { passive: true });
    }
  }

  /** @param {Strategy[]} strategies @param {number} ticket The state of everything, as asked for by this ticket. */
  replace(strategies, ticket) {
    const listed = new Set(strategies.map((s) => s.id));
    for (const [id, row] of this.rows) if (!listed.has(id) && row.ticket < ticket) this.remove(id);
    for (const strategy of strategies) this.set(strategy, ticket);
    this.loaded = true;
    this.summarise();
  }

  /** @param {Strategy} strategy @param {number} ticket A row never goes back to an earlier ticket's answer. */
  set(strategy, ticket) {
    const row = this.rows.get(strategy.id);
    if (!row) this.add(new Row(strategy, ticket));
    else if (row.ticket > ticket || !this.change(row, strategy, ticket)) return;
    this.summarise();
    this.onChange(strategy, strategy.id);
  }

  /** @param {Row} row */
  add(row) {
    this.rows.set(row.strategy.id, row);
    this.hideOrShow(row);
    this.place(row);
    if (this.misplaced.size) this.misplaced.add(row); // its place, too, is to be found again
  }

  /** @param {Row} row @param {Strategy} strategy @param {number} ticket Whether anything is different now. */
  change(row, strategy, ticket) {
    const before = row.strategy;
    if (!row.update(strategy, ticket)) return false;
    if (before.status !== strategy.status || before.name !== strategy.name) this.misplaced.add(row);
    this.hideOrShow(row);
    this.settle(Date.now());
    return true;
  }

  /** @param {string} id */
  remove(id) {
    const row = this.rows.get(id);
    if (!row) return;
    this.rows.delete(id);
    this.order.splice(this.order.indexOf(row), 1);
    this.misplaced.delete(row);
    row.el.remove();
    this.summarise();
    this.onChange(null, id);
  }

  /** @param {number} now */
  tick(now) {
    for (const row of this.order) row.tick(now);
    this.settle(now);
  }

  /** @param {number} now Put rows where they belong, unless a hand is over them. */
  settle(now) {
    if (now < this.heldUntil || !this.misplaced.size) return;
    this.order = this.order.filter((row) => !this.misplaced.has(row));
    for (const row of this.misplaced) this.place(row);
    this.misplaced.clear();
  }

  /** @param {Row} row */
  place(row) {
    let [low, high] = [0, this.order.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (compare(this.order[middle], row) < 0) low = middle + 1;
      else high = middle;
    }
    const next = this.order[low]?.el ?? null;
    this.order.splice(low, 0, row);
    if (row.el.isConnected && row.el.nextElementSibling === next) return;
    const focused = row.el.contains(document.activeElement) ? /** @type {HTMLElement} */ (document.activeElement) : null;
    $("rows").insertBefore(row.el, next);
    focused?.focus({ preventScroll: true });
  }

  /** @param {Row} row */
  hideOrShow(row) {
    row.el.hidden = !this.filter.matches(row.strategy);
  }

  /** Once after any number of changes. */
  summarise() {
    if (this.summing) return;
    this.summing = true;
    queueMicrotask(() => {
      this.summing = false;
      this.showSummary();
    });
  }

  showSummary() {
    const counts = new Map([["", this.order.length]]);
    let shown = 0;
    let trouble = 0;
    for (const { strategy, el } of this.order) {
      counts.set(strategy.status, (counts.get(strategy.status) ?? 0) + 1);
      if (!el.hidden) shown++;
      if (TROUBLE.has(strategy.status)) trouble++;
    }
    this.filter.show(counts);
    const some = this.order.length > 0;
    $("skeleton").hidden = this.loaded;
    $("strategies").setAttribute("aria-busy", String(!this.loaded));
    $("strategies").hidden = this.loaded && !shown;
    $("toolbar").hidden = this.loaded && !some;
    $("empty").hidden = !this.loaded || some || this.uploads !== true;
    $("empty-shared").hidden = !this.loaded || some || this.uploads !== false;
    $("no-match").hidden = !some || shown > 0;
    document.title = trouble ? `(${trouble}) Openbell` : "Openbell";
  }
}
