// @ts-check
/**
 * The page: strategies, live. It shows what the server says and nothing it merely hopes for.
 *
 * An event says only which strategy has changed; its row is then read again. Data reaches the
 * document as text, never as markup: the server's `trusted-types 'none'` refuses the rest.
 */

/** @typedef {{id: string, epoch: number, state: string, due_at: ?string, granted_at: string, started_at: ?string, exited_at: ?string, exit_code: ?number, signal: ?string, reason: ?string, detail: ?string}} Run */
/** @typedef {{kind: string, exchange: string, start: string, stop: ?string, weekdays: string[]}} Schedule */
/** @typedef {{id: string, name: string, exchange: ?string, status: string, reason: string, next_start: ?string, next_stop: ?string, retry_at: ?string, intent: string, stop_grace_s: number, schedule: ?Schedule, version: {number: number, filename: string}, run: ?Run, created_at: string}} Strategy */
/** @typedef {{field: string, message: string, line?: number, column?: number}} FieldError */
/** @typedef {{run_id: string, offset: number, next_offset: number, size: number, ended: boolean, content: string}} LogView */

/** In the order of the list: trouble first. */
const STATUSES = ["failed", "crashed", "waiting", "running", "starting", "stopping", "scheduled", "paused", "stopped"];
const RANK = new Map(STATUSES.map((status, n) => [status, n < 3 ? n : n < 6 ? 3 : 4]));
const TROUBLE = new Set(["failed", "crashed", "waiting"]);
const EVENTS = [
  "strategy_uploaded", "strategy_deleted", "schedule_changed", "schedule_removed", "intent_changed",
  "plan_changed", "run_granted", "run_started", "run_stopping", "run_exited", "strategy_gave_up",
  "start_delayed", "start_missed",
];
const WEEKDAYS = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const EXAMPLE = `import time

beats = 0
while True:
    beats += 1
    print("beat", beats, time.ctime(), flush=True)
    time.sleep(1)
`;

const AT_ONCE = 3; // reads of single strategies; a browser has six connections for one host
const STORM = 40; // so many changes are read as one list
const HOLD_MS = 3000; // rows stay in place under a hand that is about to press
const PATIENCE_MS = 2000; // before a lost connection gets a banner
const LOG_TAIL = 65_536;
const LOG_MOST = 1_000_000; // characters kept in the document; the download has them all
const LOG_PAUSE_MS = 100;

// ---- the document

/** @template {HTMLElement} [T=HTMLElement] @param {string} id @returns {T} */
const $ = (id) => /** @type {T} */ (document.getElementById(id));

/** @template {Element} [T=HTMLElement] @param {ParentNode} root @param {string} selector @returns {T} */
const find = (root, selector) => /** @type {T} */ (root.querySelector(selector));

/** @param {Node} node @param {string} text Written only when it differs: a tick costs nothing. */
function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** @param {HTMLElement} node @param {string} text */
function hint(node, text) {
  if (node.title !== text) node.title = text;
}

/** @param {string} tag @param {string} className @param {string} [text] */
function element(tag, className, text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

/**
 * A button that cannot be pressed keeps the focus, so that the keyboard does not lose its place.
 * @param {HTMLElement} button @param {boolean} enabled
 */
function enable(button, enabled) {
  button.setAttribute("aria-disabled", String(!enabled));
}

/** @param {Element} button */
const enabled = (button) => button.getAttribute("aria-disabled") !== "true";

/** @param {number} ms @param {AbortSignal} [signal] @returns {Promise<void>} */
function pause(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });
}

// ---- times and words

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const weekdayClock = new Intl.DateTimeFormat(undefined, { weekday: "short", hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const exact = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "long", hourCycle: "h23" });
const day = new Intl.DateTimeFormat(undefined, { dateStyle: "short" });

/** @param {number} ms */
function duration(ms) {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  const [d, h, m, s] = [Math.floor(seconds / 86400), Math.floor(seconds / 3600) % 24, Math.floor(seconds / 60) % 60, seconds % 60];
  if (d) return `${d} d ${h} h`;
  if (h) return `${h} h ${String(m).padStart(2, "0")} m`;
  return m ? `${m} m ${String(s).padStart(2, "0")} s` : `${s} s`;
}

/** @param {number} ms */
function brief(ms) {
  if (ms < 1000) return `${Math.max(0, ms)} ms`;
  return ms < 10_000 ? `${(ms / 1000).toFixed(1)} s` : duration(ms);
}

/** @param {number} ms */
function ago(ms) {
  if (ms < 10_000) return "just now";
  if (ms < 60_000) return `${Math.floor(ms / 10_000) * 10} s ago`;
  if (ms < 3_600_000) return `${Math.floor(ms / 60_000)} m ago`;
  return ms < 86_400_000 ? `${Math.floor(ms / 3_600_000)} h ago` : `${Math.floor(ms / 86_400_000)} d ago`;
}

/** @param {number} at @param {number} now */
const moment = (at, now) => (day.format(at) === day.format(now) ? clock : weekdayClock).format(at);

/** @param {string} text */
const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

