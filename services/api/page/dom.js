// @ts-check
/** The document. Data reaches it as text, never as markup: `trusted-types 'none'` refuses the rest. */

/** @template {HTMLElement} [T=HTMLElement] @param {string} id @returns {T} */
export const $ = (id) => /** @type {T} */ (document.getElementById(id));

/** @template {Element} [T=HTMLElement] @param {ParentNode} root @param {string} selector @returns {T} */
export const find = (root, selector) => /** @type {T} */ (root.querySelector(selector));

/**
 * The elements that have a `data-<key>`, by its value.
 * @param {ParentNode} root @param {string} key @returns {Record<string, HTMLElement>}
 */
export function named(root, key) {
  /** @type {NodeListOf<HTMLElement>} */
  const elements = root.querySelectorAll(`[data-${key}]`);
  return Object.fromEntries([...elements].map((one) => [one.dataset[key], one]));
}

/** @param {Node} node @param {string} text Written only when it differs: a tick costs nothing. */
export function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** @param {HTMLElement} node @param {string} text Broken between its words alone, not at a hyphen. */
export function writeWords(node, text) {
  if (node.textContent === text) return;
  const words = text.split(" ").flatMap((word) => [" ", element("span", "whole-word", word)]);
  node.replaceChildren(...words.slice(1));
}

/** @param {HTMLElement} node @param {string} text */
export function hint(node, text) {
  if (node.title !== text) node.title = text;
}

/** @param {string} tag @param {string} className @param {string} [text] */
export function element(tag, className, text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

/** @param {string} className @param {string} text @param {() => void} act */
export function button(className, text, act) {
  const made = element("button", className, text);
  made.setAttribute("type", "button");
  made.addEventListener("click", act);
  return made;
}

/**
 * A button that cannot be pressed keeps the focus, so that the keyboard does not lose its place.
 * @param {HTMLElement} button @param {boolean} enabled
 */
export function enable(button, enabled) {
  button.setAttribute("aria-disabled", String(!enabled));
}

/** @param {Element} button */
export const enabled = (button) => button.getAttribute("aria-disabled") !== "true";
