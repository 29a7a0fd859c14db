"""Who did what, to what, when, from where, and what it changed. Only ever added to."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from sqlmodel.ext.asyncio.session import AsyncSession

from openbell.contracts.base import utc_now
from openbell.contracts.errors import OpenbellError
from openbell.db.group_commit import GroupCommit
from openbell.db.models import AuditEntry
from openbell.db.session import Database, all_rows
from services.api.acts import Act, StrategyAct

DONE, REQUESTED = "done", "requested"
CANCELLED, FAILED = "cancelled", "failed"
"""Who asked did not wait for the end; something broke. It may be done all the same."""
TOGETHER = 100
"""Writes that share a transaction."""
LOOK_S = 600.0
"""An admin who follows a stranger's log looks once, not once a second."""
MOST_LOOKS = 10_000

Values = dict[str, Any] | None
On = tuple[str, str]
"""The owner and the id of the strategy that it is about."""


def entry(
    act: Act,
    outcome: str = DONE,
    *,
    on: On | None = None,
    before: Values = None,
    after: Values = None,
    detail: str | None = None,
) -> AuditEntry:
    """A line of the audit."""
    owner, strategy_id = on or (None, None)
    return AuditEntry(
        at=utc_now(),
        request=act.request,
        user_id=act.caller.user,
        user_name=act.caller.name,
        credential=act.caller.credential,
        address=act.address,
        action=act.action,
        outcome=outcome,
        owner=owner,
        strategy_id=strategy_id,
        before=before,
        after=after,
        detail=detail,
    )


def record(
    session: AsyncSession,
    act: Act,
    *,
    on: On | None = None,
    before: Values = None,
    after: Values = None,
) -> None:
    """In the transaction of the change itself: neither is there without the other."""
    session.add(entry(act, on=on, before=before, after=after))


class Audit:
    """Writes of what takes effect elsewhere, or changes nothing."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._writes = GroupCommit(self._write, TOGETHER)
        self._looks: dict[tuple[str, str, str], float] = {}

    async def write(self, entries: Sequence[AuditEntry]) -> None:
        """Written even if the request is cancelled meanwhile: what it tells of has happened."""
        writing = asyncio.ensure_future(self._writes.add(entries))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await asyncio.wait([writing])
            raise

    async def _write(self, several: Sequence[Sequence[AuditEntry]]) -> Sequence[None]:
        entries = [entry for some in several for entry in some]
        for one in entries:
            one.id = None  # it may have got one in a transaction that came to nothing
        async with self._database.write() as session:
            session.add_all(entries)
        return [None] * len(several)

    @contextlib.asynccontextmanager
    async def requesting(self, act: Act, on: Sequence[On | None]) -> AsyncGenerator[None]:
        """Tells that it was requested, and how it ended, if not well. That it is done, whoever
        asks tells with what it changed.
        """
        try:
            await self.write([entry(act, REQUESTED, on=one) for one in on])
            yield
        except BaseException as error:
            outcome, detail = _ending(error)
            await self.write([entry(act, outcome, on=one, detail=detail) for one in on])
            raise

    async def read(self, query: Any) -> Sequence[AuditEntry]:
        async with self._database.read() as session:
            return await all_rows(session, query)

    async def looked(self, act: StrategyAct) -> None:
        """An admin reads what is neither theirs nor shared with them."""
        key = (act.caller.credential, act.action, act.id)
        now = time.monotonic()
        if now - self._looks.get(key, -LOOK_S) < LOOK_S:
            return
        await self.write([entry(act, on=(act.owner, act.id))])
        if len(self._looks) >= MOST_LOOKS:
            self._looks.clear()
        self._looks[key] = now


def _ending(error: BaseException) -> tuple[str, str | None]:
    """The outcome of a request that ended with this, and its detail."""
    if isinstance(error, OpenbellError):
        return error.code(), error.detail
    if isinstance(error, asyncio.CancelledError):
        return CANCELLED, None
    return FAILED, type(error).__name__