/** @param {?Schedule} schedule */
function scheduleWords(schedule) {
  if (!schedule) return "Add a schedule";
  if (schedule.kind === "always") return "Always";
  const hours = schedule.stop ? `${schedule.start}–${schedule.stop}` : `from ${schedule.start}`;
  return `${schedule.exchange} ${hours}${weekdayWords(schedule.weekdays)}`;
}

/** @param {string[]} days */
function weekdayWords(days) {
  if (days.length === 7) return "";
  const places = days.map((name) => WEEKDAYS.indexOf(name));
  const [first, last] = [places[0], places[places.length - 1]];
  const joined = days.length > 2 && last - first === days.length - 1;
  return ` · ${joined ? [days[0], days[days.length - 1]].map(capital).join("–") : days.map(capital).join(" ")}`;
}

/** @param {Strategy} s */
const isLive = (s) => s.run !== null && s.run.state !== "exited";

/** @param {Strategy} s What comes next by itself: its words, and the instant. @returns {[string, number] | null} */
function nextOf(s) {
  if (isLive(s)) return s.next_stop && s.status !== "stopping" ? ["Stops", Date.parse(s.next_stop)] : null;
  if (s.retry_at) return ["Starts again", Date.parse(s.retry_at)];
  if (s.intent === "stop" || !s.next_start) return null;
  return ["Starts", Date.parse(s.next_start)];
}

/** @param {Strategy} s */
function lastChange(s) {
  const moments = [s.created_at, s.run?.granted_at, s.run?.started_at, s.run?.exited_at];
  return Math.max(...moments.map((at) => (at ? Date.parse(at) : 0)));
}

/** @param {Run} run @param {number} now */
function runWords(run, now) {
  const started = run.started_at ? Date.parse(run.started_at) : null;
  if (run.state !== "exited") {
    return started ? `Up ${duration(now - started)}` : `Preparing for ${duration(now - Date.parse(run.granted_at))}`;
  }
  const end = run.signal ?? (run.exit_code === null ? "Ended" : `Exit code ${run.exit_code}`);
  return started && run.exited_at ? `${end} after ${brief(Date.parse(run.exited_at) - started)}` : end;
}

/** @param {Run} run Its last line; while it is up, how punctual it was. */
function runDetail(run) {
  if (run.state === "exited") return run.detail ?? "";
  if (!run.due_at || !run.started_at) return "";
  return `${Math.max(0, Date.parse(run.started_at) - Date.parse(run.due_at))} ms after it was due`;
}

