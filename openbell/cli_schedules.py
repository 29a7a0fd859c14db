"""When a strategy runs, and what its schedule will do."""

from datetime import date
from typing import Annotated, Any

import typer
from rich.text import Text

from openbell import client, show
from openbell.cli_options import HERE, Json, Name, Url

app = typer.Typer()

EVERY = {"market", "cron", "interval", "once", "always", "manual"}
TIMED = {"market", "cron", "interval", "once"}
BY_DAYS = {"market", "cron", "interval"}
FIELDS = {
    "--exchange": ("exchange", BY_DAYS),
    "--start": ("start", {"market"}),
    "--stop": ("stop", {"market", "cron"}),
    "--days": ("weekdays", {"market", "interval"}),
    "--cron": ("cron", {"cron"}),
    "--for": ("duration", {"cron"}),
    "--every": ("every", {"interval"}),
    "--overlap": ("overlap", {"cron", "interval"}),
    "--at": ("at", {"once"}),
    "--until": ("stop", {"once"}),
    "--zone": ("timezone", TIMED),
    "--catch-up": ("catch_up", TIMED),
    "--no-special": ("special_sessions", BY_DAYS),
    "--skip": ("skip_dates", BY_DAYS),
    "--open": ("open_dates", BY_DAYS),
    "--max-runtime": ("max_runtime", EVERY),
}
"""Each option's field, and the kinds of schedules that have it."""
KINDS = {
    "--cron": "cron",
    "--every": "interval",
    "--at": "once",
    "--always": "always",
    "--manual": "manual",
    "--none": "none",
}
"""What an option makes of a schedule; without any of them it is an exchange's."""
DAYS = 30
"""That a preview is of, unless something else is asked for."""
LATER = "outside its window"
"""The reason for which a schedule that starts later does nothing yet: nobody need be told."""


@app.command()
def schedule(
    name: Name,
    exchange: Annotated[
        str | None, typer.Option("--exchange", help="Run on this exchange's days.")
    ] = None,
    start_at: Annotated[
        str | None, typer.Option("--start", help="From, like 09:15 or open+5m.")
    ] = None,
    stop_at: Annotated[
        str | None, typer.Option("--stop", help="Until, like 15:30 or close-10m.")
    ] = None,
    days: Annotated[str | None, typer.Option("--days", help="Weekdays, like mon,tue,fri.")] = None,
    cron: Annotated[
        str | None, typer.Option("--cron", help="At these local times, like '15 9 * * 1-5'.")
    ] = None,
    duration: Annotated[str | None, typer.Option("--for", help="For so long, like 2h.")] = None,
    every: Annotated[
        str | None, typer.Option("--every", help="Again and again, so long apart, like 15m.")
    ] = None,
    overlap: Annotated[
        str | None,
        typer.Option("--overlap", help="While the run before still lives: skip, queue, replace."),
    ] = None,
    at: Annotated[str | None, typer.Option("--at", help="Once, like 2026-12-01T09:15.")] = None,
    until: Annotated[
        str | None, typer.Option("--until", help="Until, like 2026-12-01T15:30.")
    ] = None,
    always: Annotated[bool, typer.Option("--always", help="Around the clock.")] = False,
    manual: Annotated[bool, typer.Option("--manual", help="Only when you start it.")] = False,
    none: Annotated[bool, typer.Option("--none", help="Remove the schedule.")] = False,
    zone: Annotated[
        str | None,
        typer.Option(
            "--zone", help="Of its local times, like Asia/Kolkata; by default its exchange's."
        ),
    ] = None,
    catch_up: Annotated[
        str | None,
        typer.Option("--catch-up", help="What becomes of a start that is late: start, skip."),
    ] = None,
    no_special: Annotated[
        bool, typer.Option("--no-special", help="Leave out openings on days off.")
    ] = False,
    skip: Annotated[
        list[str] | None, typer.Option("--skip", help="Leave out these days.", metavar="DATE,…")
    ] = None,
    open_: Annotated[
        list[str] | None,
        typer.Option(
            "--open", help="Run on these days, whatever the calendar says.", metavar="DATE,…"
        ),
    ] = None,
    max_runtime: Annotated[
        str | None, typer.Option("--max-runtime", help="Stop each run after so long, like 6h.")
    ] = None,
    preview_it: Annotated[
        bool, typer.Option("--preview", help="Show what it would do, and do not set it.")
    ] = False,
    as_json: Json = False,
    url: Url = HERE,
) -> None:
    """Set when a strategy runs, in its exchange's local time or in a zone of yours."""
    given: dict[str, Any] = {
        "--exchange": exchange,
        "--start": start_at,
        "--stop": stop_at,
        "--days": [day.strip() for day in days.lower().split(",")] if days is not None else None,
        "--cron": cron,
        "--for": duration,
        "--every": every,
        "--overlap": overlap,
        "--at": at,
        "--until": until,
        "--always": always or None,
        "--manual": manual or None,
        "--none": none or None,
        "--zone": zone,
        "--catch-up": catch_up,
        "--no-special": False if no_special else None,
        "--skip": _dates(skip, "--skip"),
        "--open": _dates(open_, "--open"),
        "--max-runtime": max_runtime,
    }
    spec = _spec({option: value for option, value in given.items() if value is not None})
    if spec is None and preview_it:
        raise typer.BadParameter("--none has nothing to preview")
    with client.connect(url) as openbell:
        strategy_id = openbell.find(name)["id"]
        if preview_it:
            answer = openbell.request("POST", "/python/preview", json=spec)
            _show(answer, DAYS, as_json=as_json)
            return
        path = f"/python/schedule/{strategy_id}"
        if spec is None:
            outcome = openbell.request("DELETE", path)
        else:
            outcome = openbell.request("POST", path, json=spec)
    show.outcome(outcome, as_json=as_json)


