// @ts-check
/** Which strategies are shown: those with a text, and those with a status, each with its number. */

/** @import {Strategy} from "./api.js" */
import { $, button, element, write } from "./dom.js";
import { capital, ownerWords } from "./words.js";

export class Filter {
  /** @param {string[]} statuses @param {() => void} onChange */
  constructor(statuses, onChange) {
    this.onChange = onChange;
    this.text = "";
    this.status = "";
    /** @type {HTMLInputElement} */
    this.input = $("filter");
    this.chips = new Map(["", ...statuses].map((status) => [status, this.makeChip(status)]));
    $("chips").append(...this.chips.values());
    this.input.addEventListener("input", () => this.set(this.input.value, this.status));
    $("clear-filter").addEventListener("click", () => {
      this.input.value = "";
      this.set("", "");
      this.input.focus();
    });
    document.addEventListener("keydown", (event) => this.pressed(event));
  }

  /** @param {string} status */
  makeChip(status) {
    const chip = button("chip", "", () => this.set(this.text, this.status === status ? "" : status));
    chip.dataset.status = status;
    chip.hidden = status !== "";
    chip.append(element("span", "", status ? capital(status) : "All"), element("b", ""));
    return chip;
  }

  /** @param {KeyboardEvent} event A slash, unless it is written somewhere. */
  pressed(event) {
    const typing = /** @type {Element} */ (event.target).closest("input, textarea, dialog");
    if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    this.input.focus();
  }

  /** @param {string} text @param {string} status Each may be empty. */
  set(text, status) {
    this.text = text.trim().toLowerCase();
    this.status = status;
    this.onChange();
  }

  /** @param {Strategy} s */
  matches(s) {
    if (this.status && s.status !== this.status) return false;
    const words = [s.name, s.id, s.exchange ?? "", s.reason, s.version.filename, ownerWords(s)];
    return !this.text || words.join("\n").toLowerCase().includes(this.text);
  }

  /** @param {Map<string, number>} counts How many there are of each status, and of all: "". */
  show(counts) {
    for (const [status, chip] of this.chips) {
      const count = counts.get(status) ?? 0;
      chip.hidden = status !== "" && count === 0 && status !== this.status;
      chip.setAttribute("aria-pressed", String(status === this.status));
      write(/** @type {Element} */ (chip.lastElementChild), String(count));
    }
  }
}