/** @param {string} text A log as plain text: no colours, and each redrawn line on its own. */
const plain = (text) => text.replace(/\x1b\[[0-9;?]*[ -/]*[@-~]/g, "").replace(/\r\n?/g, "\n");

// ---- the server

class Problem extends Error {
  /** @param {number} status @param {{title?: string, detail?: string, errors?: FieldError[]}} body */
  constructor(status, body) {
    super(body.detail || body.title || `The server answered ${status}`);
    this.status = status;
    this.errors = body.errors ?? [];
  }
}

/**
 * Never from the browser's cache: `/python/` is this page, too.
 * @param {string} path @param {RequestInit} [options] @returns {Promise<any>}
 */
async function ask(path, options = {}) {
  /** @type {Response} */
  let answer;
  try {
    answer = await fetch(path, { ...options, cache: "no-store", headers: { accept: "application/json", ...options.headers } });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new Problem(0, { detail: "Openbell does not answer. Nothing was changed by this page." });
  }
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Problem(answer.status, body);
  return body;
}

/** @param {string} action @param {string} id */
const address = (action, id) => `/python/${action}/${encodeURIComponent(id)}`;

// ---- messages

/** @param {string} text @param {"info" | "error"} kind */
function toast(text, kind = "info") {
  const made = element("div", `toast ${kind}`);
  made.setAttribute("role", kind === "error" ? "alert" : "status");
  made.append(element("p", "", text));
  const close = element("button", "link", "Dismiss");
  close.addEventListener("click", () => made.remove());
  made.append(close);
  $("toasts").append(made);
  while ($("toasts").childElementCount > 4) $("toasts").firstElementChild?.remove();
  setTimeout(() => made.remove(), kind === "error" ? 20_000 : 7000);
}

/** @param {string} title @param {unknown} error */
function complain(title, error) {
  toast(`${title}: ${error instanceof Error ? error.message : error}`, "error");
}

// ---- a strategy's row

class Row {
  /** @param {Strategy} strategy @param {number} ticket */
  constructor(strategy, ticket) {
    const copy = /** @type {DocumentFragment} */ (/** @type {HTMLTemplateElement} */ ($("row")).content.cloneNode(true));
    this.el = find(copy, "tr");
    /** @type {Record<string, HTMLElement>} */
    this.parts = {};
    for (const part of this.el.querySelectorAll("[data-is]")) {
      const html = /** @type {HTMLElement} */ (part);
      this.parts[/** @type {string} */ (html.dataset.is)] = html;
    }
    /** @type {Record<string, HTMLElement>} */
    this.buttons = {};
    for (const button of this.el.querySelectorAll("button")) this.buttons[/** @type {string} */ (button.dataset.action)] = button;
    this.busy = false;
    this.ticket = ticket;
    this.strategy = strategy;
    this.el.dataset.id = strategy.id;
    this.show();
  }

  /** @param {Strategy} strategy @param {number} ticket Whether anything is different now. */
  update(strategy, ticket) {
    this.ticket = ticket;
    if (JSON.stringify(strategy) === JSON.stringify(this.strategy)) return false;
    this.strategy = strategy;
    this.show();
    return true;
  }

  show() {
    const s = this.strategy;
    const { parts } = this;
    write(parts.name, s.name);
    hint(parts.name, `${s.name} (${s.id})`);
    write(parts.exchange, s.exchange ?? "");
    parts.exchange.hidden = !s.exchange;
    write(parts.file, s.version.filename);
    this.el.dataset.status = s.status;
    parts.badge.dataset.status = s.status;
    write(parts.badge, capital(s.status));
    const detail = s.run ? runDetail(s.run) : "";
    write(parts.reason, capital(detail ? s.reason.replace(`: ${detail}`, "") : s.reason));
    hint(parts.reason, s.reason);
    parts.resume.hidden = !(s.schedule && s.intent === "stop");
    write(parts.schedule, scheduleWords(s.schedule));
    write(parts.detail, detail);
    hint(parts.detail, detail);
    parts.detail.classList.toggle("mono", s.run?.state === "exited");
    this.showActions();
    this.tick(Date.now());
  }

  showActions() {
    const s = this.strategy;
    const live = isLive(s);
    const wouldStart = s.intent !== "stop" && Boolean(s.schedule || s.retry_at || s.status === "waiting");
    enable(this.buttons.start, !this.busy && !live);
    enable(this.buttons.stop, !this.busy && (live ? s.status !== "stopping" : wouldStart));
    enable(this.buttons.restart, !this.busy && live);
    enable(this.buttons.resume, !this.busy);
    enable(this.buttons.log, s.run !== null);
    for (const action of ["start", "stop", "restart", "log", "delete"]) {
      this.buttons[action].setAttribute("aria-label", `${capital(action)} ${s.name}`);
      hint(this.buttons[action], action === "stop" && !live && wouldStart ? "Keep it stopped until you start or resume it" : capital(action));
    }
    this.buttons.schedule.setAttribute("aria-label", `Schedule of ${s.name}: ${scheduleWords(s.schedule)}`);
  }

  /** @param {number} now Whatever moves with the clock. */
  tick(now) {
    const { strategy: s, parts } = this;
    const next = nextOf(s);
    write(parts.next, next ? (next[1] > now ? `${next[0]} in ${duration(next[1] - now)}` : `${next[0]} now`) + ` · ${moment(next[1], now)}` : "");
    hint(parts.next, next ? exact.format(next[1]) : "");
    write(parts.run, s.run ? runWords(s.run, now) : "–");
    hint(parts.run, s.run?.started_at ? `Started ${exact.format(Date.parse(s.run.started_at))}` : "");
    const changed = lastChange(s);
    write(parts.changed, ago(now - changed));
    hint(parts.changed, exact.format(changed));
  }

  /** @param {string} text @param {string} status */
  matches(text, status) {
    const s = this.strategy;
    if (status && s.status !== status) return false;
    return !text || `${s.name}\n${s.id}\n${s.exchange ?? ""}\n${s.reason}\n${s.version.filename}`.toLowerCase().includes(text);
  }
}

// ---- the list

const byName = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });

/** @param {Row} a @param {Row} b */
function compare(a, b) {
  const [x, y] = [a.strategy, b.strategy];
  return (RANK.get(x.status) ?? 0) - (RANK.get(y.status) ?? 0) || byName.compare(x.name, y.name) || (x.id < y.id ? -1 : 1);
}

class List {
  constructor() {
    /** @type {Map<string, Row>} */
    this.rows = new Map();
    /** @type {Row[]} */
    this.order = [];
    /** @type {Set<Row>} */
    this.misplaced = new Set();
    this.heldUntil = 0;
    this.text = "";
    this.status = "";
    this.summing = false;
    this.chips = ["", ...STATUSES].map((status) => this.makeChip(status));
    /** @type {(strategy: Strategy | null, id: string) => void} */
    this.onChange = () => {};
    for (const kind of ["pointermove", "pointerdown", "keydown"]) {
      $("rows").addEventListener(kind, () => (this.heldUntil = Date.now() + HOLD_MS), { passive: true });
    }
  }

  /** @param {Strategy[]} strategies @param {number} ticket The state of everything, as asked for by this ticket. */
  replace(strategies, ticket) {
    const fresh = document.createDocumentFragment();
    const listed = new Set(strategies.map((s) => s.id));
    for (const [id, row] of this.rows) if (!listed.has(id) && row.ticket < ticket) this.remove(id);
    for (const strategy of strategies) {
      const row = this.rows.get(strategy.id);
      if (row) this.change(row, strategy, ticket);
      else if (this.order.length) this.set(strategy, ticket);
      else this.rows.set(strategy.id, new Row(strategy, ticket));
    }
    if (!this.order.length) {
      this.order = [...this.rows.values()].sort(compare);
      for (const row of this.order) {
        row.el.hidden = !row.matches(this.text, this.status);
        fresh.append(row.el);
      }
      $("rows").append(fresh);
    }
    $("strategies").setAttribute("aria-busy", "false");
    $("skeleton").hidden = true;
    this.summarise();
  }

