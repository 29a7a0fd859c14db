// @ts-check
/** The page of an account: its password, credentials, variables and audit; for admins, people. */

/** @import {Me} from "./api.js" */
import { Problem, ask, post } from "./api.js";
import { Audit } from "./audit.js";
import { Sessions, Tokens } from "./credentials.js";
import { $, write } from "./dom.js";
import { Form } from "./form.js";
import { toast } from "./messages.js";
import { People } from "./people.js";
import { signOut } from "./session.js";
import { Variables } from "./variables.js";
import { capital } from "./words.js";

class PasswordForm extends Form {
  async send() {
    await post("/auth/password", { current: this.value("current"), new: this.value("new") });
    this.form.reset();
    toast("Your password is changed.");
    sessions.read();
  }

  /** @param {unknown} error */
  fail(error) {
    const wrong = error instanceof Problem && error.code === "wrong_password";
    super.fail(wrong ? new Problem(error.message, [{ field: "current", message: "this is not your password" }]) : error);
  }
}

class VariablesForm extends Form {
  constructor() {
    super($("variables"));
    this.variables = new Variables(this, false);
  }

  async send() {
    return this.variables.send();
  }
}

const sessions = new Sessions();
const tokens = new Tokens();
const audit = new Audit();
const people = new People();
const { variables } = new VariablesForm();
new PasswordForm($("you"));
variables.begin("/auth/env");
$("sign-out").addEventListener("click", signOut);
readAll();
document.addEventListener("visibilitychange", () => document.hidden || readAll());

async function readAll() {
  for (const section of [sessions, tokens, variables, audit]) section.read();
  /** @type {Me} */
  const me = await ask("/auth/me").catch(() => null);
  if (!me) return; // each section tells that the server does not answer
  const { name, role } = me.user;
  write($("you-text"), `You are signed in as ${name}.`);
  write($("you-role"), capital(role));
  $("you-role").hidden = false;
  /** @type {HTMLInputElement} */ ($("you-name")).value = name;
  const admin = role === "admin" && me.scopes.includes("admin");
  $("people").hidden = $("people-link").hidden = $("audit-all").hidden = !admin;
  if (admin) people.read(me.user.id);
}
