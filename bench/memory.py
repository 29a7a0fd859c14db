"""Idle memory of everything (PSS), against the budget."""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.figure import Figure
from tests.fixtures.stack import end_all, processes_of, start_one_process

BUDGET_MB = 200
SETTLE_S = 5


def pss(pid: int) -> int:
    """Kilobytes, with shared pages divided among those who share them. Linux alone tells."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))


def measure() -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        try:
            stack = start_one_process(home)
            stack.http.get("/python/").raise_for_status()
            time.sleep(SETTLE_S)  # idle is what is measured
            total = 0.0
            for process in processes_of(home):
                megabytes = pss(process.pid) / 2**10
                print(f"     {process.name():20} {megabytes:6.1f} MB")
                total += megabytes
            stack.stop()
        finally:
            end_all(home)
    yield Figure("idle memory of everything, PSS", total, BUDGET_MB, "MB", 1)
