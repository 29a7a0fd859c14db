"""When exchanges are open, as the command line asks and tells it."""

import re
from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any

import typer
from rich.text import Text

from openbell import client, show
from openbell.cli_options import HERE, Json, Url

app = typer.Typer(no_args_is_help=True, help="Tell when exchanges are open.")

HOURS = re.compile(r"(\d\d:\d\d(?::\d\d)?)-(\d\d:\d\d(?::\d\d)?)")
DIM = "dim"

Exchange = Annotated[str, typer.Argument(help="Its code, like NSE.", metavar="EXCHANGE")]
Day = Annotated[str, typer.Argument(help="In its own dates, like 2026-11-08.", metavar="DAY")]


@app.command()
def now(
    exchange: Annotated[
        list[str] | None,
        typer.Argument(help="By default, those of India, and CRYPTO.", metavar="[EXCHANGE]..."),
    ] = None,
    as_json: Json = False,
    url: Url = HERE,
) -> None:
    """Tell what is open, and what opens next."""
    with client.connect(url) as openbell:
        answer = openbell.request("GET", "/calendar/now", params={"exchange": exchange or []})
    _show_markets(answer, as_json=as_json)


@app.command()
def sessions(
    exchange: Exchange,
    first: Annotated[str | None, typer.Option("--from", help="By default, today.")] = None,
    last: Annotated[str | None, typer.Option("--to", help="By default, 30 days on.")] = None,
    as_json: Json = False,
    url: Url = HERE,
) -> None:
    """List an exchange's sessions, and the days on which it is closed."""
    asked = {"exchange": exchange, "from": _date(first, "--from"), "to": _date(last, "--to")}
    _list("/calendar/sessions", asked, url, as_json)


@app.command()
def holidays(
    exchange: Exchange,
    year: Annotated[
        int | None, typer.Option(help="By default, this one.", min=2000, max=2100)
    ] = None,
    first: Annotated[
        str | None, typer.Option("--from", help="By default, the first of its year.")
    ] = None,
    last: Annotated[
        str | None, typer.Option("--to", help="By default, the last of its year.")
    ] = None,
    as_json: Json = False,
    url: Url = HERE,
) -> None:
    """List its holidays, and its shortened and special sessions."""
    if year and (first or last):
        raise typer.BadParameter("give --year, or --from and --to")
    asked = {"exchange": exchange, "from": _date(first, "--from"), "to": _date(last, "--to")}
    asked |= {"from": f"{year}-01-01", "to": f"{year}-12-31"} if year else {}
    _list("/calendar/holidays", asked, url, as_json)


@app.command()
def exchanges(
    containing: Annotated[
        str | None, typer.Argument(help="A part of a code or name.", metavar="[FILTER]")
    ] = None,
    as_json: Json = False,
    url: Url = HERE,
) -> None:
    """List the exchanges whose sessions are known."""
    with client.connect(url) as openbell:
        params = {"q": containing} if containing else {}
        answer = openbell.request("GET", "/calendar/exchanges", params=params)
    _show_exchanges(answer, as_json=as_json)


@app.command()
def overrides(
    exchange: Annotated[
        str | None, typer.Argument(help="By default, all.", metavar="[EXCHANGE]")
    ] = None,
    as_json: Json = False,
    url: Url = HERE,
) -> None:
    """List what admins said of single days."""
    with client.connect(url) as openbell:
        params = {"exchange": exchange} if exchange else {}
        answer = openbell.request("GET", "/calendar/overrides", params=params)
    _show_overrides(answer, as_json=as_json)


@app.command("set")
def set_(
    exchange: Exchange,
    day: Day,
    reason: Annotated[str, typer.Option(help="Shown to everybody, like 'Muhurat trading'.")],
    open_: Annotated[
        list[str] | None,
        typer.Option(
            "--open", help="From and until when, in its local time.", metavar="18:00-19:15"
        ),
    ] = None,
    closed: Annotated[bool, typer.Option("--closed", help="All day.")] = False,
    as_json: Json = False,
    url: Url = HERE,
) -> None:
    """Say what an exchange does on a day, whatever the calendar knows of it; for admins."""
    if closed == bool(open_):
        raise typer.BadParameter("give one of --open and --closed")
    said = {"hours": [_opening(hours) for hours in open_ or []], "reason": reason}
    _override("PUT", exchange, day, url, as_json, json=said)


@app.command()
def unset(exchange: Exchange, day: Day, as_json: Json = False, url: Url = HERE) -> None:
    """Let the calendar tell of a day again; for admins."""
    _override("DELETE", exchange, day, url, as_json)


def _list(path: str, asked: Mapping[str, str | None], url: str, as_json: bool) -> None:
    params = {name: value for name, value in asked.items() if value is not None}
    with client.connect(url) as openbell:
        answer = openbell.request("GET", path, params=params)
    _show_sessions(answer, as_json=as_json)