  /** @param {Strategy} strategy @param {number} ticket */
  set(strategy, ticket) {
    const row = this.rows.get(strategy.id);
    if (row) {
      this.change(row, strategy, ticket);
      return;
    }
    const made = new Row(strategy, ticket);
    this.rows.set(strategy.id, made);
    this.place(made);
    this.refilter(made);
    this.summarise();
    this.onChange(strategy, strategy.id);
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

  /** @param {Row} row @param {Strategy} strategy @param {number} ticket */
  change(row, strategy, ticket) {
    if (row.ticket > ticket) return;
    const before = row.strategy;
    if (!row.update(strategy, ticket)) return;
    if (before.status !== strategy.status || before.name !== strategy.name) this.misplaced.add(row);
    if (before.status !== strategy.status) row.el.dataset.fresh = String(Number(row.el.dataset.fresh ?? 0) ^ 1);
    this.refilter(row);
    this.settle(Date.now());
    this.summarise();
    this.onChange(strategy, strategy.id);
  }

  /** @param {number} now Put rows where they belong, unless a hand is over them. */
  settle(now) {
    if (now < this.heldUntil || !this.misplaced.size) return;
    for (const row of this.misplaced) this.order.splice(this.order.indexOf(row), 1);
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
  refilter(row) {
    row.el.hidden = !row.matches(this.text, this.status);
  }

  filter() {
    for (const row of this.order) this.refilter(row);
    this.summarise();
  }

  /** @param {number} now */
  tick(now) {
    for (const row of this.order) row.tick(now);
    this.settle(now);
  }

  /** @param {string} status */
  makeChip(status) {
    const chip = element("button", "chip");
    chip.setAttribute("type", "button");
    chip.dataset.status = status;
    chip.append(element("span", "", status ? capital(status) : "All"), element("b", "", ""));
    chip.hidden = status !== "";
    chip.addEventListener("click", () => {
      this.status = this.status === status ? "" : status;
      this.filter();
    });
    $("chips").append(chip);
    return chip;
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
    /** @type {Map<string, number>} */
    const counts = new Map([["", this.rows.size]]);
    let shown = 0;
    let trouble = 0;
    for (const { strategy, el } of this.order) {
      counts.set(strategy.status, (counts.get(strategy.status) ?? 0) + 1);
      if (!el.hidden) shown++;
      if (TROUBLE.has(strategy.status)) trouble++;
    }
    for (const chip of this.chips) {
      const status = chip.dataset.status ?? "";
      chip.hidden = status !== "" && !counts.get(status) && status !== this.status;
      chip.setAttribute("aria-pressed", String(status === this.status));
      write(/** @type {Element} */ (chip.lastElementChild), String(counts.get(status) ?? 0));
    }
    const loaded = $("strategies").getAttribute("aria-busy") === "false";
    $("empty").hidden = !loaded || this.rows.size > 0;
    $("no-match").hidden = !this.rows.size || shown > 0;
    $("strategies").hidden = loaded && !shown;
    $("toolbar").hidden = loaded && !this.rows.size;
    document.title = trouble ? `(${trouble}) Openbell` : "Openbell";
  }
}

// ---- reading what has changed

/**
 * Reads strategies that an event named: one read of each at a time, and everything after a gap.
 *
 * Answers may overtake each other. So each read takes a ticket when it is sent, and a row never
 * goes back to an earlier one; a read that was sent before a list does not bring back what the
 * list no longer has.
 */
class Reader {
  /** @param {List} list */
  constructor(list) {
    this.list = list;
    this.ticket = 0;
    this.listTicket = 0;
    /** @type {Set<string>} */
    this.wanted = new Set();
    /** @type {Set<string>} */
    this.reading = new Set();
    /** @type {Set<string>} What was deleted; no answer that is still under way brings it back. */
    this.gone = new Set();
    this.everything = false;
    this.listing = false;
    this.onList = () => {};
  }

  /** @param {string} id */
  mark(id) {
    if (this.gone.has(id)) return;
    this.wanted.add(id);
    this.go();
  }

  /** @param {string} id It was deleted. */
  forget(id) {
    this.gone.add(id);
    this.wanted.delete(id);
    this.list.remove(id);
  }

  all() {
    this.everything = true;
    this.go();
  }

  go() {
    if (this.listing) return;
    if (this.everything || this.wanted.size > STORM) {
      this.readList();
      return;
    }
    for (const id of this.wanted) {
      if (this.reading.size >= AT_ONCE) return;
      if (!this.reading.has(id)) this.readOne(id);
    }
  }

  async readList() {
    this.listing = true;
    this.everything = false;
    this.wanted.clear();
    const ticket = ++this.ticket;
    try {
      const { strategies } = await ask("/python/");
      this.listTicket = ticket;
      this.list.replace(strategies.filter((/** @type {Strategy} */ s) => !this.gone.has(s.id)), ticket);
      this.onList();
    } catch {
      this.everything = true; // the connection's state tells the user
      await pause(2000);
    }
    this.listing = false;
    this.go();
  }

  /** @param {string} id */
  async readOne(id) {
    this.wanted.delete(id);
    this.reading.add(id);
    const ticket = ++this.ticket;
    try {
      const strategy = await ask(address("status", id));
      const known = ticket > this.listTicket || this.list.rows.has(id);
      if (known && !this.gone.has(id)) this.list.set(strategy, ticket);
    } catch (error) {
      if (error instanceof Problem && error.status === 404) this.forget(id);
      else {
        await pause(2000);
        if (!this.gone.has(id)) this.wanted.add(id);
      }
    }
    this.reading.delete(id);
    this.go();
  }
}

// ---- the stream of events

class Stream {
  /** @param {Reader} reader */
  constructor(reader) {
    this.reader = reader;
    this.lastSign = Date.now();
    this.warning = 0;
    reader.onList = () => this.show("live");
    window.addEventListener("online", () => this.open());
    window.addEventListener("offline", () => this.lost());
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden && Date.now() - this.lastSign > 60_000) this.open();
    });
    this.open();
  }

  /** A new stream begins with `hello`, after which everything is read. */
  open() {
    this.source?.close();
    this.warn();
    const source = new EventSource("/python/events");
    this.source = source;
    for (const kind of ["hello", "reset"]) source.addEventListener(kind, () => this.gap());
    for (const kind of EVENTS) source.addEventListener(kind, (event) => this.told(event));
    source.addEventListener("error", () => this.lost());
  }

  gap() {
    this.lastSign = Date.now();
    this.reader.all();
  }

  /** @param {MessageEvent} event */
  told(event) {
    this.lastSign = Date.now();
    const { strategy_id: id } = JSON.parse(event.data);
    if (event.type === "strategy_deleted") this.reader.forget(id);
    else this.reader.mark(id);
  }

  /** The browser connects again by itself, unless it was answered with an error. */
  lost() {
    this.show("reconnecting");
    const { source } = this;
    if (source?.readyState === EventSource.CLOSED) setTimeout(() => source === this.source && this.open(), 1000);
  }

  /** @param {"live" | "reconnecting"} state */
  show(state) {
    if (state === "live" && this.source?.readyState !== EventSource.OPEN) return;
    const label = $("connection");
    label.dataset.state = state;
    write(label, state === "live" ? "Live" : "Reconnecting…");
    if (state === "live") {
      clearTimeout(this.warning);
      this.warning = 0;
      $("banner").hidden = true;
      document.body.classList.remove("stale");
    } else this.warn();
  }

  /** Until it is live again, after a moment's patience, the list says of itself that it is old. */
  warn() {
    const since = clock.format(Date.now());
    this.warning ||= setTimeout(() => {
      const trouble = navigator.onLine ? "Openbell does not answer." : "You are offline.";
      write($("banner"), `${trouble} This is how things stood at ${since}; they may have changed since.`);
      $("banner").hidden = false;
      document.body.classList.add("stale");
    }, PATIENCE_MS);
  }
}

