// @ts-check
/** The user in the page's header, and what is theirs to do. */

/** @import {Me} from "./api.js" */
/** @import {Menu} from "./menu.js" */
import { ask } from "./api.js";
import { $, hint, write } from "./dom.js";
import { signOut } from "./session.js";
import { capital } from "./words.js";

export class User {
  /** @param {Menu} menu @param {(me: Me) => void} onChange @param {(me: Me) => void} stopAll */
  constructor(menu, onChange, stopAll) {
    this.onChange = onChange;
    /** @type {Me | null} */
    this.me = null;
    $("user").addEventListener("click", () => {
      const { me } = this;
      if (!me) return;
      menu.toggle($("user"), [
        { text: "Calendar", href: "/markets" },
        { text: "Runners", href: "/runners" },
        { text: "Account", href: "/account" },
        ...(me.scopes.includes("operate") ? [{ text: "Stop all…", act: () => stopAll(me), danger: true }] : []),
        { text: "Sign out", act: signOut },
      ], `${me.user.name} · ${capital(me.user.role)}`);
    });
  }

  /** Whoever is not signed in is led away by this. */
  async read() {
    /** @type {Me} */
    let me;
    try {
      me = await ask("/auth/me");
    } catch {
      return; // the connection's state tells the user
    }
    if (JSON.stringify(me) === JSON.stringify(this.me)) return;
    this.me = me;
    const { name } = me.user;
    write($("user-name"), name);
    write($("user-initial"), ([...name][0] ?? "?").toUpperCase());
    hint($("user"), name);
    $("user").setAttribute("aria-label", `Menu of ${name}`);
    $("user").hidden = false;
    this.onChange(me);
  }
}
