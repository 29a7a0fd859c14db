"""Brings strategies from elsewhere."""

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from openbell import client, openalgo, show
from openbell.cli_options import FAILED, HERE, Json, Limits, Url, pairs
from openbell.contracts.schedules import stored
from openbell.openalgo import KEY, BadInstallation, Deed, Here, Script, Step

app = typer.Typer()

EXCHANGE = "OPENALGO_STRATEGY_EXCHANGE"
STOPPED = "stop"
INCOMPLETE, NOT_TRIED = "incomplete", "not tried"
DONE = {
    Deed.CREATE: "created",
    Deed.FINISH: "scheduled",
    Deed.SKIP: "skipped",
    Deed.REFUSE: "refused",
}


@dataclass
class Result:
    """What became of one strategy; of a dry run, what would."""

    step: Step
    result: str
    reason: str = ""
    strategy_id: str | None = None
    notes: list[str] = field(default_factory=list[str])

    @property
    def failed(self) -> bool:
        return self.result in {DONE[Deed.REFUSE], INCOMPLETE, NOT_TRIED}


@app.command("import-openalgo")
def import_openalgo(
    path: Annotated[
        Path,
        typer.Argument(
            help="An installation of OpenAlgo, or its folder strategies.", metavar="PATH"
        ),
    ],
    apply: Annotated[
        bool, typer.Option("--apply", help="Do it; without this, it is only shown.")
    ] = False,
    even_if_running: Annotated[
        bool, typer.Option("--even-if-running", help="Schedule also what runs there now.")
    ] = False,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="A variable for each of them.", metavar="KEY=VALUE"),
    ] = None,
    use: Annotated[
        list[str] | None,
        typer.Option("--use", help="Hand each one of your own secrets.", metavar="KEY=SECRET"),
    ] = None,
    limits: Limits = None,
    as_json: Json = False,
    url: Url = HERE,
) -> None:
    """Bring strategies and their schedules from OpenAlgo; first shows what it would do."""
    given = {"parameters": pairs(set_), "uses": pairs(use)}
    try:
        installation = openalgo.read(path)
    except BadInstallation as error:
        raise client.Refused(str(error)) from None
    with client.connect(url) as openbell:
        steps = openalgo.steps(installation, _here(openbell), even_if_running=even_if_running)
        if apply:
            form = {kind: json.dumps(them) for kind, them in given.items()}
            form |= {"limits": limits} if limits else {}
            results, gone = _applied(openbell, steps, form)
        else:
            results, gone = [_planned(step) for step in steps], None
    names = {name for those in given.values() for name in those}
    for one in results:
        one.notes += _notes(one.step, names)
    _show(results, [*installation.notes, *_hint(steps, names)], applied=apply, as_json=as_json)
    if gone is not None:
        raise gone
    if apply and any(one.failed for one in results):
        raise typer.Exit(FAILED)


def _here(openbell: client.Client) -> Here:
    own = [one for one in openbell.strategies() if one["access"] == "owner"]
    listed = openbell.request("GET", "/calendar/exchanges")["exchanges"]
    return Here(own, {name for one in listed for name in (one["code"], *one["names"])})


# ---- doing it


def _applied(
    openbell: client.Client, steps: list[Step], form: dict[str, str]
) -> tuple[list[Result], client.Unreachable | None]:
    """What was done; and what ended it early, if Openbell went away."""
    results: list[Result] = []
    for number, step in enumerate(steps):
        result = _planned(step)
        result.result = DONE[step.deed]
        results.append(result)
        try:
            _carry(openbell, result, form)
        except client.Refused as error:
            result.reason = str(error)
            result.result = INCOMPLETE if result.strategy_id else DONE[Deed.REFUSE]
        except client.Unreachable as error:
            result.result, result.reason = INCOMPLETE, "Openbell went away: import again"
            results += [Result(later, NOT_TRIED) for later in steps[number + 1 :]]
            return results, error
    return results, None


