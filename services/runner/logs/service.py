"""Answers for the logs of this host, and keeps them within their bounds."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Set

from openbell.bus import Bus
from openbell.contracts.base import Done
from openbell.contracts.errors import ServiceUnavailable, UnknownRun
from openbell.contracts.logs import (
    ClearLog,
    FollowLog,
    LogSize,
    LogSizes,
    MeasureLogs,
    ReadLog,
    SearchLog,
)
from openbell.sealing import RunnerKey
from openbell.settings import Settings
from services.runner.logs.following import Following
from services.runner.logs.ranges import size_of
from services.runner.logs.reading import Reader
from services.runner.logs.retention import Retention
from services.runner.logs.runlog import LogBook
from services.runner.logs.search import Searches
from services.runner.logs.secrets import Secrets


class RunLogs:
    def __init__(
        self, settings: Settings, bus: Bus, key: RunnerKey, live: Callable[[], Set[str] | None]
    ) -> None:
        """`live` tells the runs that may still write; None, as long as that is not known."""
        self._bus = bus
        self._runner = settings.runner.id
        self._live = live
        self._book = LogBook(settings.logs)
        secrets = Secrets(bus, self._runner, key)
        reader = Reader(self._book, secrets)
        self._reader = reader
        self._searches = Searches(reader, secrets)
        self._following = Following(bus, self._runner, self._book, reader, secrets, self._is_live)
        self._retention = Retention(self._book, settings.log, live)

    @property
    def capabilities(self) -> dict[str, str]:
        """What this host can do about logs that grow."""
        return {"log_cap": "enforced" if self._retention.punches else "none"}

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncGenerator[None]:
        await self._bus.answer(ReadLog, self._reader.read, self._runner)
        await self._bus.answer(FollowLog, self._following.follow, self._runner)
        await self._bus.answer(SearchLog, self._searches.search, self._runner)
        await self._bus.answer(ClearLog, self.clear, self._runner)
        await self._bus.answer(MeasureLogs, self.measure, self._runner)
        keeping = asyncio.create_task(self._retention.run())
        try:
            yield
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
            await self._following.close()

    async def clear(self, command: ClearLog) -> Done:
        """Raises UnknownRun, ServiceUnavailable."""
        await asyncio.to_thread(self._clear, command)
        return Done()

    def _clear(self, command: ClearLog) -> None:
        log = self._book.of(command.strategy_id, command.run_id)
        live = self._live()
        if live is None:
            raise ServiceUnavailable("the runner does not know yet what runs; try again")
        if command.run_id in live:
            log.drop()
        else:
            log.remove()

    async def measure(self, command: MeasureLogs) -> LogSizes:
        return LogSizes(sizes=tuple(await asyncio.to_thread(self._measured, command)))

    def _measured(self, command: MeasureLogs) -> list[LogSize]:
        sizes: list[LogSize] = []
        for run_id in command.run_ids:
            with contextlib.suppress(UnknownRun, FileNotFoundError):
                size, first = size_of(self._book.of(command.strategy_id, run_id))
                sizes.append(LogSize(run_id=run_id, size=size, first=first))
        return sizes

    def _is_live(self, run_id: str) -> bool:
        """Unknown is taken for live: nothing of it is held to be final."""
        live = self._live()
        return live is None or run_id in live
