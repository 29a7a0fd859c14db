"""How the command line shows things: tables for people, JSON for scripts."""

import contextlib
import json
import sys
import textwrap
from collections.abc import Callable, Generator, Sequence
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from rich.console import Console
from rich.table import Table
from rich.text import Text

from openbell import terminal
from openbell.doctor import Check

COLOURS = {
    "running": "green",
    "starting": "cyan",
    "stopping": "cyan",
    "scheduled": "blue",
    "waiting": "yellow",
    "paused": "dim",
    "stopped": "dim",
    "crashed": "red",
    "failed": "bold red",
}


GAP = 2
"""Between a table's columns."""
LEAST_ROOM = 24
"""The columns that a reason gets, however narrow the terminal is."""


def raw(value: Any) -> None:
    print(json.dumps(value))


def say(words: str) -> None:
    """What may hold words of others, as a line."""
    print(terminal.shown(words), flush=True)


@contextlib.contextmanager
def log() -> Generator[Callable[[str], None]]:
    """Prints what a script has printed. On a terminal with its colours, which end here."""
    to_terminal, has_colours = sys.stdout.isatty(), False

    def write(text: str) -> None:
        nonlocal has_colours
        if to_terminal:
            text = terminal.coloured(text)
            has_colours = has_colours or terminal.RESET[0] in text
        print(text, end="", flush=True)

    try:
        yield write
    finally:
        if has_colours:
            print(terminal.RESET, end="", flush=True)


def outcome(answer: dict[str, Any], *, as_json: bool) -> None:
    """A strategy after a command, in one line, and what its user should know."""
    if as_json:
        raw(answer)
        return
    strategy = answer["strategy"]
    say(f"{strategy['name']} ({strategy['id']}): {strategy['status']}, {strategy['reason']}")
    if coming := _next(strategy):
        print(coming)
    if strategy["warning"]:
        say(f"warning: {strategy['warning']}")
    if answer["note"]:
        say(f"note: {answer['note']}")


def environment(told: dict[str, Any]) -> str:
    """Like `Python 3.12, 14 packages of its own`."""
    python = f"Python {told['python']}" if told["python"] else "the runner's Python"
    if told["kind"] == "default":
        return f"{python}, the default packages"
    packages = told["packages"]
    return f"{python}, {packages} package{'' if packages == 1 else 's'} of its own"


def table(strategies: Sequence[dict[str, Any]]) -> None:
    rows = [
        [
            strategy["name"],
            _status(strategy["status"]),
            "",
            _next(strategy),
            strategy["run"]["id"] if strategy["run"] else "",
        ]
        for strategy in strategies
    ]
    titles = ["NAME", "STATUS", "WHY", "NEXT", "RUN"]
    if any(strategy["access"] != "owner" for strategy in strategies):
        titles.insert(1, "OWNER")
        for row, strategy in zip(rows, strategies, strict=True):
            owner = strategy["owner"]["name"]
            row.insert(1, "" if strategy["access"] == "owner" else owner)
    why, room = titles.index("WHY"), _left(titles, rows)
    for row, strategy in zip(rows, strategies, strict=True):
        row[why] = _cut(terminal.shown(strategy["reason"]), room)
    grid(titles, rows, none="No strategies yet. Try: openbell upload my_strategy.py --start")


def _left(titles: Sequence[str], rows: Sequence[Sequence[str | Text]]) -> int:
    """How many columns of the terminal a table leaves to one that is still empty."""
    widest = [max(len(cell) for cell in column) for column in zip(titles, *rows, strict=True)]
    return Console().width - sum(widest) - GAP * (len(titles) - 1) + len("WHY")


def _cut(text: str, width: int) -> str:
    """Two lines of it at most."""
    room = max(width, LEAST_ROOM)
    return "\n".join(textwrap.wrap(text, room, max_lines=2, placeholder=" ..."))


def grid(titles: Sequence[str], rows: Sequence[Sequence[str | Text]], *, none: str = "") -> None:
    """A table, or the words for there being nothing in it."""
    if not rows:
        print(none)
        return
    shown = Table(box=None, header_style="bold", pad_edge=False)
    for title in titles:
        shown.add_column(title, overflow="fold")
    for row in rows:
        shown.add_row(*(_cell(cell) for cell in row))
    Console().print(shown)


def stopped(answer: dict[str, Any], *, as_json: bool) -> None:
    """What a stop of everything has stopped, and what it has not."""
    if as_json:
        raw(answer)
        return
    strategies = answer["strategies"]
    if not strategies:
        print("There was nothing to stop.")
        return
    rows = [
        [
            one["name"],
            one["owner"],
            _status(one["status"]),
            _end_of(one),
            one["note"] or "",
        ]
        for one in strategies
    ]
    grid(["NAME", "OWNER", "STATUS", "PROCESSES", "NOTE"], rows)
    left = sum(not one["gone"] for one in strategies)
    print(f"{left} of {len(strategies)} are NOT gone." if left else "All of them are gone.")


def event(kind: str, data: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"event": kind, **data}), flush=True)
        return
    known = {"owner", "strategy_id", "at", "run_id", "epoch", "usage"}
    rest = " ".join(f"{k}={v}" for k, v in data.items() if k not in known and v is not None)
    moment = local(data["at"]) if "at" in data else ""
    say(f"{moment:23} {kind:16} {data.get('strategy_id', '')} {rest}".rstrip())


def checks(found: Sequence[Check], *, as_json: bool) -> None:
    if as_json:
        raw([{"name": c.name, "ok": c.ok, "detail": c.detail} for c in found])
        return
    console = Console()
    for check in found:
        mark = Text("ok  ", style="green") if check.ok else Text("FAIL", style="bold red")
        console.print(mark, Text(terminal.shown(f"{check.name}: {check.detail}")))


def _cell(cell: str | Text) -> Text:
    if isinstance(cell, Text):
        return Text(terminal.shown(cell.plain), style=cell.style)
    return Text(terminal.shown(cell))


def _status(status: str) -> Text:
    return Text(status, style=COLOURS.get(status, ""))


def _end_of(stopped: dict[str, Any]) -> str | Text:
    if not stopped["gone"]:
        return Text("still there", style="bold red")
    return "gone" if stopped["was_running"] else "none ran"


def _next(strategy: dict[str, Any]) -> str:
    if strategy["status"] in {"running", "stopping"}:
        return f"stops {local(strategy['next_stop'])}" if strategy["next_stop"] else ""
    due_at = strategy["run"]["due_at"] if strategy["run"] else None
    if strategy["status"] == "starting" and due_at:
        return f"starts {local(due_at)}"
    if strategy["retry_at"]:
        return f"retry {local(strategy['retry_at'])}"
    if strategy["intent"] == "stop" or not strategy["next_start"]:
        return ""
    return f"starts {local(strategy['next_start'])}"


def local(instant: str) -> str:
    return datetime.fromisoformat(instant).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")


def day(written: str) -> str:
    return date.fromisoformat(written).strftime("%a %Y-%m-%d")


def time_in(zone: str, instant: str | None, day: str) -> str:
    """The time of day; with its date, when that is another day's."""
    if instant is None:
        return ""
    try:
        moment = datetime.fromisoformat(instant).astimezone(ZoneInfo(zone))
    except ZoneInfoNotFoundError:  # this machine knows fewer zones than the server
        return local(instant)
    time = f"{moment:%H:%M:%S}".removesuffix(":00")
    return time if moment.date().isoformat() == day else f"{time} on {moment:%a %d %b}"
