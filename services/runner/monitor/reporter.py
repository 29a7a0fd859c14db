"""Tells every few seconds what the runs and their machine use, to whoever listens."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path

import structlog

from openbell.contracts.base import utc_now
from openbell.contracts.metrics import MOST_RUNS, HostMetrics, RunMetrics, RunnerMetrics
from services.runner.monitor.host import Machine
from services.runner.monitor.monitor import Monitor, Watched
from services.runner.monitor.samples import Sample

log = structlog.get_logger()

Runs = Mapping[str, tuple[Watched, Sequence[Sample]]]


class Reporter:
    def __init__(
        self,
        runner: str,
        monitor: Monitor,
        tell: Callable[[RunnerMetrics], Awaitable[None]],
        disk: Path,
        every_s: float = 5,
    ) -> None:
        """`disk` is a folder on the disk that is told of."""
        self._runner = runner
        self._monitor = monitor
        self._tell = tell
        self._machine = Machine(disk)
        self._every_s = every_s

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        telling = asyncio.create_task(self._tell_forever())
        try:
            yield
        finally:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)

    async def _tell_forever(self) -> None:
        with contextlib.suppress(Exception):
            await asyncio.to_thread(self._machine.look)  # the next one tells of the time since
        while True:
            await asyncio.sleep(self._every_s)
            try:
                await self.report()
            except Exception:
                log.exception("metrics could not be told")

    async def report(self) -> None:
        machine = await asyncio.to_thread(self._machine.look)
        runs = self._monitor.runs
        for message in messages(self._runner, utc_now(), machine, runs, self._every_s):
            await self._tell(message)


def messages(
    runner: str, at: datetime, machine: HostMetrics, runs: Runs, span_s: float
) -> Iterator[RunnerMetrics]:
    """One, or several of which none is too large. Rates are those of the last `span_s` seconds."""
    told = [
        metrics
        for run_id, (run, samples) in sorted(runs.items())
        if (metrics := run_metrics(run_id, run, samples, span_s)) is not None
    ]
    parts = [told[n : n + MOST_RUNS] for n in range(0, len(told), MOST_RUNS)] or [[]]
    for number, part in enumerate(parts, start=1):
        yield RunnerMetrics(
            runner=runner, at=at, host=machine, part=number, parts=len(parts), runs=tuple(part)
        )


def run_metrics(
    run_id: str, run: Watched, samples: Sequence[Sample], span_s: float
) -> RunMetrics | None:
    """None until there was a second look: one alone tells no rate."""
    if len(samples) < 2:
        return None
    now = samples[-1]
    since = next(one for one in samples if one is samples[-2] or now.at - one.at <= span_s)
    seconds = now.at - since.at
    last, first = now.reading, since.reading
    return RunMetrics(
        run_id=run_id,
        strategy_id=run.strategy_id,
        cpu_percent=round(100 * max(0, last.cpu_s - first.cpu_s) / seconds, 2),
        memory_bytes=last.memory,
        processes=last.processes,
        disk_bytes=now.folder_bytes,
        read_bytes_s=_rate(first.read_bytes, last.read_bytes, seconds),
        written_bytes_s=_rate(first.written_bytes, last.written_bytes, seconds),
    )


def _rate(before: int | None, now: int | None, seconds: float) -> float | None:
    if before is None or now is None:
        return None
    return round(max(0, now - before) / seconds, 1)
