"""How many strategies with pandas fit in 2 GiB: Openbell, with all it starts, has no more.

They do what a strategy does that trades by the minute: a frame of 1000 rows, to which a tick adds
one, resampled, with a rolling mean; each at a second of its own. All must have ticked in the last
minute of three. It needs root and cgroup v1, where Openbell's groups lie below its own.
"""

import contextlib
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Generator, Iterator
from pathlib import Path

import psutil

from bench.figure import Figure, median
from bench.memory import pss
from bench.population import populate, schedule_once, strategy_of
from tests.fixtures.default_environment import (
    base_interpreter,
    default_environment,
    newer_interpreter,
)
from tests.fixtures.stack import end_all, start_one_process

STRATEGIES = AT_LEAST = 150
ROOM = 2 << 30
AHEAD_S, WATCHED_S = 45, 180
MINUTE_S = 60
KEEPER, STRATEGY = "openbell-keeper", "python"
MEMORY = Path("/sys/fs/cgroup/memory")
TICKING = """\
import sys, time
import numpy as np
import pandas as pd

index = pd.date_range("2026-01-01 09:15", periods=1000, freq="s")
frame = pd.DataFrame({"price": np.random.rand(1000).cumsum()}, index=index)
time.sleep(NUMBER * 7919 % 60)
while True:
    row = pd.DataFrame({"price": [np.random.rand()]}, index=[frame.index[-1] + pd.Timedelta("1s")])
    frame = pd.concat([frame, row]).iloc[-1000:]
    bars = frame["price"].resample("1min").ohlc()
    mean = frame["price"].rolling(20).mean().iloc[-1]
    print(time.time(), len(bars), mean, flush=True)
    time.sleep(60 - time.time() % 1)
"""


def measure() -> Iterator[Figure]:
    if not (MEMORY / "memory.limit_in_bytes").exists() or not os.access(MEMORY, os.W_OK):
        print("     fit: left out, for it needs root and cgroup v1")
        return
    python = default_environment(newer_interpreter() or base_interpreter())
    with tempfile.TemporaryDirectory() as folder, _room() as group:
        home = Path(folder) / "home"
        try:
            populate(home, users=1, strategies=STRATEGIES)
            bell = time.time() + AHEAD_S
            schedule_once(home, bell, _source)
            stack = start_one_process(home, OPENBELL_RUNNER__PYTHON=str(python))
            _leave()
            yield from _figures(home, group, bell)
            stack.stop()
        finally:
            end_all(home)


def _source(number: int) -> bytes:
    return TICKING.replace("NUMBER", str(number)).encode()


def _figures(home: Path, group: Path, bell: float) -> Iterator[Figure]:
    time.sleep(max(0, bell + WATCHED_S - time.time()))
    ticking = sum(_last_tick(home, n) > time.time() - MINUTE_S - 5 for n in range(STRATEGIES))
    taken = int((group / "memory.usage_in_bytes").read_text()) >> 20
    print(f"     {ticking} of {STRATEGIES} tick; {taken} of {ROOM >> 20} MB are taken")
    by_name: defaultdict[str, list[float]] = defaultdict(list)
    for process in _processes(group):
        with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError):
            by_name[process.name()].append(pss(process.pid) / 2**10)
    for name, each in sorted(by_name.items()):
        print(f"     {len(each):4} {name:20} {median(each):6.1f} MB each (PSS)")
    strategies, keepers = by_name[STRATEGY], by_name[KEEPER]
    yield Figure(f"{AT_LEAST} against those that tick", AT_LEAST, max(ticking, 1), "", 1)
    if strategies and keepers:
        one = median(strategies) + median(keepers)
        yield Figure("memory of one that ticks, with its keeper, PSS", one, 12, "MB", 1)


def _processes(group: Path) -> list[psutil.Process]:
    """All in the group, and in those below it."""
    found: list[psutil.Process] = []
    for tasks in group.rglob("cgroup.procs"):
        for pid in tasks.read_text().split():
            with contextlib.suppress(psutil.NoSuchProcess):
                found.append(psutil.Process(int(pid)))
    return found


def _last_tick(home: Path, number: int) -> float:
    log = home / "log" / "strategies" / strategy_of(number) / f"{strategy_of(number)}-1.log"
    lines = log.read_text().splitlines() if log.exists() else []
    return float(lines[-1].split()[0]) if lines else 0


@contextlib.contextmanager
def _room() -> Generator[Path]:
    """A group of so much memory, in which whatever this process starts is from now on."""
    group = MEMORY / f"openbell-bench-{os.getpid()}"
    group.mkdir()
    try:
        (group / "memory.limit_in_bytes").write_text(str(ROOM))
        (group / "tasks").write_text("0")
        yield group
    finally:
        _leave()
        with contextlib.suppress(OSError):  # somebody in it has not ended yet
            group.rmdir()


def _leave() -> None:
    (MEMORY / "tasks").write_text("0")
