"""The monitor over real control groups: what the kernel counts, and what follows of it."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Generator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from openbell.contracts.limits import Limits, Usage, Watchdogs
from openbell.contracts.model import ExitReason, StopStep
from services.runner.monitor.monitor import KILL, Monitor, Watched
from services.runner.monitor.samples import Enforced
from tests.fixtures.stack import eventually

if sys.platform != "linux":
    pytest.skip("control groups are Linux's", allow_module_level=True)

from services.runner.warden.cgroup import Group
from services.runner.warden.cgroups import Bounds, Groups

MB = 1024**2
GREEDY = """
import os, signal, time
if os.fork() == 0:
    held = bytearray(200_000_000)
os.wait()
print("survived", flush=True)
time.sleep(600)
"""
BOMB = """
import os, signal, time
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
while True:
    try:
        if os.fork() == 0:
            time.sleep(600)
            os._exit(0)
    except OSError:
        time.sleep(0.001)
"""
THREADS = """
import threading, time
for _ in range(100):
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
"""


@pytest.fixture(scope="module")
def groups() -> Generator[Groups]:
    opened = Groups.open(f"test-monitor-{os.getpid()}")
    if not (opened.enforces["memory"] and opened.enforces["processes"]):
        opened.close()
        pytest.skip(f"no control groups of our own: {opened.why}")
    yield opened
    opened.close()


class Confined:
    """A script in a group, watched by a monitor whose clock is ours."""

    def __init__(self, groups: Groups, folder: Path, source: str, limits: Limits) -> None:
        assert limits.memory_mb is not None
        self.now = 100.0
        self.stops: list[tuple[Sequence[StopStep], ExitReason, str]] = []
        bounds = Bounds(limits.memory_mb * MB, limits.processes)
        self.group: Group = groups.create(f"r{id(self):x}", bounds)
        self.process = subprocess.Popen(
            [sys.executable, "-c", source],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            preexec_fn=self.group.enter,  # noqa: PLW1509 - one thread
            start_new_session=True,
        )
        self.monitor = Monitor(self.stop, clock=lambda: self.now)
        run = Watched(
            strategy_id="s",
            folder=folder,
            log=folder / "log",
            heartbeat=None,
            limits=limits,
            watchdogs=Watchdogs(),
            ladder=(),
            started_at=datetime.now(UTC),
            pid=self.process.pid,
            group=self.group,
            enforced=Enforced(memory=True, processes=True),
        )
        self.monitor.watch("r", run)

    async def stop(
        self, run_id: str, ladder: Sequence[StopStep], reason: ExitReason, detail: str
    ) -> None:
        self.stops.append((ladder, reason, detail))
        self.group.kill()

    def look(self) -> None:
        self.now += 1
        asyncio.run(self.monitor.look())

    def wait_for_a_refusal(self) -> None:
        """One more than the last look has seen."""
        samples = self.monitor.runs["r"][1]
        before = samples[-1].reading.refused if samples else 0
        eventually(
            lambda: self.group.used().refused > before or None,
            lambda: "it is not refused any more",
        )

    def end(self) -> None:
        self.group.kill()
        self.process.communicate()
        eventually(lambda: self.group.remove() or None, lambda: "somebody is left in it")


def test_a_child_that_took_too_much_ends_its_run(groups: Groups, tmp_path: Path) -> None:
    confined = Confined(groups, tmp_path, GREEDY, Limits(memory_mb=64))
    try:
        # of the first version the kernel has ended the child alone, of the second all of it
        eventually(lambda: confined.group.used().out_of_memory or None, lambda: "nothing was ended")
        confined.look()
        [(ladder, reason, detail)] = confined.stops
        assert (ladder, reason) == (KILL, ExitReason.MEMORY_LIMIT)
        assert detail.endswith("ended: it may use 64 MB")
        assert confined.process.wait(10) != 0
    finally:
        confined.end()


def test_a_fork_bomb_is_ended_after_ten_seconds(groups: Groups, tmp_path: Path) -> None:
    """Ten seconds of the monitor's clock: what the kernel refused goes on rising in between."""
    confined = Confined(groups, tmp_path, BOMB, Limits(memory_mb=256, processes=16))
    try:
        for second in range(12):
            confined.wait_for_a_refusal()
            assert confined.stops == [], second
            confined.look()
            if confined.stops:
                break
        [(ladder, reason, detail)] = confined.stops
        assert (ladder, reason) == (KILL, ExitReason.PROCESS_LIMIT)
        assert detail == "asked for more than 16 processes and threads for 10 s"
        assert confined.now == 111
        assert confined.process.wait(10) != 0
    finally:
        confined.end()


def test_a_script_that_crashes_for_want_of_threads(groups: Groups, tmp_path: Path) -> None:
    confined = Confined(groups, tmp_path, THREADS, Limits(memory_mb=256, processes=8))
    try:
        assert confined.process.wait(20) == 1
        usage = Usage(refused=confined.group.used().refused)
        confined.look()
        found = confined.monitor.concluded("r", ExitReason.CRASHED, usage)
        assert found is not None
        assert found.reason is ExitReason.PROCESS_LIMIT
        assert "8 may be there at one time" in found.detail
    finally:
        confined.end()


def test_what_a_group_uses_is_told(groups: Groups, tmp_path: Path) -> None:
    source = "import time; held = bytearray(30_000_000); print(1, flush=True); time.sleep(600)"
    confined = Confined(groups, tmp_path, source, Limits(memory_mb=256))
    try:
        assert confined.process.stdout is not None
        confined.process.stdout.readline()
        confined.look()
        reading = confined.monitor.runs["r"][1][-1].reading
        assert 30_000_000 < reading.memory < 80_000_000
        assert reading.peak_memory is not None
        assert reading.peak_memory >= reading.memory
        assert reading.processes == 1
        assert 0 < reading.cpu_s < 5
        assert (reading.refused, reading.out_of_memory) == (0, 0)
    finally:
        confined.end()
