"""How the command line shows things: tables for people, JSON for scripts."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

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


def raw(value: Any) -> None:
    print(json.dumps(value))


def outcome(answer: dict[str, Any], *, as_json: bool) -> None:
    """A strategy after a command, in one line, and what its user should know."""
    if as_json:
        raw(answer)
        return
    strategy = answer["strategy"]
    print(f"{strategy['name']} ({strategy['id']}): {strategy['status']}, {strategy['reason']}")
    if coming := _next(strategy):
        print(coming)
    if answer["note"]:
        print(f"note: {answer['note']}")


def table(strategies: Sequence[dict[str, Any]]) -> None:
    console = Console()
    if not strategies:
        console.print("No strategies yet. Try: openbell upload my_strategy.py --start")
        return
    shown = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("NAME", "STATUS", "WHY", "NEXT", "RUN"):
        shown.add_column(title, overflow="fold")
    for strategy in strategies:
        status = strategy["status"]
        shown.add_row(
            Text(strategy["name"]),
            Text(status, style=COLOURS.get(status, "")),
            Text(strategy["reason"]),
            Text(_next(strategy)),
            Text(strategy["run"]["id"] if strategy["run"] else ""),
        )
    console.print(shown)


def event(kind: str, data: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"event": kind, **data}), flush=True)
        return
    known = {"owner", "strategy_id", "at", "run_id", "epoch"}
    rest = " ".join(f"{k}={v}" for k, v in data.items() if k not in known and v is not None)
    moment = _local(data["at"]) if "at" in data else ""
    print(f"{moment:23} {kind:16} {data.get('strategy_id', '')} {rest}".rstrip(), flush=True)


def checks(found: Sequence[Check], *, as_json: bool) -> None:
    if as_json:
        raw([{"name": c.name, "ok": c.ok, "detail": c.detail} for c in found])
        return
    console = Console()
    for check in found:
        mark = Text("ok  ", style="green") if check.ok else Text("FAIL", style="bold red")
        console.print(mark, Text(f"{check.name}: {check.detail}"))


def _next(strategy: dict[str, Any]) -> str:
    if strategy["status"] in {"running", "stopping"}:
        return f"stops {_local(strategy['next_stop'])}" if strategy["next_stop"] else ""
    if strategy["retry_at"]:
        return f"retry {_local(strategy['retry_at'])}"
    if strategy["intent"] == "stop" or not strategy["next_start"]:
        return ""
    return f"starts {_local(strategy['next_start'])}"


def _local(instant: str) -> str:
    return datetime.fromisoformat(instant).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
