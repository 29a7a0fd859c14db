"""One status change with 10,000 registered strategies, against the same with 10.

Both Openbells run side by side and are asked in turn, so that the machine's moods are shared.
"""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from bench.figure import Figure, median
from bench.population import populate, strategy_of, token_of
from tests.fixtures.stack import Stack, end_all, start_one_process

FEW, MANY = 10, 10_000
USERS = 10
CHANGES = 300
WARM_UP = 20
SETTLE_S = 60


def measure() -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        homes = {count: Path(folder) / str(count) for count in (FEW, MANY)}
        try:
            stacks: dict[int, Stack] = {}
            for count, home in homes.items():
                populate(home, users=USERS, strategies=count)
                stacks[count] = start_one_process(home)
            for stack in stacks.values():
                _settle(stack)
            _alternate(stacks, WARM_UP)
            before = {count: _cpu(stack) for count, stack in stacks.items()}
            seconds = _alternate(stacks, CHANGES)
            used = {count: _cpu(stack) - before[count] for count, stack in stacks.items()}
            for stack in stacks.values():
                stack.stop()
        finally:
            for home in homes.values():
                end_all(home)
    few, many = (median(seconds[count]) * 1e3 for count in (FEW, MANY))
    yield Figure(f"a change among {MANY}, against {FEW}, p50", many, few, "ms", 1.3)
    few, many = (used[count] / CHANGES * 1e3 for count in (FEW, MANY))
    yield Figure(f"its processor time, {MANY} against {FEW}", many, few, "ms", 1.3)


def _settle(stack: Stack) -> None:
    """Until it has planned all that it has just met."""
    deadline = time.monotonic() + SETTLE_S
    while time.monotonic() < deadline:
        before = _cpu(stack)
        time.sleep(2)
        if _cpu(stack) - before < 0.1:
            return


def _alternate(stacks: dict[int, Stack], changes: int) -> dict[int, list[float]]:
    clients = {count: stack.client(token_of(0)) for count, stack in stacks.items()}
    seconds: dict[int, list[float]] = {count: [] for count in stacks}
    for number in range(changes):
        verb = ("stop", "resume")[number % 2]
        for count, client in clients.items():
            began = time.perf_counter()
            answer = client.post(f"/python/{verb}/{strategy_of(0)}")
            seconds[count].append(time.perf_counter() - began)
            assert answer.status_code == 202, answer.text
            assert answer.json()["strategy"]["intent"] == ("stop", "auto")[number % 2]
    for client in clients.values():
        client.close()
    return seconds


def _cpu(stack: Stack) -> float:
    times = psutil.Process(stack.processes[0].pid).cpu_times()
    return times.user + times.system
