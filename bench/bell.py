"""500 strategies due at one instant, each granted, prepared and parked before it.

How late each first line of user code is, against a bare loop of Popen over the same scripts. On
few processors most of that is the scripts' own coming up, one beside the other.
"""

import asyncio
import hashlib
import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from sqlmodel import col, delete, select

from bench.figure import Figure, median, percentile
from bench.population import populate, strategy_of
from bench.start import ENVIRONMENT
from openbell.db.models import Run, ScheduleRow, Version
from openbell.db.session import Database
from openbell.settings import Settings
from tests.fixtures.default_environment import base_interpreter
from tests.fixtures.stack import end_all, start_one_process

USERS, STRATEGIES = 50, 500
AHEAD_S = 40
"""From writing the schedules to the bell: Openbell comes up, plans, and rests."""
PATIENCE_S = 180
PERCENTILES: dict[str, Callable[[list[float]], float]] = {
    "p50": median,
    "p99": partial(percentile, percent=99),
    "max": max,
}
SCRIPT = "import time; print(repr(time.time()))  # {number}\n"


def measure() -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        before = _bare(Path(folder) / "before")
        try:
            populate(home, users=USERS, strategies=STRATEGIES)
            bell = time.time() + AHEAD_S
            asyncio.run(_schedule(Settings(home=home), bell))
            stack = start_one_process(home)
            hosted = _first_lines(home, bell)
            leads = asyncio.run(_leads(Settings(home=home)))
            print(f"     granted {percentile(leads, 1):.2f} s ahead (p1)")
            print(f"     parked {percentile(_parked(home, bell), 1):.2f} s ahead (p1)")
            stack.stop()
        finally:
            end_all(home)
        bare = (before, _bare(Path(folder) / "after"))
    started, due = len(hosted), sum(lead > 0 for lead in leads)
    yield Figure(f"of {STRATEGIES} at a bell, not started, + 1", STRATEGIES - started + 1, 1, "", 1)
    yield Figure(f"of {STRATEGIES} at a bell, granted late, + 1", STRATEGIES - due + 1, 1, "", 1)
    for name, of in PERCENTILES.items():
        what = f"first line of {STRATEGIES} at a bell, {name}"
        reference = sum(map(of, bare)) / len(bare)  # the machine's moods change meanwhile
        yield Figure(what, of(hosted) * 1e3, reference * 1e3, "ms", 1.3)


def _source(number: int) -> bytes:
    return SCRIPT.format(number=number).encode()


def _bare(folder: Path) -> list[float]:
    """A list of how late each was, in seconds."""
    for number in range(STRATEGIES):
        place = folder / str(number)
        place.mkdir(parents=True)
        (place / "s.py").write_bytes(_source(number))
    began = time.time()
    processes = [_popen(folder / str(number)) for number in range(STRATEGIES)]
    for process in processes:
        process.wait()
    return [float((folder / str(n) / "log").read_text()) - began for n in range(STRATEGIES)]


def _popen(place: Path) -> "subprocess.Popen[bytes]":
    """In a session of its own, as Openbell's: Linux shares the processors out by sessions."""
    with (place / "log").open("wb") as log:
        return subprocess.Popen(
            [base_interpreter(), "s.py"],
            cwd=place,
            stdout=log,
            env=ENVIRONMENT,
            start_new_session=True,
        )


async def _schedule(settings: Settings, bell: float) -> None:
    """Every strategy once, at the bell; each with a source of its own."""
    now = datetime.now(UTC)
    at = datetime.fromtimestamp(bell, UTC).isoformat()
    spec = {
        "kind": "once",
        "timezone": None,
        "at": at,
        "stop": None,
        "catch_up": "start",
        "max_runtime": None,
    }
    database = Database(settings.database_url)
    async with database.write() as session:
        await session.exec(delete(ScheduleRow))
        versions = await session.exec(select(Version).order_by(col(Version.strategy_id)))
        for number, version in enumerate(versions.all()):
            version.source = _source(number)
            version.sha256 = hashlib.sha256(version.source).hexdigest()
            version.size = len(version.source)
            row = ScheduleRow(
                strategy_id=version.strategy_id, revision=1, spec=spec, updated_at=now
            )
            session.add_all([version, row])
    await database.close()


def _first_lines(home: Path, bell: float) -> list[float]:
    """How late each was that came, in seconds. Little is done here while they come."""
    logs = [
        home / "log" / "strategies" / strategy_of(number) / f"{strategy_of(number)}-1.log"
        for number in range(STRATEGIES)
    ]
    time.sleep(max(0, bell - time.time()))
    while time.time() < bell + PATIENCE_S:
        time.sleep(1)
        if all(log.exists() and log.stat().st_size for log in reversed(logs)):
            break
    said = [log.read_text() for log in logs if log.exists()]
    return [float(text) - bell for text in said if text]


async def _leads(settings: Settings) -> list[float]:
    """How long before its instant each run was granted, in seconds."""
    database = Database(settings.database_url)
    async with database.read() as session:
        runs = (await session.exec(select(Run))).all()
    await database.close()
    return [(run.due_at - run.granted_at).total_seconds() for run in runs if run.due_at]


def _parked(home: Path, bell: float) -> list[float]:
    """How long before the bell the warden held each prepared start."""
    journal = (home / "data" / "warden" / "journal.jsonl").read_text()
    entries = [json.loads(line) for line in journal.splitlines()]
    return [bell - entry["at"] for entry in entries if entry["kind"] == "parked"]
