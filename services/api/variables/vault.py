"""Variables: what users set for their strategies, kept sealed, opened for their runs alone.

A user's own parameters go to each of their strategies; their own secrets to those that use them
by name. What a strategy itself has wins. A secret that is replaced or removed is retired: it is
handed to nobody any more, and still masked in the logs of the runs that had it.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from uuid import uuid4

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from openbell.contracts.base import utc_now
from openbell.contracts.errors import (
    InvalidRequest,
    SealBroken,
    SecretInUse,
    UnknownSecret,
    UnknownStrategy,
)
from openbell.contracts.events import VariablesChanged
from openbell.contracts.model import VariableKind
from openbell.db.models import Strategy, Variable
from openbell.db.session import Database, all_rows
from openbell.outbox import Outbox
from openbell.redaction import pieces
from services.api.acts import Act, StrategyAct
from services.api.audit import record
from services.api.uploads import MOST_BYTES, MOST_VARIABLES, TOO_MANY, Given
from services.api.variables.keyring import Keyring
from services.api.variables.rows import (
    OWN,
    PARAMETER,
    SECRET,
    USE,
    current,
    lock_keys,
    lock_owner,
    names,
    retired,
)
from services.api.variables.sealed import opened, seal, size

MOST_RETIRED = 100
MOST_RETIRED_OF_A_NAME = 20
"""One that is set anew each day does not push out all others."""
MOST_LINES = 400
"""Of all secrets, and of all retired ones: each is searched for in whatever is read of a log."""


class Vault:
    def __init__(self, database: Database, outbox: Outbox, keyring: Keyring) -> None:
        self._database = database
        self._outbox = outbox
        self._keyring = keyring

    async def variables(self, owner: str, strategy_id: str = OWN) -> list[Variable]:
        """What a strategy has of its own, or a user, by name."""
        async with self._database.read() as session:
            rows = await current(session, owner, strategy_id)
            return sorted(rows.values(), key=lambda row: row.name)

    async def add(
        self, session: AsyncSession, owner: str, strategy_id: str, given: Given
    ) -> dict[str, object]:
        """For a new strategy, in the transaction that makes it. Returns what the audit may tell.

        Raises InvalidRequest, UnknownSecret.
        """
        await lock_owner(session, owner)
        return names((await self._apply(session, owner, strategy_id, {}, given)).values())

    async def change(self, act: StrategyAct, given: Given) -> None:
        """Of a strategy. Raises InvalidRequest, UnknownSecret, UnknownStrategy."""
        async with self._database.write() as session:
            await lock_owner(session, act.owner)
            strategy = await session.get(Strategy, act.id)
            if strategy is None or strategy.deleted_at is not None:
                raise UnknownStrategy(f"there is no strategy {act.id!r}")
            before = await current(session, act.owner, act.id)
            after = await self._apply(session, act.owner, act.id, before, given)
            changed = _changed(before, after)
            record(
                session,
                act,
                on=act.on,
                before=names(before.values()),
                after={**names(after.values()), "changed": changed},
            )
            if changed:
                event = VariablesChanged(
                    owner=act.owner, strategy_id=act.id, at=utc_now(), names=tuple(changed)
                )
                self._outbox.add(session, event)
        self._outbox.wake()

    async def change_own(self, act: Act, given: Given) -> None:
        """Of the caller. Raises InvalidRequest, SecretInUse."""
        owner = act.caller.user
        async with self._database.write() as session:
            await lock_owner(session, owner)
            before = await current(session, owner, OWN)
            gone = [before[name] for name in (*given.remove, *given.parameters) if name in before]
            await _refuse_used(session, owner, [row.name for row in gone if row.kind == SECRET])
            after = await self._apply(session, owner, OWN, before, given)
            record(
                session,
                act,
                before=names(before.values()),
                after={**names(after.values()), "changed": _changed(before, after)},
            )

    async def _apply(
        self,
        session: AsyncSession,
        owner: str,
        strategy_id: str,
        before: Mapping[str, Variable],
        given: Given,
    ) -> dict[str, Variable]:
        """The variables as they are then. Raises InvalidRequest, UnknownSecret."""
        await lock_keys(session, exclusive=False)
        await _require_secrets(session, owner, given.uses)
        now = utc_now()
        fresh = {row.name: row for row in self._rows(owner, strategy_id, given, now)}
        after = {
            **{name: row for name, row in before.items() if name not in given.remove},
            **fresh,
        }
        self._require_few(after.values())
        for name in _changed(before, after):
            if name in before:
                await _retire(session, before[name], now)
        await session.flush()  # a name is free before it is taken again
        for row in self._forgotten(
            await retired(session, owner, strategy_id), {*fresh, *given.remove}
        ):
            await session.delete(row)
        session.add_all(fresh.values())
        return after

    def _rows(
        self, owner: str, strategy_id: str, given: Given, now: datetime
    ) -> Iterable[Variable]:
        def row(
            kind: VariableKind, name: str, value: str = "", source: str | None = None
        ) -> Variable:
            made = Variable(
                id=uuid4().hex,
                owner=owner,
                strategy_id=strategy_id,
                name=name,
                kind=kind,
                source=source,
                updated_at=now,
            )
            if kind is not USE:
                seal(self._keyring, made, value)
            return made

        yield from (row(PARAMETER, name, value) for name, value in given.parameters.items())
        yield from (row(SECRET, name, value) for name, value in given.secrets.items())
        yield from (row(USE, name, source=source) for name, source in given.uses.items())

    def _require_few(self, rows: Collection[Variable]) -> None:
        """Raises InvalidRequest."""
        if len(rows) > MOST_VARIABLES or sum(map(size, rows)) > MOST_BYTES:
            raise InvalidRequest.of("body", f"{TOO_MANY}, with those that are there")
        if sum(self._lines(row) or 0 for row in rows) > MOST_LINES:
            raise InvalidRequest.of(
                "secrets", f"at most {MOST_LINES} lines in all are taken, with those that are there"
            )

    def _forgotten(self, rows: Iterable[Variable], names: Collection[str]) -> Iterable[Variable]:
        """Of the retired, newest first, those that are too many.

        Also those of these names that cannot be opened: they would withhold every log, for ever.
        """
        of_name, many, large, long = Counter[str](), 0, 0, 0
        for row in rows:
            lines = self._lines(row)
            of_name[row.name] += 1
            if of_name[row.name] > MOST_RETIRED_OF_A_NAME or (lines is None and row.name in names):
                yield row
                continue
            many, large, long = many + 1, large + size(row), long + (lines or 0)
            if many > MOST_RETIRED or large > MOST_BYTES or long > MOST_LINES:
                yield row

    def _lines(self, row: Variable) -> int | None:
        """How many a mask needs to hide it; none when it cannot be opened."""
        if row.kind != SECRET:
            return 0
        try:
            return len(pieces(opened(self._keyring, row)))
        except SealBroken:
            return None


def _changed(before: Mapping[str, Variable], after: Mapping[str, Variable]) -> list[str]:
    """What was set or removed: a row is made anew, also for the same value."""
    return sorted(name for name in {*before, *after} if before.get(name) is not after.get(name))


async def _retire(session: AsyncSession, row: Variable, now: datetime) -> None:
    if row.kind == PARAMETER:
        await session.delete(row)
        return
    row.retired_at = now
    session.add(row)


async def _require_secrets(session: AsyncSession, owner: str, uses: Mapping[str, str]) -> None:
    """Raises UnknownSecret."""
    if not uses:
        return
    there = {n for n, row in (await current(session, owner, OWN)).items() if row.kind == SECRET}
    errors = [
        {"field": f"uses.{name}", "message": f"there is no secret {source!r}"}
        for name, source in uses.items()
        if source not in there
    ]
    if errors:
        detail = "; ".join(f"{error['field']}: {error['message']}" for error in errors)
        raise UnknownSecret(detail[:1000], errors=errors)


async def _refuse_used(session: AsyncSession, owner: str, secrets: Sequence[str]) -> None:
    """Raises SecretInUse, naming the strategies."""
    query = (
        select(Variable.source, Strategy.name)
        .join(Strategy, col(Strategy.id) == Variable.strategy_id)
        .where(
            Variable.owner == owner,
            Variable.kind == USE,
            col(Variable.source).in_(secrets),
            col(Variable.retired_at).is_(None),
            col(Strategy.deleted_at).is_(None),
        )
        .order_by(Variable.source, Strategy.name)
    )
    used = [f"{source} by {name}" for source, name in await all_rows(session, query)]
    if used:
        raise SecretInUse(f"used: {', '.join(used)}"[:1000])