// ---- the log

class LogPanel {
  constructor() {
    this.text = $("log-text");
    /** @type {Strategy | null} */
    this.strategy = null;
    this.runId = "";
    this.offset = -LOG_TAIL;
    this.length = 0;
    this.following = true;
    this.reading = new AbortController();
    /** @type {HTMLElement | null} */
    this.opener = null;
    this.text.addEventListener("scroll", () => this.scrolled(), { passive: true });
    $("log-close").addEventListener("click", () => this.close());
    $("log-jump").addEventListener("click", () => this.follow());
    $("log-wrap").addEventListener("change", () => this.text.classList.toggle("nowrap", !(/** @type {HTMLInputElement} */ ($("log-wrap")).checked)));
    $("log-download").addEventListener("click", (event) => {
      event.preventDefault();
      this.download().catch((error) => complain("The log could not be downloaded", error));
    });
    document.addEventListener("keydown", (event) => {
      const elsewhere = /** @type {Element} */ (event.target).closest("dialog, input[type=search]");
      if (event.key === "Escape" && !elsewhere && this.strategy) this.close();
    });
    new ResizeObserver(() => this.following && this.toEnd()).observe(this.text);
  }

  /** @param {Strategy} strategy @param {HTMLElement} opener */
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
    const another = strategy.run?.id !== this.runId;
    this.strategy = strategy;
    this.showHead();
    if (another) this.read(strategy);
    else if (ended) this.poll(); // not after the wait that is under way
  }

  /** @param {Strategy} strategy From the tail of its latest run on. */
  read(strategy) {
    this.strategy = strategy;
    this.runId = strategy.run?.id ?? "";
    this.offset = -LOG_TAIL;
    this.length = 0;
    this.text.replaceChildren();
    this.showHead();
    this.follow();
    this.poll();
  }

  /** Ask for what follows, again and again, until the run has ended or something else is read. */
  async poll() {
    this.reading.abort();
    const reading = new AbortController();
    const { signal } = reading;
    this.reading = reading;
    const id = /** @type {Strategy} */ (this.strategy).id;
    let wait = 0;
    while (!signal.aborted) {
      try {
        const query = new URLSearchParams({ run: this.runId, offset: String(this.offset), wait: String(wait) });
        /** @type {LogView} */
        const view = await ask(`${address("logs", id)}?${query}`, { signal });
        if (signal.aborted) return;
        this.take(view);
        if (view.ended && view.next_offset >= view.size) return;
        wait = 10;
        await pause(LOG_PAUSE_MS, signal);
      } catch (error) {
        if (signal.aborted) return;
        this.sayState(error instanceof Error ? error.message : String(error));
        await pause(2000, signal);
      }
    }
  }

  /** @param {LogView} view */
  take(view) {
    let content = plain(view.content);
    if (this.offset < 0 && view.offset > 0) content = `… the download has what came before\n${content.slice(content.indexOf("\n") + 1)}`;
    this.offset = view.next_offset;
    if (content) {
      this.text.append(content);
      this.length += content.length;
      if (this.following) this.trim();
      if (this.following) this.toEnd();
    }
    if (view.ended && view.next_offset >= view.size && !this.length) this.text.append(element("span", "quiet", "It printed nothing."));
    this.showState();
  }

  trim() {
    while (this.length > LOG_MOST && this.text.firstChild !== this.text.lastChild) {
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
    if (!isLive(s)) this.sayState(runWords(s.run, Date.now()));
    else this.sayState(this.following ? "Following" : "Paused while you read");
  }

  /** @param {string} text */
  sayState(text) {
    write($("log-state"), text);
  }

  /** The whole run, piece by piece, for one answer holds only so much. */
  async download() {
    const { strategy, runId } = this;
    if (!strategy) return;
    const pieces = [];
    for (let offset = 0, more = true; more; ) {
      const query = new URLSearchParams({ run: runId, offset: String(offset), limit: "524288" });
      /** @type {LogView} */
      const view = await ask(`${address("logs", strategy.id)}?${query}`);
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

// ---- dialogs

class Dialog {
  /** @param {string} id */
  constructor(id) {
    /** @type {HTMLDialogElement} */
    this.el = $(id);
    /** @type {HTMLFormElement} */
    this.form = find(this.el, "form");
    for (const button of this.el.querySelectorAll("[data-close]")) button.addEventListener("click", () => this.el.close());
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.el.getAttribute("aria-busy") !== "true") this.submit();
    });
  }

  show() {
    this.clearErrors();
    if (!this.el.open) this.el.showModal();
  }

  async submit() {
    this.clearErrors();
    this.el.setAttribute("aria-busy", "true");
    try {
      await this.send();
      this.el.close();
    } catch (error) {
      this.fail(error);
    } finally {
      this.el.setAttribute("aria-busy", "false");
    }
  }

  /** @returns {Promise<void>} */
  async send() {}

  clearErrors() {
    for (const place of this.el.querySelectorAll("[data-error], [data-problem]")) {
      place.setAttribute("hidden", "");
      write(place, "");
    }
    for (const input of this.el.querySelectorAll("[aria-invalid]")) input.removeAttribute("aria-invalid");
  }

  /** @param {unknown} error Each of its errors at its field; what has no field here above them all. */
  fail(error) {
    const errors = error instanceof Problem ? error.errors : [];
    const homeless = errors.filter((one) => !this.failField(one));
    if (errors.length && !homeless.length) return;
    const place = find(this.el, "[data-problem]");
    write(place, homeless.length ? homeless.map((one) => one.message).join("; ") : error instanceof Error ? error.message : String(error));
    place.hidden = false;
  }

  /** @param {FieldError} error */
  failField(error) {
    const [, field, rest] = /** @type {RegExpExecArray} */ (/^(?:market\.|always\.)?(\w+)\.?(.*)$/.exec(error.field) ?? ["", "", ""]);
    const root = field && this.el.querySelector(`[data-field="${field}"]`);
    const place = root && root.querySelector("[data-error]");
    if (!root || !place) return false;
    const where = error.line ? `Line ${error.line}${error.column ? `, column ${error.column}` : ""}: ` : "";
    const text = where + (rest ? `${rest}: ` : "") + (where || rest ? error.message : capital(error.message));
    write(place, place.textContent ? `${place.textContent}; ${text}` : text);
    place.removeAttribute("hidden");
    const input = /** @type {HTMLElement | null} */ (root.querySelector("input, textarea"));
    input?.setAttribute("aria-invalid", "true");
    if (!this.el.querySelector("[aria-invalid]:focus")) input?.focus();
    return true;
  }
}

