"""Who did what, to what, when, from where, and what it changed. Only ever added to."""

import time
from collections.abc import Sequence
from typing import Any

from sqlmodel.ext.asyncio.session import AsyncSession

from openbell.contracts.base import utc_now
from openbell.db.models import AuditEntry
from openbell.db.session import Database, all_rows
from services.api.acts import Act, StrategyAct

DONE, REQUESTED = "done", "requested"
LOOK_S = 600.0
"""An admin who follows a stranger's log looks once, not once a second."""
MOST_LOOKS = 10_000

Values = dict[str, Any] | None


def entry(
    act: Act,
    outcome: str = DONE,
    *,
    on: tuple[str, str] | None = None,
    before: Values = None,
    after: Values = None,
    detail: str | None = None,
) -> AuditEntry:
    """A line of the audit. `on`: the owner and the id of the strategy that it is about."""
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
    on: tuple[str, str] | None = None,
    before: Values = None,
    after: Values = None,
) -> None:
    """In the transaction of the change itself: neither is there without the other."""
    session.add(entry(act, on=on, before=before, after=after))


class Audit:
    """Writes of what takes effect elsewhere, or changes nothing."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._looks: dict[tuple[str, str, str], float] = {}

    async def write(self, entries: Sequence[AuditEntry]) -> None:
        async with self._database.write() as session:
            session.add_all(entries)

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
