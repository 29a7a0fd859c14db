// @ts-check
/** A menu at the button that opens it; one at a time. */

import { element, find } from "./dom.js";

/** @typedef {{text: string, act?: () => void, href?: string, danger?: boolean}} Item */

const GAP = 6;

export class Menu {
  constructor() {
    this.el = element("div", "menu");
    this.el.hidden = true;
    /** @type {HTMLElement | null} */
    this.opener = null;
    document.body.append(this.el);
    this.el.addEventListener("keydown", (event) => this.pressed(event));
    document.addEventListener("pointerdown", (event) => {
      const target = /** @type {Node} */ (event.target);
      if (!this.el.contains(target) && !this.opener?.contains(target)) this.close();
    });
    for (const kind of ["resize", "scroll"]) window.addEventListener(kind, () => this.place(), { passive: true });
  }

  /** @param {HTMLElement} opener @param {Item[]} items @param {string} [heading] */
  toggle(opener, items, heading = "") {
    const again = this.opener === opener;
    this.close();
    if (again) return;
    this.opener = opener;
    opener.setAttribute("aria-expanded", "true");
    const list = element("div", "");
    list.setAttribute("role", "menu");
    list.append(...items.map((item) => this.make(item)));
    this.el.replaceChildren(...(heading ? [element("p", "menu-head", heading)] : []), list);
    this.el.hidden = false;
    this.place();
    find(list, "[role=menuitem]").focus({ preventScroll: true });
  }

  /** @param {Item} item */
  make({ text, act, href, danger }) {
    const made = element(href ? "a" : "button", danger ? "danger" : "", text);
    made.setAttribute("role", "menuitem");
    made.tabIndex = -1;
    if (made instanceof HTMLAnchorElement && href) made.href = href;
    made.addEventListener("click", () => {
      this.close();
      act?.();
    });
    return made;
  }

  /** Below the button and flush with its end; above it where there is no room. */
  place() {
    if (!this.opener) return;
    const at = this.opener.getBoundingClientRect();
    const { offsetWidth: width, offsetHeight: height } = this.el;
    const below = at.bottom + GAP;
    const top = below + height > window.innerHeight ? at.top - GAP - height : below;
    this.el.style.top = `${Math.max(GAP, top)}px`;
    this.el.style.left = `${Math.max(GAP, at.right - width)}px`;
  }

  close() {
    if (!this.opener) return;
    this.opener.setAttribute("aria-expanded", "false");
    if (this.el.contains(document.activeElement)) this.opener.focus({ preventScroll: true });
    this.opener = null;
    this.el.hidden = true;
  }

  /** @param {KeyboardEvent} event */
  pressed(event) {
    /** @type {HTMLElement[]} */
    const items = [...this.el.querySelectorAll("[role=menuitem]")].map((one) => /** @type {HTMLElement} */ (one));
    const here = items.indexOf(/** @type {HTMLElement} */ (document.activeElement));
    /** @type {Record<string, number>} */
    const to = { ArrowDown: here + 1, ArrowUp: here - 1 + items.length, Home: 0, End: items.length - 1 };
    if (event.key === "Escape" || event.key === "Tab") this.close();
    else if (event.key in to) items[to[event.key] % items.length].focus();
    else return;
    event.stopPropagation(); // Escape closes nothing else
    if (event.key !== "Tab") event.preventDefault();
  }
}