@app.command()
def preview(
    name: Name,
    days: Annotated[int, typer.Option(help="So many, from today on.", min=1, max=366)] = DAYS,
    as_json: Json = False,
    url: Url = HERE,
) -> None:
    """Show what a strategy's schedule will do, day by day."""
    with client.connect(url) as openbell:
        strategy = openbell.find(name)
        path = f"/python/preview/{strategy['id']}"
        answer = openbell.request("GET", path, params={"days": days})
    stopped = f"{strategy['name']} is stopped by hand: none of this happens until you resume it"
    if not as_json and (answer["warning"] or "").startswith(stopped):
        print(stopped)
        answer["warning"] = answer["warning"].removeprefix(stopped).removeprefix("; ")
    _show(answer, days, as_json=as_json)


def _spec(given: dict[str, Any]) -> dict[str, Any] | None:
    """The schedule that these options are; none to have none. Raises BadParameter."""
    chosen = [option for option in KINDS if option in given]
    if len(chosen) > 1:
        raise typer.BadParameter(f"give one of {' and '.join(chosen)}")
    if not chosen and "--exchange" not in given:
        raise typer.BadParameter(f"give one of --exchange, {', '.join(KINDS)}")
    kind = KINDS[chosen[0]] if chosen else "market"
    for option in given:
        if option in FIELDS and kind not in FIELDS[option][1]:
            raise typer.BadParameter(f"{option} does not go with {(*chosen, '--exchange')[0]}")
    if kind == "none":
        return None
    fields = {FIELDS[option][0]: value for option, value in given.items() if option in FIELDS}
    return {"kind": kind, **fields}


def _dates(written: list[str] | None, option: str) -> list[str] | None:
    """Each day of them. Raises BadParameter."""
    try:
        days = [
            date.fromisoformat(day.strip()) for some in written or [] for day in some.split(",")
        ]
    except ValueError:
        raise typer.BadParameter(f"{option}: write a date like 2026-12-01") from None
    return [day.isoformat() for day in days] or None


def _show(answer: dict[str, Any], within: int, *, as_json: bool) -> None:
    """Each day's starts and stops with their reasons; a day that is left out, with its own."""
    if as_json:
        show.raw(answer)
        return
    rows: list[list[str | Text]] = []
    for day in answer["days"]:
        shown = show.day(day["day"])
        if day["skipped"]:
            rows.append([shown, "", "", Text(day["skipped"], style="dim")])
        for window in day["windows"]:
            start = show.time_in(answer["timezone"], window["starts_at"], day["day"])
            stop = show.time_in(answer["timezone"], window["stops_at"], day["day"])
            reasons = dict.fromkeys((window["start_reason"], window["stop_reason"]))
            rows.append([shown, start, stop, "; ".join(filter(None, reasons))])
            shown = ""
    if rows:
        print(f"Times are of {answer['timezone']}.")
        show.grid(["DAY", "START", "STOP", "WHY"], rows)
    else:
        print(f"Nothing within {within} {'day' if within == 1 else 'days'}.")
    if answer["truncated"]:
        print("There is more than is shown.")
    if answer["warning"] and (rows or answer["warning"] != LATER):
        show.say(f"note: {answer['warning']}")