def _override(
    method: str, exchange: str, day: str, url: str, as_json: bool, **options: Any
) -> None:
    path = f"/calendar/overrides/{client.quoted(exchange)}/{_date(day, 'DAY')}"
    with client.connect(url) as openbell:
        answer = openbell.request(method, path, **options)
    _show_override_change(answer, as_json=as_json)


def _date(written: str | None, option: str) -> str | None:
    """As a date that there is. Raises BadParameter."""
    try:
        return date.fromisoformat(written).isoformat() if written is not None else None
    except ValueError:
        raise typer.BadParameter(f"{option}: write a date like 2026-11-08") from None


def _opening(written: str) -> dict[str, str]:
    found = HOURS.fullmatch(written.replace(" ", ""))
    if found is None:
        raise typer.BadParameter("--open: write it like 18:00-19:15")
    return {"opens": found[1], "closes": found[2]}


# ---- showing it


def _show_markets(answer: dict[str, Any], *, as_json: bool) -> None:
    """What is open now, in this machine's time."""
    if as_json:
        show.raw(answer)
        return
    rows = [
        [
            one["segment"],
            _state(one["is_open"]),
            show.local(one["session"]["closes_at"]) if one["session"] else "",
            show.local(one["next"]["opens_at"]) if one["next"] else "",
            one["reason"],
        ]
        for one in answer["markets"]
    ]
    show.grid(["EXCHANGE", "NOW", "CLOSES", "OPENS NEXT", "WHY"], rows, none="None is known.")


def _show_sessions(answer: dict[str, Any], *, as_json: bool) -> None:
    """Sessions and closures, by day."""
    if as_json:
        show.raw(answer)
        return
    zone = answer["timezone"]
    rows = [
        (
            one["opens_at"],
            [
                show.day(one["day"]),
                show.time_in(zone, one["opens_at"], one["day"]),
                show.time_in(zone, one["closes_at"], one["day"]),
                "open" if one["kind"] == "usual" else one["kind"],
                one["reason"] or "",
                one["source"] or "",
            ],
        )
        for one in answer["sessions"]
    ]
    rows += [
        (
            one["opens_at"],
            [
                show.day(one["day"]),
                "",
                "",
                Text("closed", style=DIM),
                one["reason"],
                one["source"] or "",
            ],
        )
        for one in answer["closures"]
    ]
    if rows:
        print(f"{answer['segment']}; times are of {zone}.")
    titles = ["DAY", "OPENS", "CLOSES", "WHAT", "WHY", "SOURCE"]
    show.grid(
        titles, [row for _, row in sorted(rows, key=lambda one: one[0])], none="None is known."
    )
    print(
        f"note: {answer['segment']} is known from {answer['covered_from']}"
        f" to {answer['covered_until']}"
    )


def _show_exchanges(answer: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        show.raw(answer)
        return
    rows = [
        [
            one["code"],
            ", ".join(one["names"]),
            one["name"],
            one["timezone"],
            _covered(one),
            one["source"],
        ]
        for one in answer["exchanges"]
    ]
    titles = ["CODE", "ALSO", "NAME", "ZONE", "KNOWN", "SOURCE"]
    show.grid(titles, rows, none="There is no such exchange.")


def _show_overrides(answer: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        show.raw(answer)
        return
    rows = [
        [
            one["segment"],
            show.day(one["day"]),
            _hours(one["hours"]),
            one["reason"],
            one["by"],
            show.local(one["at"]),
        ]
        for one in answer["overrides"]
    ]
    titles = ["EXCHANGE", "DAY", "HOURS", "REASON", "BY", "SAID"]
    show.grid(titles, rows, none="Nobody has said anything.")


def _show_override_change(answer: dict[str, Any], *, as_json: bool) -> None:
    """One day's override, after it was set or removed."""
    if as_json:
        show.raw(answer)
        return
    before, after = answer["before"], answer["after"]
    said = after or before
    if said is None:
        return
    what = _hours(after["hours"]) if after else "as the calendar knows it"
    former = f" (before: {_hours(before['hours'])}, {before['reason']})" if before else ""
    print(f"{said['segment']} {show.day(said['day'])}: {what}{former}")


def _state(is_open: bool | None) -> Text:
    if is_open is None:
        return Text("unknown", style="yellow")
    return Text("open", style="green") if is_open else Text("closed", style=DIM)


def _covered(exchange: dict[str, Any]) -> str:
    first, last = exchange["covered_from"], exchange["covered_until"]
    return f"{first} to {last}" if first and last else "see its sessions"


def _hours(hours: list[dict[str, str]]) -> str:
    return ", ".join(f"{one['opens']}-{one['closes']}" for one in hours) or "closed"
