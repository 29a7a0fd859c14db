// @ts-check
/** Variables: their names and kinds; a value is only ever written. */

/** @import {FieldError} from "./api.js" */
/** @import {Form} from "./form.js" */
import { Problem, ask, post } from "./api.js";
import { element, find } from "./dom.js";
import { Entries, deed, entry } from "./entries.js";
import { toast } from "./messages.js";
import { stamp } from "./time.js";
import { capital } from "./words.js";

/** @typedef {{name: string, kind: "parameter" | "secret" | "use", source: ?string, updated_at: string}} Variable */

const PLACE = { parameter: "parameters", secret: "secrets", use: "uses" };

/** The part of a form that lists variables, sets and removes them. */
export class Variables {
  /** @param {Form} owner @param {boolean} uses Whether they may be taken from the user's own. */
  constructor(owner, uses) {
    this.owner = owner;
    this.uses = uses;
    this.path = "";
    /** @type {Entries<Variable>} */
    this.entries = new Entries(owner.el, (one) => this.line(one));
    owner.form.addEventListener("change", () => this.showKind());
  }

  /** @param {string} path Where they are read and written. */
  begin(path) {
    this.path = path;
    this.entries.say("Reading…");
    this.owner.form.reset();
    this.showKind();
    return this.read();
  }

  read() {
    const { path } = this;
    return this.entries.load(async () => (await ask(path)).variables);
  }

  /** @param {Variable} one */
  line(one) {
    const what = one.kind === "use" ? "Your secret " : capital(one.kind);
    const sub = one.source ? [what, element("code", "", one.source)] : [what];
    const taking = deed("Remove", one.name, () => this.write({ remove: [one.name] }, `${one.name} is removed.`));
    const made = entry(one.name, [...sub, ` · set ${stamp(Date.parse(one.updated_at))}`], [taking]);
    made.classList.add("variable");
    return made;
  }

  showKind() {
    const kind = this.owner.value("kind");
    const { form } = this.owner;
    find(form, "[data-field=value]").hidden = kind === "use";
    find(form, "[data-field=value]").classList.toggle("masked", kind === "secret");
    if (this.uses) find(form, "[data-field=source]").hidden = kind !== "use";
  }

  /** What the form says. */
  async send() {
    const { owner } = this;
    const [name, kind] = [owner.value("name").trim(), owner.value("kind")];
    if (!name) throw wrong("name", "write a name, like API_KEY");
    const value = kind === "use" ? owner.value("source").trim() : owner.value("value");
    if (kind === "use" && !value) throw wrong("source", "write the name of one of your secrets");
    const place = PLACE[/** @type {Variable["kind"]} */ (kind)];
    try {
      await this.write({ [place]: { [name]: value } }, `${name} is set.`);
    } catch (error) {
      throw atFields(error, kind === "use" ? "source" : "value");
    }
    owner.form.reset();
    /** @type {HTMLInputElement} */ (find(owner.form, `[name=kind][value=${kind}]`)).checked = true;
    this.showKind();
    find(owner.form, "[name=name]").focus();
    return true;
  }

  /** @param {Record<string, unknown>} change @param {string} done */
  async write(change, done) {
    const nothing = { parameters: {}, secrets: {}, remove: [], ...(this.uses ? { uses: {} } : {}) };
    const { note } = await post(this.path, { ...nothing, ...change });
    toast(note ? `${done} ${capital(note)}` : done);
    await this.read();
  }
}

/** @param {unknown} error The server names a value as it was sent: secrets.API_KEY. @param {string} field Where values are written. */
function atFields(error, field) {
  if (!(error instanceof Problem)) return error;
  const errors = error.errors.map((one) => {
    const sent = Object.values(PLACE).includes(one.field.split(".")[0]);
    return sent ? { ...one, field: one.message.startsWith("this name") ? "name" : field } : one;
  });
  const { status, code, retryAfter } = error;
  return new Problem(error.message, errors, { status, code, retryAfter });
}

/** @param {string} field @param {string} message */
const wrong = (field, message) => new Problem(message, [{ field, message }]);
