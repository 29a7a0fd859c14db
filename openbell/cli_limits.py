"""What a strategy's runs may use, and what they were."""

import math
from datetime import datetime, timedelta
from typing import Annotated, Any

import typer
from pydantic import TypeAdapter, ValidationError
from rich.text import Text

from openbell import client, show
from openbell.cli_options import HERE, Json, Name, Url
from openbell.contracts.model import ExitReason
from openbell.contracts.schedules import Duration, show_duration

app = typer.Typer()

DURATION: TypeAdapter[timedelta] = TypeAdapter(Duration)
FIELDS = {
    "memory": ("limits", "memory_mb"),
    "processes": ("limits", "processes"),
    "cpus": ("limits", "cpus"),
    "cpu-weight": ("limits", "cpu_weight"),
    "disk": ("limits", "disk_mb"),
    "open-files": ("limits", "open_files"),
    "quiet": ("watchdogs", "quiet_s"),
    "heartbeat": ("watchdogs", "heartbeat_s"),
    "max-runtime": ("watchdogs", "max_runtime_s"),
    "signals": ("stop", "signals"),
    "grace": ("stop", "grace_s"),
    "restart": ("restart",),
    "interpreter": ("interpreter",),
}
"""Where a policy has what an option sets."""
NO_SIGNALS = "none"
FAILURES = {str(reason) for reason in ExitReason if reason.failed}


@app.command()
def limits(
    name: Name,
    memory: Annotated[int | None, typer.Option(help="Real memory, in MB.")] = None,
    processes: Annotated[int | None, typer.Option(help="Processes and threads.")] = None,
    cpus: Annotated[float | None, typer.Option(help="Processors at most, like 0.5.")] = None,
    cpu_weight: Annotated[
        int | None, typer.Option(help="Its share when they are scarce; 100 is usual.")
    ] = None,
    disk: Annotated[int | None, typer.Option(help="What its folder may hold, in MB.")] = None,
    open_files: Annotated[int | None, typer.Option(help="Open files of each process.")] = None,
    quiet: Annotated[
        str | None, typer.Option(help="End it after so long without output, like 10m.")
    ] = None,
    heartbeat: Annotated[
        str | None,
        typer.Option(help="End it when it has not touched OPENBELL_HEARTBEAT for so long."),
    ] = None,
    max_runtime: Annotated[
        str | None, typer.Option(help="Stop each run after so long, like 8h.")
    ] = None,
    signals: Annotated[
        str | None,
        typer.Option(help="That ask it to end, before SIGKILL, like SIGINT,SIGTERM; or none."),
    ] = None,
    grace: Annotated[float | None, typer.Option(help="Seconds until SIGKILL.")] = None,
    restart: Annotated[
        str | None, typer.Option(help="When it has ended: never, on-failure, always.")
    ] = None,
    interpreter: Annotated[
        str | None,
        typer.Option(help="shared: forked, where that can be, and up at once; or own."),
    ] = None,
    default: Annotated[
        list[str] | None,
        typer.Option(help="Set this back to its default, like memory.", metavar="OPTION"),
    ] = None,
    as_json: Json = False,
    url: Url = HERE,
) -> None:
    """Set what a strategy's runs may use, and how they are watched, stopped and restarted.

    Without options, shows it.
    """
    given: dict[str, Any] = {
        "memory": memory,
        "processes": processes,
        "cpus": _finite("--cpus", cpus),
        "cpu-weight": cpu_weight,
        "disk": disk,
        "open-files": open_files,
        "quiet": _seconds("--quiet", quiet),
        "heartbeat": _seconds("--heartbeat", heartbeat),
        "max-runtime": _seconds("--max-runtime", max_runtime),
        "signals": _signals(signals),
        "grace": _finite("--grace", grace),
        "restart": restart,
        "interpreter": interpreter,
    }
    part = _part({one: value for one, value in given.items() if value is not None}, default or [])
    with client.connect(url) as openbell:
        path = f"/python/limits/{openbell.find(name)['id']}"
        if part:
            answer = openbell.request("POST", path, json=part)
        else:
            answer = openbell.request("GET", path)
    if as_json:
        show.raw(answer)
    else:
        _show_policy(answer)


@app.command()
def runs(
    name: Name,
    run: Annotated[
        str | None, typer.Argument(help="One of them, by its number or id.", metavar="RUN")
    ] = None,
    most: Annotated[int, typer.Option("-n", help="So many, the latest.", min=1, max=500)] = 20,
    as_json: Json = False,
    url: Url = HERE,
) -> None:
    """List a strategy's latest runs, or tell what is left of one."""
    with client.connect(url) as openbell:
        strategy_id = openbell.find(name)["id"]
        path = f"/python/runs/{strategy_id}"
        if run is None:
            answer = openbell.request("GET", path, params={"limit": most})
        else:
            run_id = f"{strategy_id}-{run}" if run.isdecimal() else run
            answer = openbell.request("GET", f"{path}/{client.quoted(run_id)}")
    if as_json:
        show.raw(answer)
    elif run is None:
        show.grid(
            ["RUN", "STARTED", "LASTED", "END", "MEMORY", "CPU", "WHY"],
            [_row(one) for one in answer],
            none="It has not run yet.",
        )
    else:
        _show_record(answer)


