"""What a host has left for more runs. Pure, but for `Rooms`, which looks.

What a run is expected to need is kept for it from the moment it is ordered: memory that nobody uses
yet would be given away again and again while hundreds are prepared.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import psutil

from openbell.contracts.room import FORKED_BYTES, UNKNOWN_BYTES, Room
from services.runner.monitor.host import Times, busy_percent, processor_times
from services.runner.monitor.monitor import Monitor
from services.runner.monitor.samples import Group, Sample

LEAST_RESERVE = 64 * 1024**2
RESERVED_SHARE = 20
"""A twentieth of it."""
MINUTE_S = 60
SEEN_S = 60
"""Once a run is so old, what it was seen to use is a better guess than any."""


class Memory(NamedTuple):
    """Bytes of a machine, or of a control group."""

    total: int
    free: int

    @property
    def left(self) -> int:
        """Less what is kept for whatever else is there, and for what was not foreseen."""
        return self.free - max(LEAST_RESERVE, self.total // RESERVED_SHARE)


class Expected(NamedTuple):
    """What a run is to need, in bytes."""

    memory: int
    as_seen: bool = False
    """By runs of its strategy; else it is a guess."""


class Share(NamedTuple):
    """Bytes of one run."""

    expected: int
    used: int | None
    """None: it has some, and nobody knows how much."""

    @property
    def promised(self) -> int:
        """What it is expected to take besides."""
        return 0 if self.used is None else max(0, self.expected - self.used)

    @property
    def size(self) -> int:
        return max(self.expected, self.used or 0)


def room(
    memory: Memory,
    runs: Mapping[str, Share],
    most_runs: int | None,
    busy: float | None,
    *,
    forks: bool = False,
) -> Room:
    unknown = FORKED_BYTES if forks else UNKNOWN_BYTES
    promised = sum(share.promised for share in runs.values())
    size = sum(share.size for share in runs.values())
    return Room(
        memory_total_bytes=memory.total,
        memory_free_bytes=memory.left - promised,
        memory_promised_bytes=promised,
        forks=forks,
        each_bytes=max(unknown, size // len(runs) if runs else 0),
        most_runs=most_runs,
        run_ids=tuple(sorted(runs)),
        busy_percent=busy,
    )


class Busy:
    """How busy processors were in the last minute."""

    def __init__(self) -> None:
        self._looks: deque[tuple[float, Times]] = deque()

    def look(self, now: float, times: Times) -> float | None:
        """`now` is in monotonic seconds, `times` those of the processors since they started. None
        before there was a minute.
        """
        self._looks.append((now, times))
        while len(self._looks) > 1 and now - self._looks[1][0] >= MINUTE_S:
            self._looks.popleft()
        since, before = self._looks[0]
        return busy_percent(before, times) if now - since >= MINUTE_S else None


class Host(Protocol):
    """Of a backend, what must be known here."""

    def group(self, run_id: str) -> Group | None: ...

    def ceiling(self) -> tuple[int, int] | None: ...


class Rooms:
    """Told again and again. `expected` tells of each run that lives or is prepared what it is to
    need.
    """

    def __init__(
        self,
        host: Host,
        monitor: Monitor,
        expected: Callable[[], Mapping[str, Expected]],
        most_runs: int | None = None,
        forks: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._host = host
        self._monitor = monitor
        self._expected = expected
        self._most_runs = most_runs
        self._forks = forks
        self._clock = clock
        self._busy = Busy()

    async def look(self) -> Room:
        """The runs first: what is ordered while we look counts for the one who has ordered it."""
        runs = dict(self._expected())
        watched = {run_id: samples for run_id, (_, samples) in self._monitor.runs.items()}
        return await asyncio.to_thread(self._look, runs, watched)

    def _look(
        self, expected: Mapping[str, Expected], watched: Mapping[str, Sequence[Sample]]
    ) -> Room:
        shares = {
            run_id: self._share(run_id, one, watched.get(run_id))
            for run_id, one in expected.items()
        }
        busy = self._busy.look(self._clock(), processor_times())
        memory = available(self._host.ceiling())
        return room(memory, shares, self._most_runs, busy, forks=self._forks())

    def _share(self, run_id: str, expected: Expected, samples: Sequence[Sample] | None) -> Share:
        """`samples` are None of what is not watched, and empty of what we have just found."""
        if not samples:
            return Share(expected.memory, self._used(run_id, 0 if samples is None else None))
        used = samples[-1].reading.memory
        if expected.as_seen or samples[-1].age_s < SEEN_S:
            return Share(expected.memory, used)
        return Share(self._monitor.working_memory(run_id) or used, used)

    def _used(self, run_id: str, otherwise: int | None) -> int | None:
        """Of a run that is not watched yet: it is prepared, or we have found it just now."""
        group = self._host.group(run_id)
        if group is not None:
            with contextlib.suppress(OSError):
                told = group.used().memory
                return otherwise if told is None else told
        return otherwise


def available(ceiling: tuple[int, int] | None) -> Memory:
    """Of the machine, or of the control group of all runs, whichever has less left."""
    machine = psutil.virtual_memory()
    found = [Memory(machine.total, machine.available)]
    if ceiling is not None:
        found.append(Memory(*ceiling))
    return min(found, key=lambda memory: memory.left)
