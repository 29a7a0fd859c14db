"""The hosts on which strategies run, and what they use there."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer
from rich.text import Text

from openbell import capabilities, client, show
from openbell.cli_options import HERE, Json, Name, Url

app = typer.Typer()

MB, GB = 1024**2, 1024**3
MOST_ROWS = 60


@app.command()
def runners(as_json: Json = False, url: Url = HERE) -> None:
    """List the runners, how many more fit, what each enforces, and for admins how busy it is."""
    with client.connect(url) as openbell:
        answer = openbell.request("GET", "/runners")
    if as_json:
        show.raw(answer)
        return
    rows = [
        [
            one["id"],
            _state(one),
            one["platform"],
            _pythons(one),
            str(one["runs"]),
            "" if one["fits"] is None else str(one["fits"]),
            capabilities.limits(one["capabilities"]),
            capabilities.apart(one["capabilities"]) or "not kept apart",
            _machine(one["host"]),
        ]
        for one in answer["runners"]
    ]
    titles = ["RUNNER", "STATE", "HOST", "PYTHON", "RUNS", "MORE FIT", "LIMITS", "APART", "IN USE"]
    if not any(row[-1] for row in rows):
        titles, rows = titles[:-1], [row[:-1] for row in rows]
    show.grid(titles, rows, none="No runner is connected.")
    for one in answer["runners"]:
        if memory := one["memory"]:
            show.say(f"{one['id']}: {_room(memory)}")
        for why in (one["warning"], one["capabilities"].get("why_not")):
            if why:
                show.say(f"note: {one['id']}: {why}")


@app.command()
def metrics(
    name: Name,
    minutes: Annotated[
        int, typer.Option(help="The last so many; 1440 are kept.", min=1, max=1440)
    ] = 15,
    step: Annotated[
        int | None, typer.Option(help="Seconds a row; by default, some 60 rows.", min=5, max=3600)
    ] = None,
    as_json: Json = False,
    url: Url = HERE,
) -> None:
    """Tell what a strategy's runs used."""
    since = datetime.now(UTC) - timedelta(minutes=minutes)
    params = {"since": since.isoformat(), "step": step or _step(minutes)}
    with client.connect(url) as openbell:
        path = f"/python/metrics/{openbell.find(name)['id']}"
        answer = openbell.request("GET", path, params=params)
    if as_json:
        show.raw(answer)
        return
    rows = [
        [
            show.local(one["at"]),
            _percent(one["cpu_percent"], one["cpu_percent_max"]),
            _size(one["memory_bytes_max"]),
            "" if one["processes"] is None else f"{one['processes']:.0f}",
            _size(one["disk_bytes"]),
            _size(one["read_bytes_s"]),
            _size(one["written_bytes_s"]),
        ]
        for one in answer["points"]
    ]
    titles = ["FROM", "CPU (MOST)", "MEMORY", "PROCESSES", "FOLDER", "READ/S", "WRITTEN/S"]
    show.grid(titles, rows, none=f"It used nothing in the last {minutes} minutes.")


def _step(minutes: int) -> int:
    """Seconds, a multiple of what is kept."""
    seconds = minutes * 60 // MOST_ROWS
    kept = 5 if minutes <= 15 else 60
    return min(3600, max(1, -(-seconds // kept)) * kept)


def _state(runner: dict[str, Any]) -> Text:
    if runner["alive"]:
        return Text("alive", style="green")
    return Text(f"gone since {show.local(runner['heard_at'])}", style="red")


def _pythons(runner: dict[str, Any]) -> str:
    """Those that strategies may have there."""
    minors = dict.fromkeys(text.rpartition(".")[0] for text in runner["pythons"])
    return ", ".join(minors) or "being found"


def _room(memory: dict[str, Any]) -> str:
    free, promised, total = (
        f"{memory[name] / GB:.1f}" for name in ("free_bytes", "promised_bytes", "total_bytes")
    )
    each = f"one more is reckoned to need {memory['each_bytes'] // MB} MB"
    most = memory["most_runs"]
    capped = "" if most is None else f"; by its settings, {most} at one time"
    return f"{free} of {total} GB free for more runs, {promised} GB promised; {each}{capped}"


def _machine(host: dict[str, Any] | None) -> str:
    if host is None:
        return ""
    return (
        f"cpu {host['cpu_percent']:.0f}% of {host['processors']},"
        f" memory {host['memory_bytes'] / GB:.1f} of {host['memory_total_bytes'] / GB:.1f} GB,"
        f" disk {host['disk_free_bytes'] / GB:.1f} GB free, load {host['load']:.1f}"
    )


def _percent(mean: float | None, most: float | None) -> str:
    return "" if mean is None or most is None else f"{mean:.1f}% ({most:.1f}%)"


def _size(value: float | None) -> str:
    """Of bytes."""
    if value is None:
        return ""
    if value >= GB:
        return f"{value / GB:.2f} GB"
    return f"{value / MB:.1f} MB" if value >= MB else f"{value / 1024:.0f} kB"
