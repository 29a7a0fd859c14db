// @ts-check
/**
 * Reads what has changed: one read of each strategy at a time, and everything after a gap.
 *
 * Answers may overtake each other. So each read takes a ticket when it is sent, and a row never
 * goes back to an earlier one; a read that was sent before a list does not bring back what the
 * list no longer has.
 */

/** @import {Strategy} from "./api.js" */
/** @import {List} from "./list.js" */
import { Problem, address, ask } from "./api.js";
import { pause } from "./time.js";

const AT_ONCE = 3; // reads of single strategies; a browser has six connections for one host
const STORM = 40; // so many changes are read as one list
const RETRY_MS = 2000;

export class Reader {
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

  /** @param {string} id It has changed. */
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

  /** What could not be seen may be seen again. */
  afresh() {
    this.gone.clear();
    this.all();
  }

  /** Anything may have changed. */
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
      /** @type {{strategies: Strategy[]}} */
      const { strategies } = await ask("/python/");
      this.listTicket = ticket;
      this.list.replace(strategies.filter((s) => !this.gone.has(s.id)), ticket);
      this.onList();
    } catch {
      this.everything = true; // the connection's state tells the user
      await pause(RETRY_MS);
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
        await pause(RETRY_MS);
        if (!this.gone.has(id)) this.wanted.add(id);
      }
    }
    this.reading.delete(id);
    this.go();
  }
}
