// @ts-check
/** A list with a line for each thing, and a word when there is none. */

import { told } from "./api.js";
import { button, element, enable, enabled, find, write } from "./dom.js";
import { complain } from "./messages.js";
import { capital } from "./words.js";

/** @template T */
export class Entries {
  /**
   * @param {HTMLElement} root Has `[data-entries]` and, for the lack of them, `[data-none]`.
   * @param {(one: T) => HTMLElement} make
   */
  constructor(root, make) {
    this.el = find(root, "[data-entries]");
    this.none = find(root, "[data-none]");
    this.usual = this.none.textContent ?? "";
    this.make = make;
    this.ticket = 0;
    this.shown = "";
    /** @type {T[]} */
    this.all = [];
  }

  /** @param {() => Promise<T[]>} read */
  async load(read) {
    const ticket = ++this.ticket;
    try {
      const all = await read();
      if (ticket === this.ticket) this.show(all);
    } catch (error) {
      if (ticket === this.ticket) this.say(told(error));
    }
  }

  /** @param {string} text Instead of the list. */
  say(text) {
    this.shown = "";
    this.el.replaceChildren();
    write(this.none, capital(text));
    this.none.hidden = false;
  }

  /** @param {T[]} all The focus stays where it was, though its line may be gone. */
  show(all) {
    const now = JSON.stringify(all);
    if (now === this.shown) return;
    this.shown = now;
    this.all = all;
    const at = [...this.el.children].findIndex((one) => one.contains(document.activeElement));
    this.el.replaceChildren(...all.map(this.make));
    write(this.none, this.usual);
    this.none.hidden = all.length > 0;
    /** @type {HTMLElement | null | undefined} */
    const next = this.el.children[Math.min(at, all.length - 1)]?.querySelector("button");
    if (at >= 0) next?.focus();
  }
}

/** @param {string} name @param {(Node | string)[]} sub @param {HTMLElement[]} [actions] @param {string[]} [tags] */
export function entry(name, sub, actions = [], tags = []) {
  const made = element("li", "entry");
  const text = element("div", "entry-text");
  const head = element("span", "entry-head");
  head.append(element("b", "entry-name", name), ...tags.map((tag) => element("span", "tag", tag)));
  const below = element("span", "sub");
  below.append(...sub);
  text.append(head, ...(sub.length ? [below] : []));
  made.append(text);
  if (actions.length) {
    const place = element("span", "entry-actions");
    place.append(...actions);
    made.append(place);
  }
  return made;
}

/**
 * A button that does something to a line's thing, once at a time.
 * @param {string} text @param {string} thing @param {() => Promise<unknown>} act
 */
export function deed(text, thing, act) {
  const label = `${text} ${thing}`.trim();
  const made = button("button small", text, async () => {
    if (!enabled(made)) return;
    enable(made, false);
    try {
      await act();
    } catch (error) {
      complain(label, error);
    } finally {
      enable(made, true);
    }
  });
  made.setAttribute("aria-label", label);
  return made;
}
