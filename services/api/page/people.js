// @ts-check
/** For admins: who there is, and the links by which others come. */

import { ask, post, remove } from "./api.js";
import { confirmation } from "./asking.js";
import { Dialog } from "./dialog.js";
import { $, button } from "./dom.js";
import { Entries, deed, entry } from "./entries.js";
import { Menu } from "./menu.js";
import { complain, toast } from "./messages.js";
import { reveal } from "./reveal.js";
import { stamp } from "./time.js";
import { capital } from "./words.js";

/** @typedef {{id: string, name: string, role: string, created_at: string, disabled_at: ?string, claimed: boolean}} Person */
/** @typedef {{id: string, role: string, user_id: ?string, expires_at: string}} Invitation */

const LOCAL = "local"; // the account of the machine itself: it remains an admin
const ROLES = ["admin", "trader", "viewer"];
const ONCE = "Give it to them alone: whoever opens it first can use it, once.";

/** @param {string} path */
const link = (path) => location.origin + path;

export class People {
  constructor() {
    this.me = "";
    this.menu = new Menu();
    /** @type {Entries<Person>} */
    this.users = new Entries($("users"), (one) => this.line(one));
    /** @type {Entries<Invitation>} */
    this.invitations = new Entries($("invitations"), (one) => this.invitation(one));
    const inviting = new InviteDialog(this);
    $("people-invite").addEventListener("click", () => inviting.show());
  }

  /** @param {string} me The id of the user. */
  async read(me = this.me) {
    this.me = me;
    await this.users.load(async () => (await ask("/admin/users")).users);
    await this.invitations.load(async () => (await ask("/admin/invitations")).invitations);
  }

  /** @param {Person} one */
  line(one) {
    const facts = [`Since ${stamp(Date.parse(one.created_at))}`];
    if (one.disabled_at) facts.push(`disabled ${stamp(Date.parse(one.disabled_at))}`);
    if (!one.claimed) facts.push("has no password yet");
    const more = button("button small", "Change", () => this.open(one, more));
    more.setAttribute("aria-label", `Change ${one.name}`);
    more.setAttribute("aria-haspopup", "menu");
    more.setAttribute("aria-expanded", "false");
    const tags = [capital(one.role), ...(one.id === this.me ? ["You"] : []), ...(one.disabled_at ? ["Disabled"] : [])];
    return entry(one.name, [facts.join(" · ")], [more], tags);
  }

  /** @param {Person} one @param {HTMLElement} opener */
  open(one, opener) {
    const remains = one.id === LOCAL;
    const others = remains ? [] : ROLES.filter((role) => role !== one.role);
    const ending = one.disabled_at ? { text: "Enable", act: () => this.enable(one) } : { text: "Disable…", act: () => this.disable(one), danger: true };
    this.menu.toggle(opener, [
      ...others.map((role) => ({ text: `Make ${role}…`, act: () => this.giveRole(one, role) })),
      { text: "Link for a new password", act: () => this.reset(one) },
      ...(remains && !one.disabled_at ? [] : [ending]),
    ]);
  }

  /** @param {Person} one @param {string} role */
  giveRole({ id, name }, role) {
    const text = { admin: "They then see and do everything.", trader: "They then own strategies.", viewer: "They then only see what is shared." }[role] ?? "";
    confirmation.ask(`Make ${name} ${role}?`, text, `Make ${role}`, async () => {
      await post(`/admin/role/${encodeURIComponent(id)}`, { role });
      toast(`${name} is ${role} now.`);
      await this.read();
    });
  }

  /** @param {Person} one */
  disable({ id, name }) {
    const text = "They are signed out at once, and their tokens are refused. What they have running goes on.";
    confirmation.ask(`Disable ${name}?`, text, "Disable", async () => {
      await post(`/admin/disable/${encodeURIComponent(id)}`);
      toast(`${name} is disabled.`);
      await this.read();
    });
  }

  /** @param {Person} one */
  async enable({ id, name }) {
    try {
      await post(`/admin/enable/${encodeURIComponent(id)}`);
      await this.read();
    } catch (error) {
      complain(`${name} could not be enabled`, error);
    }
  }

  /** @param {Person} one */
  async reset({ id, name }) {
    try {
      const { path } = await post(`/admin/reset/${encodeURIComponent(id)}`);
      reveal.tell(`A new password for ${name}`, `With this link they choose it. ${ONCE}`, link(path));
      await this.read();
    } catch (error) {
      complain(`No link could be made for ${name}`, error);
    }
  }

  /** @param {Invitation} one */
  invitation({ id, role, user_id: user, expires_at: expires }) {
    const whose = this.users.all.find((known) => known.id === user);
    const password = whose && !whose.claimed ? "Setup of the first account" : `New password for ${whose?.name ?? "an account"}`;
    const name = user ? password : `Invitation as ${role}`;
    const ending = deed("Withdraw", name.toLowerCase(), async () => {
      await remove(`/admin/invitations/${encodeURIComponent(id)}`);
      toast("The link does not work any more.");
      await this.read();
    });
    return entry(name, [`Works once, until ${stamp(Date.parse(expires))}`], [ending]);
  }
}

class InviteDialog extends Dialog {
  /** @param {People} people */
  constructor(people) {
    super("invite");
    this.people = people;
  }

  async send() {
    const { path, role, expires_at: expires } = await post("/admin/invitations", { role: this.value("role") });
    this.people.read();
    this.dialog.close();
    reveal.tell(`Invitation as ${role}`, `It works until ${stamp(Date.parse(expires))}, and is not shown again. ${ONCE}`, link(path));
  }
}
