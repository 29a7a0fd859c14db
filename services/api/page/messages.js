// @ts-check
/** Messages that pass: what was done, and what could not be. */

import { told } from "./api.js";
import { $, button, element } from "./dom.js";

const AT_MOST = 4;

/** @param {string} text @param {"info" | "error"} kind @param {string} about One thing: what was said of it before is over. */
export function toast(text, kind = "info", about = "") {
  settle();
  if (about) $("toasts").querySelector(`[data-about="${CSS.escape(about)}"]`)?.remove();
  const made = element("div", `toast ${kind}`);
  if (about) made.dataset.about = about;
  made.setAttribute("role", kind === "error" ? "alert" : "status");
  made.append(element("p", "", text), button("link", "Dismiss", () => made.remove()));
  $("toasts").append(made);
  if ($("toasts").childElementCount > AT_MOST) $("toasts").firstElementChild?.remove();
  setTimeout(() => made.remove(), kind === "error" ? 20_000 : 7000);
}

/** While a dialog is open, nothing outside it is seen clearly, read out or pressed. */
export function settle() {
  const home = document.querySelector("dialog[open]") ?? document.body;
  if ($("toasts").parentElement !== home) home.append($("toasts"));
}

/** @param {string} what @param {unknown} error */
export function complain(what, error) {
  toast(`${what}: ${told(error)}`, "error");
}
