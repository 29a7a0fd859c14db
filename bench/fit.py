"""How many strategies with pandas fit in 2 GiB: Openbell, with all it starts, has no more.

They do what a strategy does that trades by the minute: a frame of 1000 rows, to which a tick adds
one, resampled, with a rolling mean; each at a second of its own. All must have ticked in the last
minute of three. It needs root and cgroup v1, where Openbell's groups lie below its own.
"""

import contextlib
import os
import tempfile
import time
from collections.abc import Generator, Iterator
from pathlib import Path

import psutil

from bench.figure import Figure, median
from bench.memory import pss
from bench.population import populate, schedule_once, strategy_of
from tests.fixtures.default_environment import base_interpreter, default_environment
from tests.fixtures.processes import name_of
from tests.fixtures.stack import Stack, end_all, processes_of, start_one_process

USERS, STRATEGIES = 5, 200
AT_LEAST = 150
ROOM = 2 << 30
AHEAD_S, WATCHED_S = 45, 180
MINUTE_S = 60
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
    if not (MEMORY / "memory.limit_in_bytes").exists() or os.geteuid() != 0:
        print("     fit: left out, for it needs root and cgroup v1")
        return
    python = default_environment(base_interpreter())
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        try:
            populate(home, users=USERS, strategies=STRATEGIES)
            bell = time.time() + AHEAD_S
            schedule_once(home, bell, _source)
            with _room() as group:
                stack = start_one_process(home, OPENBELL_RUNNER__PYTHON=str(python))
                _leave()
                yield from _figures(stack, group, bell)
                stack.stop()
        finally:
            end_all(home)


def _source(number: int) -> bytes:
    return TICKING.replace("NUMBER", str(number)).encode()


def _figures(stack: Stack, group: Path, bell: float) -> Iterator[Figure]:
    time.sleep(max(0, bell + WATCHED_S - time.time()))
    ticking = sum(_last_tick(stack.home, n) > time.time() - MINUTE_S - 5 for n in range(STRATEGIES))
    taken = int((group / "memory.usage_in_bytes").read_text())
    stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    kept = taken - int(stat["total_inactive_file"])
    runs = [p for p in processes_of(stack.home) if name_of(p) == "openbell-keeper"]
    each = [_with_keeper(keeper) / 2**10 for keeper in runs]
    print(f"     {ticking} of {STRATEGIES} tick, {len(runs)} run; {kept >> 20} MB are taken")
    yield Figure(f"{AT_LEAST} against those that tick", AT_LEAST, max(ticking, 1), "", 1)
    yield Figure("memory of one that ticks, with its keeper, PSS", median(each), 12, "MB", 1)


def _with_keeper(keeper: psutil.Process) -> int:
    """Kilobytes."""
    return sum(pss(p.pid) for p in (keeper, *keeper.children(recursive=True)))


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
        group.rmdir()


def _leave() -> None:
    (MEMORY / "tasks").write_text("0")
