// @ts-check
/**
 * The page: strategies, live. It shows what the server says and nothing it merely hopes for.
 *
 * An event says only which strategy has changed; its row is then read again.
 */

/** @import {Me} from "./api.js" */
/** @import {Row} from "./row.js" */
import { address, ask } from "./api.js";
import { DeleteDialog } from "./delete.js";
import { $, enabled } from "./dom.js";
import { Events } from "./events.js";
import { LimitsDialog } from "./limits.js";
import { List } from "./list.js";
import { LogPanel } from "./log.js";
import { Menu } from "./menu.js";
import { complain, toast } from "./messages.js";
import { Reader } from "./reader.js";
import { RunsDialog } from "./runs.js";
import { ScheduleDialog } from "./schedule.js";
import { StopAllDialog } from "./stopall.js";
import { ShareDialog, VariablesDialog } from "./strategy_dialogs.js";
import { everySecond } from "./time.js";
import { UploadDialog } from "./upload.js";
import { User } from "./user.js";
import { mayEdit } from "./words.js";

/** @type {Record<string, string>} */
const DONE = { start: "started", stop: "stopped", restart: "restarted", resume: "resumed" };

const list = new List((strategy, id) => {
  log.changed(strategy, id);
  deletion.changed(strategy, id);
});
const reader = new Reader(list);
const log = new LogPanel();
const schedule = new ScheduleDialog(reader);
const deletion = new DeleteDialog(reader);
const variables = new VariablesDialog();
const share = new ShareDialog();
const limits = new LimitsDialog(reader);
const runs = new RunsDialog();
const upload = new UploadDialog(reader);
const stopAll = new StopAllDialog(list, reader);
const menu = new Menu();
const user = new User(menu, allow, (me) => stopAll.begin(me));
user.read();
new Events(reader, () => user.read());

$("rows").addEventListener("click", (event) => {
  const button = /** @type {Element} */ (event.target).closest("button");
  const row = list.rows.get(button?.closest("tr")?.dataset.id ?? "");
  if (button && row && enabled(button)) act(row, button);
});
everySecond(() => document.body.classList.contains("stale") || list.tick(Date.now()));

/** @param {Me} me */
function allow({ scopes }) {
  list.uploads = upload.allowed = scopes.includes("edit");
  $("open-upload").hidden = !upload.allowed;
  list.summarise();
}

/** @param {Row} row @param {HTMLElement} button */
function act(row, button) {
  const action = button.dataset.action ?? "";
  if (action === "log") log.open(row.strategy, button);
  else if (action === "schedule") schedule.begin(row.strategy);
  else if (action === "more") more(row, button);
  else command(row, action);
}

/** @param {Row} row @param {HTMLElement} button */
function more(row, button) {
  const past = { text: "Runs…", act: () => runs.begin(row.strategy) };
  menu.toggle(button, !mayEdit(row.strategy) ? [past] : [
    { text: "Variables…", act: () => variables.begin(row.strategy) },
    { text: "Limits…", act: () => limits.begin(row.strategy) },
    past,
    { text: "Share…", act: () => share.begin(row.strategy) },
    { text: "Delete…", act: () => deletion.begin(row.strategy), danger: true },
  ]);
}

/** @param {Row} row @param {string} action */
async function command(row, action) {
  const { id, name } = row.strategy;
  row.setBusy(true);
  try {
    const { note } = await ask(address(action, id), { method: "POST" });
    if (note) toast(`${name}: ${note}`);
  } catch (error) {
    complain(`${name} could not be ${DONE[action]}`, error);
  } finally {
    row.setBusy(false);
    reader.mark(id);
  }
}