class UploadDialog extends Dialog {
  /** @param {Reader} reader */
  constructor(reader) {
    super("upload");
    this.reader = reader;
    /** @type {File | null} */
    this.file = null;
    /** @type {HTMLInputElement} */
    this.picker = $("upload-file");
    this.picker.addEventListener("change", () => this.picker.files?.[0] && this.choose(this.picker.files[0]));
    this.dropping();
  }

  /** @param {File} [file] */
  begin(file) {
    this.form.reset();
    this.forget();
    this.show();
    if (file) this.choose(file);
  }

  forget() {
    this.file = null;
    $("upload-chosen").replaceChildren("Drop a ", element("code", "", ".py"), " file here, or");
    /** @type {HTMLInputElement} */ ($("upload-name")).placeholder = "As its file";
  }

  /** @param {File} file */
  choose(file) {
    this.clearErrors();
    this.file = file;
    $("upload-chosen").replaceChildren(element("b", "", file.name), ` ${file.size.toLocaleString()} bytes`);
    /** @type {HTMLInputElement} */ ($("upload-name")).placeholder = file.name.replace(/\.py$/, "");
  }

  /** A file may be dropped anywhere on the page. */
  dropping() {
    let depth = 0;
    /** @param {DragEvent} event */
    const carriesFile = (event) => event.dataTransfer?.types.includes("Files");
    /** @param {number} to */
    const entered = (to) => document.body.classList.toggle("dropping", (depth = Math.max(0, to)) > 0);
    document.addEventListener("dragenter", (event) => carriesFile(event) && entered(depth + 1));
    document.addEventListener("dragleave", (event) => carriesFile(event) && entered(depth - 1));
    document.addEventListener("dragover", (event) => carriesFile(event) && event.preventDefault());
    document.addEventListener("drop", (event) => {
      if (!carriesFile(event)) return;
      event.preventDefault();
      entered(0);
      const file = event.dataTransfer?.files[0];
      if (!file || document.querySelector("dialog[open]:not(#upload)")) return;
      if (this.el.open) this.choose(file);
      else this.begin(file);
    });
  }

