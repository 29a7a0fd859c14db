// @ts-check
/** Where the user is signed in, and the tokens of their programs. */

import { ask, post, remove } from "./api.js";
import { confirmation } from "./asking.js";
import { Dialog } from "./dialog.js";
import { $ } from "./dom.js";
import { Entries, deed, entry } from "./entries.js";
import { toast } from "./messages.js";
import { reveal } from "./reveal.js";
import { signOut } from "./session.js";
import { ago, stamp } from "./time.js";

/** @typedef {{id: string, created_at: string, seen_at: string, expires_at: string, address: string, agent: string, current: boolean}} Session */
/** @typedef {{id: string, name: string, scopes: string[], created_at: string, expires_at: ?string}} Token */

/** @type {[RegExp, string][]} The first that matches counts: each browser claims to be others, too. */
const BROWSERS = [[/Edg/, "Edge"], [/OPR/, "Opera"], [/Firefox/, "Firefox"], [/Chrome/, "Chrome"], [/Safari/, "Safari"]];
/** @type {[RegExp, string][]} */
const SYSTEMS = [[/Android/, "Android"], [/iPhone|iPad/, "iOS"], [/Windows/, "Windows"], [/Mac OS/, "macOS"], [/Linux/, "Linux"]];

/** @param {string} agent */
function agentWords(agent) {
  const [browser, system] = [BROWSERS, SYSTEMS].map((all) => all.find(([sign]) => sign.test(agent))?.[1]);
  if (browser) return system ? `${browser} on ${system}` : browser;
  return agent.slice(0, 80) || "Unknown browser";
}

export class Sessions {
  constructor() {
    /** @type {Entries<Session>} */
    this.entries = new Entries($("sessions"), (one) => this.line(one));
    this.others = deed("Sign out all others", "", async () => {
      await remove("/auth/sessions");
      toast("You are signed out everywhere else.");
      await this.read();
    });
    this.others.hidden = true;
    $("sessions-actions").append(this.others);
  }

  async read() {
    await this.entries.load(async () => (await ask("/auth/sessions")).sessions);
    this.others.hidden = this.entries.all.length < 2;
  }

  /** @param {Session} one */
  line(one) {
    const name = agentWords(one.agent);
    const seen = one.current ? "in use now" : `last seen ${ago(Date.now() - Date.parse(one.seen_at))}`;
    const sub = `${one.address} · ${seen} · since ${stamp(Date.parse(one.created_at))}`;
    const ending = deed("Sign out", one.current ? "here" : name, async () => {
      if (one.current) return signOut();
      await remove(`/auth/sessions/${encodeURIComponent(one.id)}`);
      toast(`${name} is signed out.`);
      await this.read();
    });
    return entry(name, [sub], [ending], one.current ? ["This one"] : []);
  }
}

export class Tokens {
  constructor() {
    /** @type {Entries<Token>} */
    this.entries = new Entries($("tokens"), (one) => this.line(one));
    const making = new NewTokenDialog(this);
    $("tokens-new").addEventListener("click", () => making.begin());
  }

  read() {
    return this.entries.load(async () => (await ask("/auth/tokens")).tokens);
  }

  /** @param {Token} one */
  line(one) {
    const { name, scopes, created_at: created, expires_at: expires } = one;
    const over = expires !== null && Date.parse(expires) < Date.now();
    const until = expires ? `${over ? "expired" : "expires"} ${stamp(Date.parse(expires))}` : "never expires";
    const ending = deed("Revoke", name, async () => this.revoke(one));
    return entry(name, [`Made ${stamp(Date.parse(created))} · ${until}`], [ending], over ? ["Expired"] : scopes);
  }

  /** @param {Token} one */
  revoke({ id, name }) {
    confirmation.ask(`Revoke ${name}?`, "What uses it is refused at once. This cannot be undone.", "Revoke", async () => {
      await remove(`/auth/tokens/${encodeURIComponent(id)}`);
      toast(`${name} is revoked.`);
      await this.read();
    });
  }
}

class NewTokenDialog extends Dialog {
  /** @param {Tokens} tokens */
  constructor(tokens) {
    super("new-token");
    this.tokens = tokens;
  }

  begin() {
    this.form.reset();
    this.show();
  }

  async send() {
    const given = new FormData(this.form);
    const days = this.value("expires_days");
    const asked = { name: this.value("name").trim(), scopes: given.getAll("scopes"), expires_days: days ? Number(days) : null };
    const { token, value } = await post("/auth/tokens", asked);
    this.tokens.read();
    this.dialog.close();
    reveal.tell(`Token ${token.name}`, "Copy it now: it is not shown again.", value);
  }
}
