// @ts-check
/** Signing in, and going on to where the user was. */

import { ask, post } from "./api.js";
import { $ } from "./dom.js";
import { Form } from "./form.js";

class LoginForm extends Form {
  async send() {
    await post("/auth/login", { name: this.value("name").trim(), password: this.value("password") });
    goOn();
    return true;
  }

  /** @param {unknown} error */
  fail(error) {
    super.fail(error);
    if (!this.el.querySelector("[aria-invalid]")) /** @type {HTMLInputElement} */ ($("password")).select();
  }
}

const told = new URLSearchParams(location.hash.slice(1));
$("login-over").hidden = !told.has("over");
new LoginForm($("login"));
if (document.cookie.includes("openbell_csrf=")) ask("/auth/me").then(goOn, () => {}); // signed in already

/** Within Openbell, whatever the address says. */
function goOn() {
  const next = told.get("next") ?? "/";
  const target = URL.canParse(next, location.origin) ? new URL(next, location.origin) : null;
  const elsewhere = target?.origin !== location.origin || ["/login", "/join"].includes(target.pathname);
  location.replace(elsewhere ? "/" : target.href);
}
