// @ts-check
/** What a link is for: the first account, another account, or a new password. */

import { Problem, post, told } from "./api.js";
import { $, write } from "./dom.js";
import { Form } from "./form.js";
import { capital } from "./words.js";

/** @typedef {{purpose: "setup" | "invitation" | "password", role: string, name: ?string}} Link */

/** @type {Record<Link["purpose"], (link: Link) => [string, string, string]>} */
const WORDS = {
  setup: () => ["Set up Openbell", "You are its admin: choose your name and a password.", "Create account"],
  invitation: ({ role }) => ["You are invited", `You join as a ${role}: choose your name and a password.`, "Create account"],
  password: ({ name }) => ["Choose a new password", `For the account of ${name}. Setting it signs you out everywhere else.`, "Set password"],
};

class JoinForm extends Form {
  constructor() {
    super($("join"));
    this.token = "";
    $("join-again").addEventListener("click", () => this.look());
    window.addEventListener("hashchange", () => this.take());
    this.take();
  }

  /** Out of the address, where it could be read over a shoulder or kept in a history. */
  take() {
    if (!location.hash) return this.look();
    this.token = location.hash.slice(1);
    history.replaceState(null, "", location.pathname);
    return this.look();
  }

  async look() {
    this.clearErrors();
    $("join-again").hidden = $("join-login").hidden = true;
    if (!this.token) return this.useless("This page needs its whole link", "Open the link that you were given once more.");
    try {
      this.explain(await post("/auth/link", { token: this.token }));
    } catch (error) {
      if (error instanceof Problem && error.code === "unknown_credential") return this.spent();
      this.form.hidden = true;
      this.say(told(error));
      $("join-again").hidden = false;
    }
  }

  /** @param {Link} link */
  explain(link) {
    const [title, text, go] = WORDS[link.purpose](link);
    write($("join-title"), title);
    write($("join-text"), text);
    write(this.go, go);
    $("join-text").hidden = this.form.hidden = false;
    /** @type {HTMLInputElement} */
    const name = $("name");
    name.value = link.name ?? "";
    name.readOnly = link.purpose === "password";
    $(name.value ? "password" : "name").focus();
  }

  spent() {
    this.useless("This link does not work any more", "It was used already, was withdrawn, or has expired. Ask an admin for a new one.");
  }

  /** @param {string} title @param {string} text */
  useless(title, text) {
    write($("join-title"), capital(title));
    write($("join-text"), text);
    this.form.hidden = true;
    $("join-text").hidden = $("join-login").hidden = false;
  }

  async send() {
    await post("/auth/accept", { token: this.token, name: this.value("name").trim(), password: this.value("password") });
    location.replace("/");
    return true;
  }

  /** @param {unknown} error */
  fail(error) {
    if (error instanceof Problem && error.code === "unknown_credential") this.spent();
    else super.fail(error);
  }
}

new JoinForm();
