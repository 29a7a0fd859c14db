// @ts-check
/** What an owner sets about a strategy: its variables, and with whom it is shared. */

/** @import {Strategy} from "./api.js" */
/** @import {Variable} from "./variables.js" */
import { address, ask, post, remove } from "./api.js";
import { Dialog } from "./dialog.js";
import { $, element, write } from "./dom.js";
import { Entries, deed, entry } from "./entries.js";
import { toast } from "./messages.js";
import { stamp } from "./time.js";
import { Variables } from "./variables.js";
import { capital, isLive } from "./words.js";

/** @typedef {{user: string, permission: "viewer" | "operator", created_at: string}} Share */

export class VariablesDialog extends Dialog {
  constructor() {
    super("variables");
    this.variables = new Variables(this, true);
  }

  /** @param {Strategy} strategy */
  begin(strategy) {
    write($("variables-title"), `Variables of ${strategy.name}`);
    $("variables-live").hidden = !isLive(strategy);
    this.variables.begin(address("env", strategy.id));
    this.suggest(strategy);
    this.show();
  }

  /** @param {Strategy} strategy Its owner's secrets; an admin does not know those of others. */
  async suggest(strategy) {
    $("own-secrets").replaceChildren();
    if (strategy.access !== "owner") return;
    /** @type {{variables: Variable[]}} */
    const { variables } = await ask("/auth/env").catch(() => ({ variables: [] }));
    const secrets = variables.filter((one) => one.kind === "secret");
    $("own-secrets").replaceChildren(...secrets.map(({ name }) => {
      const made = element("option", "");
      made.setAttribute("value", name);
      return made;
    }));
  }

  async send() {
    return this.variables.send();
  }
}

export class ShareDialog extends Dialog {
  constructor() {
    super("share");
    this.id = "";
    /** @type {Entries<Share>} */
    this.entries = new Entries(this.el, (one) => this.line(one));
  }

  /** @param {Strategy} strategy */
  begin(strategy) {
    this.id = strategy.id;
    write($("share-title"), `Share ${strategy.name}`);
    this.form.reset();
    this.entries.say("Reading…");
    this.read();
    this.show();
  }

  read() {
    const { id } = this;
    return this.entries.load(async () => (await ask(address("shares", id))).shares);
  }

  /** @param {Share} one */
  line({ user, permission, created_at: at }) {
    const ending = deed("Remove", user, async () => {
      await remove(address("share", this.id, { user }));
      toast(`${user} does not see it any more.`);
      await this.read();
    });
    return entry(user, [`Since ${stamp(Date.parse(at))}`], [ending], [capital(permission)]);
  }

  async send() {
    const user = this.value("user").trim();
    await post(address("share", this.id), { user, permission: this.value("permission") });
    toast(`It is shared with ${user}.`);
    this.form.reset();
    await this.read();
    return true;
  }
}
