// @ts-check
/** The page of the calendar: what is open, which days differ, and what admins say of single days. */

/** @import {Me} from "./api.js" */
import { ask } from "./api.js";
import { $ } from "./dom.js";
import { Exchanges } from "./exchanges.js";
import { MarketDays } from "./market_days.js";
import { MarketOverrides } from "./market_overrides.js";
import { MarketsNow } from "./markets_now.js";
import { signOut } from "./session.js";

const exchanges = new Exchanges();
const now = new MarketsNow(exchanges);
const days = new MarketDays(exchanges);
const overrides = new MarketOverrides(() => {
  now.read();
  days.read();
});
exchanges.onRead = () => {
  now.tick();
  days.tell();
};
$("sign-out").addEventListener("click", signOut);
readAll();
document.addEventListener("visibilitychange", () => document.hidden || readAll());

async function readAll() {
  for (const section of [exchanges, now, days, overrides]) section.read();
  /** @type {Me} */
  const me = await ask("/auth/me").catch(() => null);
  if (me) overrides.allow(me.user.role === "admin" && me.scopes.includes("admin")); // else each section tells
}