def _carry(openbell: client.Client, result: Result, form: dict[str, str]) -> None:
    """Create it as the form says, and give it its schedule. Raises Refused, Unreachable."""
    step, hosted = result.step, result.step.hosted
    if step.deed is Deed.REFUSE:
        return
    if step.deed is Deed.CREATE and hosted.script:
        made = _upload(openbell, hosted.script, {"name": hosted.name, **form}, step.exchange)
        result.strategy_id = made["strategy"]["id"]
    if step.schedule is not None and result.strategy_id:
        if hosted.held:
            _hold(openbell, result.strategy_id)
        spec = stored(step.schedule)
        openbell.request("POST", f"/python/schedule/{result.strategy_id}", json=spec)
    if step.withheld:
        result.result = INCOMPLETE


def _upload(
    openbell: client.Client, script: Script, form: dict[str, str], exchange: str | None
) -> dict[str, Any]:
    files = {"file": (script.filename, script.body)}
    data = form | ({"exchange": exchange} if exchange else {})
    return openbell.request("POST", "/python/upload", files=files, data=data)


def _hold(openbell: client.Client, strategy_id: str) -> None:
    """Stopped by hand before it has a schedule: at no moment is there one that may start it.

    The scheduler has committed the stop when it answers. Raises Refused, Unreachable.
    """
    stopped = openbell.act("stop", strategy_id, wait=0)
    if stopped["strategy"]["intent"] != STOPPED:
        raise client.Refused("it could not be kept stopped, hence it has no schedule")


# ---- telling it


def _planned(step: Step) -> Result:
    return Result(step, step.deed, step.reason, step.strategy_id)


def _notes(step: Step, given: set[str]) -> Iterator[str]:
    """What its user should know of it, and do; `given` are the variables that it gets."""
    hosted, name = step.hosted, shlex.quote(step.hosted.name)
    yield from hosted.notes
    if step.withheld:
        yield f"its schedule is not carried over: {step.withheld}"
    if step.deed is not Deed.CREATE:
        return
    if hosted.exchange and not step.exchange and EXCHANGE not in given:
        value = shlex.quote(f"{EXCHANGE}={hosted.exchange}")
        yield f"its exchange is not carried over; to tell it: openbell env {name} --set {value}"
    if options := openalgo.options_for(hosted, given):
        soon = ", before its schedule starts it" if step.schedule and not hosted.held else ""
        yield f"variables that it reads are not carried over: openbell env {name} {options}{soon}"


def _hint(steps: list[Step], given: set[str]) -> Iterator[str]:
    needed = any(step.deed is Deed.CREATE and KEY in step.hosted.needs for step in steps)
    if needed and KEY not in given:
        yield (
            "to hand your key to all of them: openbell env --mine --secret openalgo,"
            f" then import with --use {KEY}=openalgo"
        )


def _show(results: list[Result], notes: list[str], *, applied: bool, as_json: bool) -> None:
    if as_json:
        strategies = [_values(one) for one in results]
        show.raw({"applied": applied, "strategies": strategies, "notes": notes})
        return
    rows = [
        [
            one.step.hosted.name,
            one.step.exchange or "",
            _when(one.step),
            f"{one.result}: {one.reason}" if one.reason else one.result,
        ]
        for one in results
    ]
    show.grid(["NAME", "EXCHANGE", "SCHEDULE", "RESULT" if applied else "PLAN"], rows, none="None.")
    for one in results:
        for note in one.notes:
            print(f"{one.step.hosted.name}: {note}")
    for note in notes:
        print(f"note: {note}")
    if not applied:
        print("Nothing was changed. To do it, give the same command with --apply.")


def _when(step: Step) -> str:
    if step.schedule is None:
        return ""
    held = "; stopped, until you resume it" if step.hosted.held else ""
    return openalgo.show_schedule(step.schedule) + held


def _values(result: Result) -> dict[str, Any]:
    step, hosted = result.step, result.step.hosted
    return {
        "id": hosted.id,
        "name": hosted.name,
        "exchange": step.exchange,
        "sha256": hosted.script.sha256 if hosted.script else None,
        "schedule": stored(step.schedule) if step.schedule else None,
        "stopped": hosted.held,
        "result": result.result,
        "reason": result.reason,
        "strategy_id": result.strategy_id,
        "notes": result.notes,
    }
