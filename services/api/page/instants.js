// @ts-check
/**
 * The start and the stop of what runs once. A browser edits a local time; kept may be one with an
 * offset. So what nobody touched is sent as it was kept.
 */

import { localDay, zoneClock } from "./time.js";

const OFFSET = /(Z|[+-]\d{2}:?\d{2})$/;

export class Instants {
  /** @param {HTMLInputElement} at @param {HTMLInputElement} stop @param {HTMLInputElement} zone */
  constructor(at, stop, zone) {
    this.inputs = { at, stop };
    this.zone = zone;
    this.offset = "";
    this.filled = "";
    /** @type {Record<string, unknown>} */
    this.kept = {};
  }

  /** @param {Record<string, unknown>} schedule */
  fill(schedule) {
    this.kept = schedule.kind === "once" ? schedule : {};
    const zone = String(this.kept.timezone ?? "");
    this.offset = (!zone && String(this.kept.at ?? "").match(OFFSET)?.[0]) || "";
    for (const name of /** @type {const} */ (["at", "stop"])) {
      const kept = this.kept[name];
      this.inputs[name].value = typeof kept === "string" ? local(kept, zone, this.offset) : "";
    }
    this.filled = this.written();
  }

  /** In which they were written, if that was with an offset. */
  zoneName() {
    return this.offset && `UTC${this.offset.replace("Z", "")}`;
  }

  written() {
    const { at, stop } = this.inputs;
    return JSON.stringify([at.value, stop.value, this.zone.value.trim()]);
  }

  /** @returns {{at: string, stop: ?string}} */
  read() {
    const { at, stop } = this.inputs;
    if (this.kept.at && this.written() === this.filled) return { at: String(this.kept.at), stop: /** @type {?string} */ (this.kept.stop ?? null) };
    const suffix = this.zone.value.trim() ? "" : this.offset;
    const [start, end] = [at.value, stop.value].map((value) => value && value + suffix);
    return { at: start, stop: end || null };
  }
}

/**
 * As an input takes it: in the zone, if one is named; else with the offset that both have.
 * @param {string} kept @param {string} zone @param {string} offset
 */
function local(kept, zone, offset) {
  const own = kept.match(OFFSET)?.[0];
  const wall = kept.replace(OFFSET, "").replace(/(\.\d{3})\d+$/, "$1").replace(/(:\d{2}):00(\.0+)?$/, "$1");
  if (!own || own === offset) return wall;
  if (!zone) return new Date(Date.parse(kept) + minutes(offset) * 60_000).toISOString().slice(0, 19);
  return `${localDay(kept, zone)}T${zoneClock(kept, zone)}`;
}

/** @param {string} offset */
function minutes(offset) {
  if (offset === "Z") return 0;
  const [, sign, hours, rest] = offset.match(/([+-])(\d{2}):?(\d{2})/) ?? [];
  return (sign === "-" ? -1 : 1) * (Number(hours) * 60 + Number(rest));
}
