"""Messages that are committed with the change they tell of, and published after it, once."""

import asyncio
import contextlib
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

log = structlog.get_logger()


class Outbox:
    """The outbox of one service. Nothing acknowledged lacks its event, whatever is killed when.

    The publisher deletes a row only after the stream has confirmed it. Killed in between, it
    publishes the row again, and the stream drops the second copy by its id. What the stream will
    never take is dropped with an error in the log: all others would wait behind it for ever.
    """

    def __init__(
        self, table: type[ApiOutbox] | type[SchedulerOutbox], database: Database, bus: Bus
    ) -> None:
        self._table: type[Any] = table
        self._database = database
        self._bus = bus
        self._wake = asyncio.Event()

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

    async def _publish_forever(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RETRY_S):
                    await self._wake.wait()
            self._wake.clear()
            try:
                await self._publish_all()
            except ServiceUnavailable as error:
                log.warning("events wait in the outbox", reason=error.detail)
                await asyncio.sleep(RETRY_S)
            except Exception:
                log.exception("the outbox was not read; it is tried again")
                await asyncio.sleep(RETRY_S)

    async def _publish_all(self) -> None:
        while rows := await self._oldest():
            by_strategy: defaultdict[str, list[Any]] = defaultdict(list)
            for row in rows:
                _, strategy_id, _ = Event.parts(row.subject)
                by_strategy[strategy_id].append(row)
            await asyncio.gather(*(self._publish(group) for group in by_strategy.values()))
            async with self._database.write() as session:
                # not by `id`: SQLite gives it again once the table is empty, and another
                # publisher may have emptied it meanwhile
                published = col(self._table.message_id).in_([row.message_id for row in rows])
                await session.exec(delete(self._table).where(published))

    async def _publish(self, rows: Sequence[Any]) -> None:
        """One after the other: no event of a strategy overtakes an earlier one."""
        for row in rows:
            try:
                await self._bus.store(row.subject, row.payload, row.message_id)
            except TooLarge:
                log.exception("an event is dropped", subject=row.subject, id=row.message_id)

    async def _oldest(self) -> Sequence[Any]:
        async with self._database.read() as session:
            query = select(self._table).order_by(col(self._table.id)).limit(BATCH)
            return (await session.exec(query)).all()