  clearErrors() {
    super.clearErrors();
    $("upload-excerpt").hidden = true;
  }

  async send() {
    if (!this.file) throw new Problem(0, { errors: [{ field: "file", message: "Choose a file first" }] });
    const given = new FormData(this.form);
    const body = new FormData();
    body.set("file", this.file, this.file.name);
    body.set("parameters", JSON.stringify(parseParameters(String(given.get("parameters")))));
    for (const name of ["name", "exchange"]) if (given.get(name)) body.set(name, String(given.get(name)));
    const { strategy } = await ask("/python/upload", { method: "POST", body });
    this.reader.mark(strategy.id);
    toast(`${strategy.name} is uploaded. Start it, or give it a schedule.`);
  }

  /** @param {unknown} error */
  fail(error) {
    super.fail(error);
    const place = error instanceof Problem && error.errors.find((one) => one.line);
    if (place && place.line) this.showExcerpt(place.line, place.column ?? 0);
  }

  /** @param {number} line @param {number} column The line that cannot be compiled, and where. */
  async showExcerpt(line, column) {
    const text = await this.file?.text();
    const source = text?.split(/\r\n?|\n/)[line - 1];
    if (source === undefined || source.length > 500) return;
    const gutter = `${line} │ `;
    const caret = column ? `\n${" ".repeat(gutter.length)}${source.slice(0, column - 1).replace(/[^\t]/g, " ")}^` : "";
    write($("upload-excerpt"), gutter + source + caret);
    $("upload-excerpt").hidden = false;
  }
}

/** @param {string} text KEY=VALUE lines; empty ones and comments are left out. */
function parseParameters(text) {
  /** @type {Record<string, string>} */
  const parameters = Object.create(null);
  for (const [n, line] of text.split("\n").entries()) {
    const trimmed = line.trim();
    if (!trimmed || trimmed.startsWith("#")) continue;
    const [, key, value] = /^([^=\s]+)\s*=\s*(.*)$/.exec(trimmed) ?? [];
    const wrong = !key ? "write KEY=VALUE" : key in parameters ? `${key} is given twice` : "";
    if (wrong) throw new Problem(0, { errors: [{ field: "parameters", line: n + 1, message: wrong }] });
    parameters[key] = value;
  }
  return parameters;
}

class ScheduleDialog extends Dialog {
  /** @param {Reader} reader */
  constructor(reader) {
    super("schedule");
    this.reader = reader;
    this.id = "";
    this.form.addEventListener("change", () => this.showKind());
  }

  /** @param {Strategy} strategy */
  begin(strategy) {
    this.id = strategy.id;
    write($("schedule-title"), `When ${strategy.name} runs`);
    const { schedule } = strategy;
    const market = schedule?.kind === "market" ? schedule : null;
    this.set("kind", schedule?.kind ?? "market");
    this.set("exchange", market?.exchange ?? strategy.exchange ?? "NSE");
    this.set("start", market?.start ?? "09:15");
    this.set("stop", market ? (market.stop ?? "") : "15:30");
    const chosen = market?.weekdays ?? WEEKDAYS;
    for (const box of this.form.querySelectorAll("[name=weekdays]")) /** @type {HTMLInputElement} */ (box).checked = chosen.includes(/** @type {HTMLInputElement} */ (box).value);
    this.showKind();
    this.show();
  }

  /** @param {string} name @param {string} value */
  set(name, value) {
    /** @type {RadioNodeList | HTMLInputElement} */ (this.form.elements.namedItem(name)).value = value;
  }