# ---- what is sent


def _part(given: dict[str, Any], default: list[str]) -> dict[str, Any]:
    """The part of a policy that these options set; null is a field's default."""
    unset = [one.strip().removeprefix("--") for some in default for one in some.split(",")]
    for option in unset:
        if option not in FIELDS:
            raise typer.BadParameter(
                f"--default: there is no {option!r}; write {', '.join(FIELDS)}"
            )
        if option in given:
            raise typer.BadParameter(f"--{option} is given, and --default {option} too")
    part: dict[str, Any] = {}
    for option, value in {**given, **dict.fromkeys(unset)}.items():
        *section, field = FIELDS[option]
        place = part.setdefault(section[0], {}) if section else part
        place[field] = value
    return part


def _finite(option: str, value: float | None) -> float | None:
    """JSON has no other numbers."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{option}: write a number")
    return value


def _seconds(option: str, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return DURATION.validate_python(text).total_seconds()
    except ValidationError as error:
        why = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
        raise typer.BadParameter(f"{option}: {why}") from None


def _signals(text: str | None) -> list[str] | None:
    if text is None:
        return None
    words = [word.strip().upper() for word in text.split(",") if word.strip()]
    if not words:
        raise typer.BadParameter(f"--signals: name some, or {NO_SIGNALS}")
    return [] if words == [NO_SIGNALS.upper()] else [f"SIG{w.removeprefix('SIG')}" for w in words]


# ---- what is shown


def _show_policy(answer: dict[str, Any]) -> None:
    policy, host = answer["policy"], answer["host"]
    told: dict[str, str] = host["limits"] if host else {}
    rows: list[list[str | Text]] = []
    for option, place in FIELDS.items():
        value = policy
        for name in place:
            value = value[name]
        enforced = told.get(place[-1], "")
        style = "yellow" if enforced == "none" else "dim"
        rows.append([option, _words(option, value), Text(enforced, style=style)])
    show.grid(["LIMIT", "VALUE", f"ON {host['runner']}" if told else ""], rows)
    if answer["note"]:
        show.say(f"note: {answer['note']}")


def _words(option: str, value: Any) -> str:
    if option in {"quiet", "heartbeat", "max-runtime"}:
        if value is None:
            return "off"
        return f"{value:g}s" if value % 1 else show_duration(timedelta(seconds=value))
    if value is None:
        return "by the host's size" if option == "memory" else "no limit"
    if option in {"memory", "disk"}:
        return f"{value} MB"
    if option == "signals":
        return ", ".join([*value, "SIGKILL"])
    return f"{value:g} s" if option == "grace" else str(value)


def _row(run: dict[str, Any]) -> list[str | Text]:
    ended = run["reason"]
    style = "red" if ended in FAILURES else ""
    return [
        str(run["epoch"]),
        show.local(run["started_at"] or run["granted_at"]),
        _lasted(run),
        Text(ended.replace("_", " ") if ended else run["state"], style=style),
        _memory(run),
        _cpu(run),
        run["headline"] or run["detail"] or "",
    ]


def _show_record(run: dict[str, Any]) -> None:
    end = run["signal"] or (f"exit code {run['exit_code']}" if run["exit_code"] is not None else "")
    usage = run["usage"]
    facts = {
        "run": run["id"],
        "version": str(run["version"]),
        "cause": run["cause"],
        "granted": show.local(run["granted_at"]),
        "due": show.local(run["due_at"]) if run["due_at"] else "",
        "started": show.local(run["started_at"]) if run["started_at"] else "",
        "ended": show.local(run["exited_at"]) if run["exited_at"] else run["state"],
        "lasted": _lasted(run),
        "reason": ", ".join(filter(None, (run["reason"] or "", end))),
        "headline": run["headline"] or "",
        "detail": run["detail"] or "",
        "memory": _memory(run) and f"{_memory(run)} at most",
        "cpu": _cpu(run),
        "refused": f"{usage['refused']} processes and threads" if usage["refused"] else "",
        "out of memory": f"{usage['out_of_memory']} processes" if usage["out_of_memory"] else "",
    }
    for name, value in facts.items():
        if value:
            show.say(f"{name:14} {value}")
    if run["last_lines"]:
        print("its last lines:")
        with show.log() as write:
            for line in run["last_lines"]:
                write(f"  {line}\n")


def _lasted(run: dict[str, Any]) -> str:
    if not (run["started_at"] and run["exited_at"]):
        return ""
    began, ended = (datetime.fromisoformat(run[name]) for name in ("started_at", "exited_at"))
    took = ended - began
    short = took < timedelta(seconds=10)
    return f"{took.total_seconds():.1f}s" if short else show_duration(took)


def _memory(run: dict[str, Any]) -> str:
    peak = run["usage"]["peak_memory_bytes"]
    return "" if peak is None else f"{peak / 2**20:.0f} MB"


def _cpu(run: dict[str, Any]) -> str:
    used = run["usage"]["cpu_s"]
    return "" if used is None else f"{used:.1f}s"
