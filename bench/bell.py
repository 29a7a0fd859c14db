"""500 strategies due at one instant, each granted, prepared and parked before it.

How late each first usable line of user code is, behind its imports, of strategies that go on then;
against bare forks of an interpreter that has imported the same, parked, and released by a byte
each; and against a loop of Popen over the same scripts. None may be early, and all must be there.
"""

import asyncio
import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sqlmodel import select

from bench.figure import Figure, median, percentile
from bench.population import populate, schedule_once, strategy_of
from bench.start import ENVIRONMENT
from openbell.db.models import Run
from openbell.db.session import Database
from openbell.settings import Settings
from tests.fixtures.default_environment import base_interpreter, default_environment
from tests.fixtures.stack import end_all, start_one_process

USERS, STRATEGIES = 50, 500
AHEAD_S = 55
"""From writing the schedules to the bell: Openbell comes up, plans, and rests."""
PATIENCE_S = 180
PERCENTILES: dict[str, Callable[[list[float]], float]] = {
    "p50": median,
    "p99": partial(percentile, percent=99),
    "max": max,
}
LATE_MS = 60
PARKED = """\
import gc, json, os, sys, time
several, names = int(sys.argv[1]), sys.argv[2:]
for name in names:
    __import__(name)
gc.disable(); gc.collect(); gc.freeze()
gos, ready, told = [], os.pipe(), os.pipe()
for number in range(several):
    go = os.pipe()
    if os.fork() == 0:
        os.write(ready[1], b"r")
        os.read(go[0], 1)
        os.write(told[1], f"{time.time()!r}\\n".encode())
        os._exit(0)
    gos.append(go[1])
left = several
while left:
    left -= len(os.read(ready[0], left))
bell = time.time() + 1
time.sleep(1)
for go in gos:
    os.write(go, b"g")
said = b""
while said.count(b"\\n") < several:
    said += os.read(told[0], 65536)
print(json.dumps([float(line) - bell for line in said.split()]))
"""


@dataclass(frozen=True, slots=True)
class Kind:
    name: str
    imports: tuple[str, ...]
    users: int
    """Each has an interpreter that imports, once."""

    def source(self, number: int) -> bytes:
        names = ", ".join((*self.imports, "time"))
        return f"import {names}\nprint(repr(time.time()))  # {number}\ntime.sleep(15)\n".encode()


KINDS = (Kind("plain", (), USERS), Kind("pandas", ("numpy", "pandas"), 5))


def measure() -> Iterator[Figure]:
    python = default_environment(base_interpreter())
    for kind in KINDS:
        yield from _bell(kind, python)


def _bell(kind: Kind, python: Path) -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        loop = _popens(Path(folder) / "bare", kind, python) if kind.name == "plain" else None
        before = _parked_forks(kind, python)
        try:
            populate(home, users=kind.users, strategies=STRATEGIES)
            bell = time.time() + AHEAD_S
            schedule_once(home, bell, kind.source)
            stack = start_one_process(home, OPENBELL_RUNNER__PYTHON=str(python))
            hosted = _first_lines(home, bell)
            leads = asyncio.run(_leads(Settings(home=home)))
            _wait_for_all(home)
            print(f"     granted {percentile(leads, 1):.2f} s ahead (p1)")
            print(f"     parked {percentile(_parked(home, bell), 1):.2f} s ahead (p1)")
            stack.stop()
        finally:
            end_all(home)
        bare = (before, _parked_forks(kind, python))
    what = f"{STRATEGIES} {kind.name} at a bell"
    early, due = sum(late < 0 for late in hosted), sum(lead > 0 for lead in leads)
    yield Figure(f"{what}, not there, + 1", STRATEGIES - len(hosted) + 1, 1, "", 1)
    yield Figure(f"{what}, early, + 1", early + 1, 1, "", 1)
    yield Figure(f"{what}, granted late, + 1", STRATEGIES - due + 1, 1, "", 1)
    for name, of in PERCENTILES.items():
        reference = sum(map(of, bare)) / len(bare)  # the machine's moods change meanwhile
        yield Figure(f"{what}, {name}", of(hosted) * 1e3, reference * 1e3, "ms", 1.5)
    yield Figure(f"{what}, p99, in ms", percentile(hosted, 99) * 1e3, LATE_MS, "ms", 1)
    if loop:
        ratio = percentile(hosted, 99) / percentile(loop, 99)
        print(f"     a loop of Popen: p50 {median(loop):.2f} s, p99 {percentile(loop, 99):.2f} s")
        print(f"     p99 of ours against it: {ratio:.3f}x")


def _parked_forks(kind: Kind, python: Path) -> list[float]:
    """How late each of them was, in seconds."""
    command = [str(python), "-c", PARKED, str(STRATEGIES), *kind.imports]
    environment = {**ENVIRONMENT, "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def _popens(folder: Path, kind: Kind, python: Path) -> list[float]:
    """A list of how late each was, in seconds."""
    for number in range(STRATEGIES):
        place = folder / str(number)
        place.mkdir(parents=True)
        (place / "s.py").write_bytes(kind.source(number))
    began = time.time()
    processes = [_popen(folder / str(number), python) for number in range(STRATEGIES)]
    for process in processes:
        process.wait()
    return [float((folder / str(n) / "log").read_text()) - began for n in range(STRATEGIES)]


def _popen(place: Path, python: Path) -> "subprocess.Popen[bytes]":
    """In a session of its own, as Openbell's: Linux shares the processors out by sessions."""
    with (place / "log").open("wb") as log:
        return subprocess.Popen(
            [python, "s.py"],
            cwd=place,
            stdout=log,
            env=ENVIRONMENT,
            start_new_session=True,
        )


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


def _wait_for_all(home: Path) -> None:
    """Until all have ended: what is stopped by hundreds is another benchmark's."""
    journal = home / "data" / "warden" / "journal.jsonl"
    until = time.time() + PATIENCE_S
    while journal.read_text().count('"kind":"exited"') < STRATEGIES and time.time() < until:
        time.sleep(1)


def _parked(home: Path, bell: float) -> list[float]:
    """How long before the bell the warden held each prepared start."""
    journal = (home / "data" / "warden" / "journal.jsonl").read_text()
    entries = [json.loads(line) for line in journal.splitlines()]
    return [bell - entry["at"] for entry in entries if entry["kind"] == "parked"]