  showKind() {
    $("market").hidden = new FormData(this.form).get("kind") !== "market";
  }

  async send() {
    const given = new FormData(this.form);
    const kind = given.get("kind");
    const outcome = kind === "none" ? await ask(address("schedule", this.id), { method: "DELETE" }) : await this.post(kind === "always" ? { kind } : marketFrom(given));
    this.reader.mark(this.id);
    if (outcome.note) toast(outcome.note);
  }

  /** @param {object} schedule */
  post(schedule) {
    const headers = { "content-type": "application/json" };
    return ask(address("schedule", this.id), { method: "POST", headers, body: JSON.stringify(schedule) });
  }
}

/** @param {FormData} given */
const marketFrom = (given) => ({
  kind: "market",
  exchange: given.get("exchange"),
  start: given.get("start"),
  stop: given.get("stop") || null,
  weekdays: given.getAll("weekdays"),
});

class DeleteDialog extends Dialog {
  /** @param {Reader} reader */
  constructor(reader) {
    super("delete");
    this.reader = reader;
    /** @type {Strategy | null} */
    this.strategy = null;
  }

  /** @param {Strategy} strategy */
  begin(strategy) {
    this.explain(strategy);
    this.show();
  }

  /** @param {Strategy | null} strategy @param {string} id */
  changed(strategy, id) {
    if (this.el.open && strategy && this.strategy?.id === id) this.explain(strategy);
  }

  /** @param {Strategy} strategy */
  explain(strategy) {
    this.strategy = strategy;
    const live = isLive(strategy);
    write($("delete-title"), `Delete ${strategy.name}?`);
    write($("delete-text"), live ? `It is ${strategy.status}. It is stopped first, with ${strategy.stop_grace_s} s to clean up, and leaves this list at once. (In the API: DELETE with ?stop=true.) Its logs are kept.` : "It leaves this list and is not started any more. Its logs are kept.");
    write($("delete-go"), live ? "Stop and delete" : "Delete");
  }

  async send() {
    const strategy = /** @type {Strategy} */ (this.strategy);
    const { note } = await ask(address("delete", strategy.id) + (isLive(strategy) ? "?stop=true" : ""), { method: "DELETE" });
    this.reader.forget(strategy.id);
    toast(`${strategy.name} is deleted${note ? `; ${note}` : ""}.`);
  }
}

// ---- all together

/** @param {Row} row @param {string} action @param {Reader} reader */
async function command(row, action, reader) {
  const { id, name } = row.strategy;
  row.busy = true;
  row.showActions();
  try {
    const { note } = await ask(address(action, id), { method: "POST" });
    if (note) toast(`${name}: ${note}`);
  } catch (error) {
    complain(`${name} could not be ${{ start: "started", stop: "stopped", restart: "restarted", resume: "resumed" }[action]}`, error);
  } finally {
    row.busy = false;
    row.showActions();
    reader.mark(id);
  }
}

function main() {
  const list = new List();
  const reader = new Reader(list);
  const log = new LogPanel();
  const upload = new UploadDialog(reader);
  const schedule = new ScheduleDialog(reader);
  const deletion = new DeleteDialog(reader);
  list.onChange = (strategy, id) => {
    log.changed(strategy, id);
    deletion.changed(strategy, id);
  };
  $("rows").addEventListener("click", (event) => {
    const button = /** @type {Element} */ (event.target).closest("button");
    const row = list.rows.get(button?.closest("tr")?.dataset.id ?? "");
    if (!button || !row || !enabled(button)) return;
    const action = button.dataset.action ?? "";
    if (action === "log") log.open(row.strategy, button);
    else if (action === "schedule") schedule.begin(row.strategy);
    else if (action === "delete") deletion.begin(row.strategy);
    else command(row, action, reader);
  });
  wireFilter(list);
  write($("example"), EXAMPLE);
  $("open-upload").addEventListener("click", () => upload.begin());
  $("empty-choose").addEventListener("click", () => upload.begin());
  $("use-example").addEventListener("click", () => upload.begin(new File([EXAMPLE], "heartbeat.py", { type: "text/x-python" })));
  new Stream(reader);
  everySecond(() => document.body.classList.contains("stale") || list.tick(Date.now()));
}

/** @param {List} list */
function wireFilter(list) {
  /** @type {HTMLInputElement} */
  const input = $("filter");
  input.addEventListener("input", () => {
    list.text = input.value.trim().toLowerCase();
    list.filter();
  });
  $("clear-filter").addEventListener("click", () => {
    input.value = list.text = list.status = "";
    list.filter();
    input.focus();
  });
  document.addEventListener("keydown", (event) => {
    const typing = /** @type {Element} */ (event.target).closest("input, textarea, dialog");
    if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    input.focus();
  });
}

/** @param {() => void} act On the second; a hidden page catches up when it is seen again. */
function everySecond(act) {
  const next = () => {
    if (!document.hidden) act();
    setTimeout(next, 1000 - (Date.now() % 1000));
  };
  document.addEventListener("visibilitychange", act);
  next();
}

main();
