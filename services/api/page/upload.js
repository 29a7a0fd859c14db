// @ts-check
/** How a file becomes a strategy: chosen, or dropped anywhere on the page. */

/** @import {Reader} from "./reader.js" */
import { Problem, ask } from "./api.js";
import { Dialog } from "./dialog.js";
import { $, element, write } from "./dom.js";
import { toast } from "./messages.js";

const EXAMPLE = `import time

beats = 0
while True:
    beats += 1
    print("beat", beats, time.ctime(), flush=True)
    time.sleep(1)
`;

export class UploadDialog extends Dialog {
  /** @param {Reader} reader */
  constructor(reader) {
    super("upload");
    this.reader = reader;
    this.allowed = true;
    /** @type {File | null} */
    this.file = null;
    /** @type {HTMLInputElement} */
    this.name = $("upload-name");
    /** @type {HTMLInputElement} */
    const picker = $("upload-file");
    picker.addEventListener("change", () => {
      if (picker.files?.[0]) this.choose(picker.files[0]);
      picker.value = ""; // so that the same file, mended, can be chosen again
    });
    write($("example"), EXAMPLE);
    const example = new File([EXAMPLE], "heartbeat.py", { type: "text/x-python" });
    $("use-example").addEventListener("click", () => this.begin(example));
    for (const id of ["open-upload", "empty-choose"]) $(id).addEventListener("click", () => this.begin());
    this.dialog.addEventListener("close", () => this.form.reset()); // a secret stays nowhere
    this.listenForDrops();
  }

  /** @param {File} [file] */
  begin(file) {
    this.file = null;
    this.name.placeholder = "As its file";
    $("upload-chosen").replaceChildren("Drop a ", element("code", "", ".py"), " file here, or");
    this.show();
    if (file) this.choose(file);
  }

  /** @param {File} file */
  choose(file) {
    this.clearErrors();
    this.file = file;
    this.name.placeholder = file.name.replace(/\.py$/, "");
    $("upload-chosen").replaceChildren(element("b", "", file.name), ` ${file.size.toLocaleString()} bytes`);
  }

  listenForDrops() {
    let depth = 0;
    /** @param {DragEvent} event */
    const carriesFile = (event) => this.allowed && event.dataTransfer?.types.includes("Files");
    /** @param {number} to */
    const enter = (to) => document.body.classList.toggle("dropping", (depth = Math.max(0, to)) > 0);
    document.addEventListener("dragenter", (event) => carriesFile(event) && enter(depth + 1));
    document.addEventListener("dragleave", (event) => carriesFile(event) && enter(depth - 1));
    document.addEventListener("dragover", (event) => carriesFile(event) && event.preventDefault());
    document.addEventListener("drop", (event) => {
      if (!carriesFile(event)) return;
      event.preventDefault();
      enter(0);
      const file = event.dataTransfer?.files[0];
      if (!file || document.querySelector("dialog[open]:not(#upload)")) return;
      if (this.dialog.open) this.choose(file);
      else this.begin(file);
    });
  }

  clearErrors() {
    super.clearErrors();
    $("upload-excerpt").hidden = true;
  }

  async send() {
    const file = await this.readable();
    const given = new FormData(this.form);
    const body = new FormData();
    body.set("file", file, file.name);
    for (const field of ["parameters", "secrets"]) body.set(field, JSON.stringify(parsePairs(field, String(given.get(field)))));
    for (const name of ["name", "exchange"]) if (given.get(name)) body.set(name, String(given.get(name)));
    const { strategy } = await ask("/python/upload", { method: "POST", body });
    this.reader.mark(strategy.id);
    toast(`${strategy.name} is uploaded. Start it, or give it a schedule.`);
  }

  /** The chosen file. A browser reads no file that was saved again since. */
  async readable() {
    if (!this.file) throw wrong("file", "choose a file first");
    try {
      await this.file.slice(0, 1).arrayBuffer();
    } catch {
      throw wrong("file", "the file has changed since you chose it: choose it again");
    }
    return this.file;
  }

  /** @param {unknown} error */
  fail(error) {
    super.fail(error);
    const place = error instanceof Problem && error.errors.find((one) => one.field === "file" && one.line);
    if (place && place.line) this.showExcerpt(place.line, place.column ?? 0);
  }

  /** @param {number} line @param {number} column The line that cannot be compiled, and where. */
  async showExcerpt(line, column) {
    const text = await this.file?.text().catch(() => ""); // it may have been saved again meanwhile
    const source = text?.split(/\r\n?|\n/)[line - 1];
    if (source === undefined || source.length > 500) return;
    const gutter = `${line} │ `;
    const caret = column ? `\n${" ".repeat(gutter.length)}${source.slice(0, column - 1).replace(/[^\t]/g, " ")}^` : "";
    write($("upload-excerpt"), gutter + source + caret);
    $("upload-excerpt").hidden = false;
  }
}

/** @param {string} field @param {string} text KEY=VALUE lines; empty ones and comments are left out. */
function parsePairs(field, text) {
  /** @type {Map<string, string>} */
  const pairs = new Map();
  for (const [n, line] of text.split("\n").entries()) {
    const trimmed = line.trim();
    if (!trimmed || trimmed.startsWith("#")) continue;
    const [, key, value] = /^([^=\s]+)\s*=\s*(.*)$/.exec(trimmed) ?? [];
    if (!key) throw wrong(field, "write KEY=VALUE", n + 1);
    if (pairs.has(key)) throw wrong(field, `${key} is given twice`, n + 1);
    pairs.set(key, value);
  }
  return Object.fromEntries(pairs);
}

/** @param {string} field @param {string} message @param {number} [line] */
const wrong = (field, message, line) => new Problem(message, [{ field, message, line }]);
