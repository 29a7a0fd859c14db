"""Messages that are committed with the change they tell of, and published after it, once."""

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Sequence
from typing import Any
from uuid import uuid4

import structlog
from sqlalchemy import delete
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from openbell.bus import Bus
from openbell.contracts.base import Event
from openbell.contracts.errors import ServiceUnavailable, TooLarge
from openbell.db.models import ApiOutbox, SchedulerOutbox
from openbell.db.session import Database

BATCH = 256
RETRY_S = 1.0
TIDY_S = 0.25
"""How long what is published stays while nothing else is, so that no change waits for the deletion
of its own event, and many events are deleted at once.
"""
MOST_S = 2.0
"""How long it stays at the most."""

log = structlog.get_logger()


class Outbox:
    """The outbox of one service. Nothing acknowledged lacks its event, whatever is killed when.

    The publisher deletes rows only after the stream has confirmed them, a moment later. Killed in
    between, it publishes them again, and the stream drops the second copy by its id. What the
    stream will never take is dropped with an error in the log: all others would wait behind it for
    ever.
    """

    def __init__(
        self, table: type[ApiOutbox] | type[SchedulerOutbox], database: Database, bus: Bus
    ) -> None:
        self._table: type[Any] = table
        self._database = database
        self._bus = bus
        self._wake = asyncio.Event()
        self._published: set[str] = set()
        """Of which the rows are not deleted yet."""
        self._untidy_since = 0.0

    def add(self, session: AsyncSession, event: Event) -> None:
        session.add(
            self._table(message_id=str(uuid4()), subject=event.subject, payload=event.encode())
        )

    def wake(self) -> None:
        """Publish now: a transaction with events has been committed."""
        self._wake.set()

    @contextlib.asynccontextmanager
    async def publishing(self) -> AsyncGenerator[None]:
        self.wake()
        task = asyncio.create_task(self._publish_forever())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            with contextlib.suppress(ServiceUnavailable):
                await self._publish_all()
            await self._tidy()

    async def _publish_forever(self) -> None:
        while True:
            try:
                await self._wait()
                await self._publish_all()
            except ServiceUnavailable as error:
                log.warning("events wait in the outbox", reason=error.detail)
                await asyncio.sleep(RETRY_S)
            except Exception:
                log.exception("the outbox was not read; it is tried again")
                await asyncio.sleep(RETRY_S)

    async def _wait(self) -> None:
        """For an event; or for long enough without any."""
        try:
            async with asyncio.timeout(TIDY_S if self._published else RETRY_S):
                await self._wake.wait()
        except TimeoutError:
            await self._tidy()
        self._wake.clear()

    async def _publish_all(self) -> None:
        more = True
        while more:
            rows = await self._oldest()
            by_strategy: defaultdict[str, list[Any]] = defaultdict(list)
            for row in rows:
                _, strategy_id, _ = Event.parts(row.subject)
                by_strategy[strategy_id].append(row)
            await asyncio.gather(*(self._publish(group) for group in by_strategy.values()))
            if not self._published:
                self._untidy_since = time.monotonic()
            self._published.update(row.message_id for row in rows)
            more = len(rows) == BATCH
            if more or time.monotonic() >= self._untidy_since + MOST_S:
                await self._tidy()

    async def _tidy(self) -> None:
        if not self._published:
            return
        # not by `id`: SQLite gives it again once the table is empty, and another publisher may
        # have emptied it meanwhile
        published = col(self._table.message_id).in_(self._published)
        async with self._database.write() as session:
            await session.exec(delete(self._table).where(published))
        self._published.clear()

    async def _publish(self, rows: Sequence[Any]) -> None:
        """One after the other: no event of a strategy overtakes an earlier one."""
        for row in rows:
            try:
                await self._bus.store(row.subject, row.payload, row.message_id)
            except TooLarge:
                log.exception("an event is dropped", subject=row.subject, id=row.message_id)

    async def _oldest(self) -> Sequence[Any]:
        async with self._database.read() as session:
            left = col(self._table.message_id).not_in(self._published)
            query = select(self._table).where(left).order_by(col(self._table.id)).limit(BATCH)
            return (await session.exec(query)).all()
