"""Looks at every live run each second, and has those ended that break what their policy says."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import structlog

from openbell.contracts.limits import Limits, Usage, Watchdogs
from openbell.contracts.model import ExitReason, StopStep
from services.runner.backends.base import BackendLost, NoSuchRun
from services.runner.monitor.folders import Folders
from services.runner.monitor.samples import WATCHED_ONLY, Enforced, Group, Reading, Sample
from services.runner.monitor.sources import Reader
from services.runner.monitor.traces import Trace
from services.runner.monitor.verdicts import KEPT_S, RECENT_S, Verdict, concluded, judge

KILL = (StopStep(signal="SIGKILL", wait_s=0),)
NO_LIMIT = Limits()
"""Of memory, that is: what it was is not known."""

Stop = Callable[[str, Sequence[StopStep], ExitReason, str], Awaitable[None]]
"""End this run, by this ladder, for this reason, of which the detail is for people.

Raises BackendLost when nobody can be told just now, NoSuchRun when there is no such run.
"""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Watched:
    """A live run, and what its owner wants of it."""

    strategy_id: str
    folder: Path
    log: Path
    heartbeat: Path | None
    limits: Limits
    """With the memory that it may use, also where that is by the host's size."""
    watchdogs: Watchdogs
    ladder: tuple[StopStep, ...]
    started_at: datetime
    pid: int
    """Its main process, or its keeper."""
    keeper: bool = False
    """Whether that is a keeper, none of the strategy's own processes."""
    group: Group | None = None
    """Where it is read, if there is one; else its processes are."""
    enforced: Enforced = WATCHED_ONLY


@dataclass(slots=True)
class _Seen:
    """A run, and the looks at it."""

    run: Watched
    started: float
    """Monotonic seconds, by what the host's clock makes of its age."""
    watched: float
    """Since when silence counts. Monotonic seconds: of a run that was found running, what the
    host's clock says may be the pause of a whole machine, in which it could say nothing.
    """
    samples: deque[Sample] = field(default_factory=deque[Sample])
    written: Trace = field(default_factory=Trace)
    beaten: Trace = field(default_factory=Trace)
    acted_on: Verdict | None = None
    most_memory: int | None = None
    """Bytes, at any look."""

    def sample(self, reading: Reading, folder_bytes: int | None, now: float) -> Sample:
        """Looks at its two files, too."""
        self.written.look_at_size(self.run.log, now)
        if self.run.heartbeat is not None:
            self.beaten.look_at_time(self.run.heartbeat, now)
        return Sample(
            at=now,
            age_s=now - self.started,
            reading=reading,
            folder_bytes=folder_bytes,
            quiet_s=now - max(self.watched, self.written.at),
            unbeaten_s=now - max(self.watched, self.beaten.at),
        )

    def keep(self, sample: Sample) -> None:
        self.samples.append(sample)
        self.most_memory = max(self.most_memory or 0, sample.reading.memory)
        while len(self.samples) > 2 and sample.at - self.samples[0].at > KEPT_S:
            self.samples.popleft()

    def verdict(self) -> Verdict | None:
        """What is to be done, unless it was. Of a run that walks its ladder the limits hold on."""
        run = self.run
        held = bool(self.samples) and self.samples[-1].reading.grouped
        enforced = run.enforced if held else WATCHED_ONLY
        found = judge(run.limits, run.watchdogs, list(self.samples), enforced)
        if found is None or self.acted_on is None:
            return found
        return found if found.at_once and not self.acted_on.at_once else None


class Monitor:
    """`watch` a run once its process has started, `forget` it once its end was reported."""

    def __init__(
        self,
        stop: Stop,
        sample_s: float = 1,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._stop = stop
        self._sample_s = sample_s
        self._clock = clock
        self._wall = wall
        self._seen: dict[str, _Seen] = {}
        self._reader = Reader()
        self._folders = Folders(clock)

    def watch(self, run_id: str, run: Watched) -> None:
        """From now on; or anew, when the owner of the runs was lost: what that one may not have
        heard, it is told again.
        """
        now = self._clock()
        age = max(0.0, self._wall() - run.started_at.timestamp())
        known = self._seen.get(run_id)
        seen = _Seen(run, now - age, now)
        if known is not None:
            seen.started, seen.watched = known.started, known.watched
            seen.samples, seen.written, seen.beaten = known.samples, known.written, known.beaten
            seen.most_memory = known.most_memory
        self._seen[run_id] = seen
        self._folders.watch(run_id, run.folder, run.limits.disk_mb)

    def forget(self, run_id: str) -> None:
        self._seen.pop(run_id, None)
        self._folders.forget(run_id)

    @property
    def runs(self) -> Mapping[str, tuple[Watched, Sequence[Sample]]]:
        """What is watched, and the looks of the last seconds, oldest first."""
        return {run_id: (seen.run, tuple(seen.samples)) for run_id, seen in self._seen.items()}

    def working_memory(self, run_id: str) -> int | None:
        """The most bytes that it used at any look; None when there was none."""
        seen = self._seen.get(run_id)
        return seen.most_memory if seen else None

    def concluded(self, run_id: str, reason: ExitReason, usage: Usage) -> Verdict | None:
        """The limit of which a run has died that nobody had ended, if it was one.

        Of a run that ended before we looked, what it was refused may be long ago, unless it is
        young.
        """
        seen = self._seen.get(run_id)
        if seen is None or not (seen.samples or self._clock() - seen.started <= RECENT_S):
            usage = usage.model_copy(update={"refused": 0})
        if seen is None:
            return concluded(reason, usage, (), NO_LIMIT)
        return concluded(reason, usage, tuple(seen.samples), seen.run.limits)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        tasks = [asyncio.create_task(work()) for work in (self._look_forever, self._folders.run)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _look_forever(self) -> None:
        while True:
            began = self._clock()
            try:
                await self.look()
            except Exception:
                log.exception("a look at the runs failed; there is another one")
            await asyncio.sleep(max(0, began + self._sample_s - self._clock()))

    async def look(self) -> None:
        """One look at all runs, and what follows of it."""
        seen = dict(self._seen)
        samples = await asyncio.to_thread(self._samples, seen)
        for run_id, sample in samples.items():
            seen[run_id].keep(sample)
        await asyncio.gather(*(self._act(run_id, seen[run_id]) for run_id in samples))

    def _samples(self, seen: Mapping[str, _Seen]) -> dict[str, Sample]:
        """In a thread. Without the runs that end meanwhile."""
        now = self._clock()
        readings = self._reader.read({run_id: one.run for run_id, one in seen.items()})
        return {
            run_id: seen[run_id].sample(reading, self._folders.size(run_id), now)
            for run_id, reading in readings.items()
        }

    async def _act(self, run_id: str, seen: _Seen) -> None:
        verdict = seen.verdict()
        if verdict is None or self._seen.get(run_id) is not seen:
            return
        ladder = KILL if verdict.at_once else seen.run.ladder
        log.warning("a run is ended", run=run_id, reason=verdict.reason, detail=verdict.detail)
        try:
            await self._stop(run_id, ladder, verdict.reason, verdict.detail)
        except BackendLost as error:
            log.warning("a run could not be ended yet", run=run_id, reason=str(error))
        except NoSuchRun:
            seen.acted_on = verdict  # it has ended by itself: its report is on its way
        else:
            seen.acted_on = verdict
