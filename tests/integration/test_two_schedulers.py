"""Two schedulers on one database, killed at random: each due start happens, and happens once.

`make fault` takes more of them, and longer.
"""

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import pytest

from openbell.db.session import Database
from openbell.settings import Settings
from tests.fixtures.due import add_due, due_id, runs_and_starts
from tests.fixtures.stack import (
    SERVICES,
    Stack,
    add_service,
    end_all,
    eventually,
    start_five_processes,
)

MANY = bool(os.environ.get("OPENBELL_FAULTS"))
STARTS = 1000 if MANY else 40
PER_SECOND = 5.0 if MANY else 4.0
AHEAD_S = 3
PATIENCE_S = 90
SECOND_SCHEDULER = len(SERVICES) + 1


@contextmanager
def two_schedulers(home: Path, lead_s: float) -> Generator[Stack]:
    try:
        stack = start_five_processes(home, OPENBELL_SCHEDULER__LEAD_S=str(lead_s))
        add_service(stack, "scheduler", replace=False)
        yield stack
        stack.stop()
    finally:
        end_all(home)


class Killer:
    """kill -9 of the one or the other, and a new one in its place a little later."""

    def __init__(self, stack: Stack, seed: int) -> None:
        self._stack = stack
        self._random = random.Random(seed)
        self.kills: list[float] = []

    def work_until(self, end: float) -> None:
        first = 1 + SERVICES.index("scheduler")
        while time.time() < end:
            time.sleep(self._random.uniform(0.2, 3))
            place = self._random.choice([first, SECOND_SCHEDULER])
            process = self._stack.processes[place]
            process.kill()
            process.wait()
            self.kills.append(time.time())
            time.sleep(self._random.uniform(0, 1))
            add_service(self._stack, "scheduler", place=place)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("lead_s", [0, 10] if MANY else [0])
def test_every_due_start_happens_once_however_schedulers_die(tmp_path: Path, lead_s: float) -> None:
    seed = int.from_bytes(os.urandom(4), "big")
    print(f"seed {seed}")
    with two_schedulers(tmp_path / "home", lead_s) as stack:
        begin = datetime.now(UTC) + timedelta(seconds=AHEAD_S)
        instants = [begin + timedelta(seconds=n / PER_SECOND) for n in range(STARTS)]
        on(stack, lambda database: add_due(database, instants))
        killer = Killer(stack, seed)
        killer.work_until(instants[-1].timestamp())
        eventually(lambda: _all_ended(stack), lambda: "not all of them came", PATIENCE_S)
        runs, starts = on(stack, runs_and_starts)
        each_once = Counter(due_id(number) for number in range(STARTS))
        assert Counter(run.strategy_id for run in runs) == each_once
        assert {(run.cause, run.epoch, run.reason) for run in runs} == {
            ("schedule", 1, "completed")
        }
        assert Counter(start.state for start in starts) == {"done": STARTS}
        assert [_lines(stack, number) for number in range(STARTS)] == [1] * STARTS
        late = sorted(start.late_s or 0 for start in starts)
        median, most = late[STARTS // 2], late[-1]
        print(f"{len(killer.kills)} kills; late: median {median:.3f} s, at most {most:.2f} s")


T = TypeVar("T")


def on(stack: Stack, work: Callable[[Database], Awaitable[T]]) -> T:
    """Do this with the database of a stack."""

    async def scene() -> T:
        url = stack.environment.get("OPENBELL_DATABASE__URL")
        database = Database(url or Settings(home=stack.home).database_url)
        try:
            return await work(database)
        finally:
            await database.close()

    return asyncio.run(scene())


def _all_ended(stack: Stack) -> bool | None:
    runs, _ = on(stack, runs_and_starts)
    return len({run.strategy_id for run in runs if run.exited_at}) == STARTS or None


def _lines(stack: Stack, number: int) -> int:
    """How often it ran, whichever run that was."""
    logs = (stack.home / "log" / "strategies" / due_id(number)).glob("*.log")
    return sum(log.read_text().count("\n") for log in logs)
