"""Variables: what users set for their strategies, kept sealed, opened for their runs alone.

A user's own parameters go to each of their strategies; their own secrets to those that use them
by name. What a strategy itself has wins. A secret that is replaced or removed is retired: it is
handed to nobody any more, and still masked in the logs of the runs that had it.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import uuid4

import structlog
from sqlalchemy import LargeBinary, func, text
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from openbell.contracts.base import utc_now
from openbell.contracts.commands import RunVariables
from openbell.contracts.errors import (
    InvalidRequest,
    SealBroken,
    SecretInUse,
    TooLarge,
    UnknownRun,
    UnknownSecret,
    UnknownStrategy,
)
from openbell.contracts.events import VariablesChanged
from openbell.contracts.model import VariableKind
from openbell.db.models import Run, Strategy, Variable
from openbell.db.session import Database, all_rows
from openbell.outbox import Outbox
from openbell.redaction import Mask
from services.api.acts import Act, StrategyAct
from services.api.audit import DONE, REQUESTED, entry, record
from services.api.keyring import OVERHEAD_BYTES, PLAIN, Keyring
from services.api.uploads import MOST_BYTES, MOST_VARIABLES, TOO_MANY, Given

OWN = ""
"""The strategy of what is a user's own."""
MOST_RETIRED = 20
MOST_DELIVERED = 512 * 1024
"""Bytes of all variables of a run: what a message holds, and a process takes."""
MOST_MASKS = 256
BATCH = 100
LOCK = 0x6F70656E62656C6C

PARAMETER, SECRET, USE = VariableKind.PARAMETER, VariableKind.SECRET, VariableKind.USE

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Resealed:
    """What came of sealing everything under the newest key."""

    resealed: int
    broken: int
    """Values that no key opens: tampered with, or their key is lost."""


class Vault:
    def __init__(self, database: Database, outbox: Outbox, keyring: Keyring) -> None:
        self._database = database
        self._outbox = outbox
        self._keyring = keyring
        self._masks: dict[tuple[str, str], tuple[frozenset[str], Mask]] = {}

    # ---- set by users

    async def variables(self, owner: str, strategy_id: str = OWN) -> list[Variable]:
        """What a strategy has of its own, or a user, by name."""
        async with self._database.read() as session:
            return sorted(
                (await _current(session, owner, strategy_id)).values(), key=lambda row: row.name
            )

    async def add(self, session: AsyncSession, owner: str, strategy_id: str, given: Given) -> None:
        """For a new strategy, in the transaction that makes it. Raises UnknownSecret."""
        await self._apply(session, owner, strategy_id, {}, given)

    async def change(self, act: StrategyAct, given: Given) -> None:
        """Of a strategy. Raises InvalidRequest, UnknownSecret, UnknownStrategy."""
        names = (*given.parameters, *given.secrets, *given.uses, *given.remove)
        async with self._database.write() as session:
            strategy = await session.get(Strategy, act.id)
            if strategy is None or strategy.deleted_at is not None:
                raise UnknownStrategy(f"there is no strategy {act.id!r}")
            before = await _current(session, act.owner, act.id)
            after = await self._apply(session, act.owner, act.id, before, given)
            record(
                session,
                act,
                on=act.on,
                before=_names(before.values()),
                after={**_names(after.values()), "changed": sorted(names)},
            )
            event = VariablesChanged(
                owner=act.owner, strategy_id=act.id, at=utc_now(), names=tuple(sorted(names))
            )
            self._outbox.add(session, event)
        self._outbox.wake()

    async def change_own(self, act: Act, given: Given) -> None:
        """Of the caller. Raises InvalidRequest, SecretInUse."""
        owner = act.caller.user
        names = (*given.parameters, *given.secrets, *given.remove)
        async with self._database.write() as session:
            before = await _current(session, owner, OWN)
            gone = {*given.remove, *given.parameters}
            await _refuse_used(session, owner, [n for n in gone if _kind(before, n) is SECRET])
            after = await self._apply(session, owner, OWN, before, given)
            record(
                session,
                act,
                before=_names(before.values()),
                after={**_names(after.values()), "changed": sorted(names)},
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
        await _lock(session, exclusive=False)
        await _require_secrets(session, owner, given.uses)
        now = utc_now()
        fresh = {row.name: row for row in self._rows(owner, strategy_id, given, now)}
        after = {
            **{name: row for name, row in before.items() if name not in given.remove},
            **fresh,
        }
        _require_few(after.values())
        gone = {*fresh, *given.remove}
        for name in gone & {*before}:
            await _retire(session, before[name], now)
        await session.flush()  # a name is free before it is taken again
        for name in gone:
            await self._forget_oldest(session, owner, strategy_id, name)
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
                made.sealed = self._keyring.seal(value.encode(), _bound(made))
            return made

        yield from (row(PARAMETER, name, value) for name, value in given.parameters.items())
        yield from (row(SECRET, name, value) for name, value in given.secrets.items())
        yield from (row(USE, name, source=source) for name, source in given.uses.items())

    async def _forget_oldest(
        self, session: AsyncSession, owner: str, strategy_id: str, name: str
    ) -> None:
        """Also those that cannot be opened: they would withhold every log, for ever."""
        query = (
            select(Variable)
            .where(
                Variable.owner == owner,
                Variable.strategy_id == strategy_id,
                Variable.name == name,
                col(Variable.retired_at).is_not(None),
            )
            .order_by(col(Variable.retired_at).desc())
        )
        for number, row in enumerate((await session.exec(query)).all()):
            if number >= MOST_RETIRED or not self._opens(row):
                await session.delete(row)

    # ---- handed to runs

    async def for_run(self, run_id: str, epoch: int, runner: str) -> RunVariables:
        """What a live run on this runner is to see. Raises UnknownRun, UnknownSecret, SealBroken,
        TooLarge.
        """
        async with self._database.read() as session:
            run = await session.get(Run, run_id)
            if run is None or not run.live or (run.epoch, run.runner) != (epoch, runner):
                raise UnknownRun(f"{run_id[:100]} is not live on this runner")
            query = select(Variable).where(
                Variable.owner == run.owner,
                col(Variable.strategy_id).in_((OWN, run.strategy_id)),
                col(Variable.retired_at).is_(None) | (col(Variable.retired_at) >= run.granted_at),
            )
            rows = (await session.exec(query)).all()
        return self._composed(rows)

    def _composed(self, rows: Sequence[Variable]) -> RunVariables:
        own = [row for row in rows if row.strategy_id == OWN]
        theirs = [row for row in rows if row.strategy_id != OWN]
        secrets = {row.name: row for row in own if row.kind == SECRET and row.retired_at is None}
        values = {
            row.name: self._opened(row)
            for row in (*own, *theirs)
            if row.retired_at is None and (row.kind == PARAMETER or row.strategy_id != OWN)
            if row.kind != USE
        }
        hidden: set[str] = set()
        for row in theirs:
            if row.retired_at is None and row.kind != PARAMETER:
                hidden.add(row.name)
                if row.kind == USE:
                    values[row.name] = self._opened(_used(secrets, row))
        earlier = self._earlier(own, theirs) - {values[name] for name in hidden}
        size = sum(len(name) + len(value.encode()) for name, value in values.items())
        size += sum(len(value.encode()) for value in earlier)
        if size > MOST_DELIVERED:
            raise TooLarge(f"the variables have {size} bytes; at most {MOST_DELIVERED} are handed")
        return RunVariables(
            variables=values, secrets=frozenset(hidden), earlier=tuple(sorted(earlier))
        )

    def _earlier(self, own: Iterable[Variable], theirs: Iterable[Variable]) -> set[str]:
        """What a run may know that was granted before these rows were retired."""
        sources = {row.source for row in theirs if row.kind == USE}
        known = [
            *(row for row in theirs if row.kind == SECRET and row.retired_at is not None),
            *(row for row in own if row.kind == SECRET and row.name in sources),
        ]
        return {self._opened(row) for row in known}

    # ---- hidden from those who read

    async def mask(self, owner: str, strategy_id: str) -> Mask:
        """Hides every secret that a run of this strategy may ever have had. Raises SealBroken.

        The same object as long as no secret was set: a value never changes, a row is made anew.
        """
        theirs = (
            Variable.owner == owner,
            col(Variable.strategy_id).in_((OWN, strategy_id)),
            Variable.kind == SECRET,
        )
        async with self._database.read() as session:
            ids = frozenset((await session.exec(select(Variable.id).where(*theirs))).all())
            known_ids, known = self._masks.get((owner, strategy_id), (None, None))
            if known is not None and known_ids == ids:
                return known
            rows = (await session.exec(select(Variable).where(*theirs))).all()
        mask = Mask(self._opened(row) for row in rows)
        if len(self._masks) >= MOST_MASKS:
            self._masks.clear()
        self._masks[owner, strategy_id] = frozenset(row.id for row in rows), mask
        return mask

    # ---- keys

    async def rotate(self, act: Act) -> Resealed:
        """Seal everything under a new key; with keys of the environment, under its newest.

        Killed in between, all keys that are needed are there, and the next start goes on.
        """
        async with self._database.write() as session:
            session.add(entry(act, REQUESTED))
        if self._keyring.can_grow:
            self._keyring.add()
        done = await self.reseal()
        after = {"resealed": done.resealed, "broken": done.broken}
        async with self._database.write() as session:
            session.add(entry(act, DONE, after=after))
        return done

    @property
    def makes_keys(self) -> bool:
        return self._keyring.can_grow

    async def reseal(self) -> Resealed:
        """Seal under the newest key what is not, then drop the older keys.

        They go in a transaction that finds nothing left which needs them, and which whoever seals
        waits for: nobody can still be about to commit what only a dropped key opens.
        """
        resealed, broken = 0, set[str]()
        while True:
            async with self._database.write() as session:
                await _lock(session, exclusive=True)
                self._keyring.refresh()
                head = self._keyring.head
                rows = await _not_under(session, head, broken)
                if not rows:
                    if not broken:
                        self._keyring.drop_older(head)
                    break
                for row in rows:
                    if self._reseal(row):
                        session.add(row)
                        resealed += 1
                    else:
                        broken.add(row.id)
        if broken:
            log.error("values of variables cannot be opened by any key", count=len(broken))
        return Resealed(resealed, len(broken))

    def _reseal(self, row: Variable) -> bool:
        """Whether it could be opened."""
        try:
            if row.sealed[:1] == PLAIN and row.kind == PARAMETER:
                plain = row.sealed[1:]
            else:
                plain = self._keyring.open(row.sealed, _bound(row))
        except SealBroken:
            return False
        row.sealed = self._keyring.seal(plain, _bound(row))
        return True

    def _opened(self, row: Variable) -> str:
        """Raises SealBroken, naming the variable."""
        try:
            return self._keyring.open(row.sealed, _bound(row)).decode()
        except SealBroken as error:
            raise SealBroken(f"the value of {row.name}: {error.detail}") from None

    def _opens(self, row: Variable) -> bool:
        try:
            self._opened(row)
        except SealBroken:
            return row.kind == USE
        return True


def _bound(row: Variable) -> bytes:
    """What a sealed value is of: in another row, or under another name, it does not open."""
    parts = ("openbell variable", row.id, row.owner, row.strategy_id, row.name, row.kind)
    return "\0".join(parts).encode()


def _names(rows: Iterable[Variable]) -> dict[str, object]:
    """What the audit may tell."""
    kept = list(rows)
    told = {
        "parameters": sorted(row.name for row in kept if row.kind == PARAMETER),
        "secrets": sorted(row.name for row in kept if row.kind == SECRET),
        "uses": {row.name: row.source for row in kept if row.kind == USE},
    }
    return {kind: names for kind, names in told.items() if names}


def _kind(rows: Mapping[str, Variable], name: str) -> VariableKind | None:
    row = rows.get(name)
    return VariableKind(row.kind) if row else None


def _used(secrets: Mapping[str, Variable], use: Variable) -> Variable:
    """Raises UnknownSecret: to run without its key is worse than not to run."""
    secret = secrets.get(use.source or "")
    if secret is None:
        raise UnknownSecret(f"{use.name} uses {use.source!r}, and there is no such secret")
    return secret


def _require_few(rows: Iterable[Variable]) -> None:
    """Raises InvalidRequest."""
    sizes = [len(row.name) + max(0, len(row.sealed) - OVERHEAD_BYTES) for row in rows]
    if len(sizes) > MOST_VARIABLES or sum(sizes) > MOST_BYTES:
        message = f"{TOO_MANY}, with those that are there"
        raise InvalidRequest(message, errors=[{"field": "body", "message": message}])


async def _current(session: AsyncSession, owner: str, strategy_id: str) -> dict[str, Variable]:
    query = select(Variable).where(
        Variable.owner == owner,
        Variable.strategy_id == strategy_id,
        col(Variable.retired_at).is_(None),
    )
    return {row.name: row for row in (await session.exec(query)).all()}


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
    there = {n for n, row in (await _current(session, owner, OWN)).items() if row.kind == SECRET}
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


async def _not_under(
    session: AsyncSession, head: bytes, apart_from: Collection[str]
) -> Sequence[Variable]:
    begins = func.substr(col(Variable.sealed), 1, len(head), type_=LargeBinary)
    query = (
        select(Variable)
        .where(
            func.length(col(Variable.sealed)) > 0,
            begins != head,
            col(Variable.id).not_in(apart_from),
        )
        .limit(BATCH)
    )
    return (await session.exec(query)).all()


async def _lock(session: AsyncSession, *, exclusive: bool) -> None:
    """Whoever seals, or drops keys, waits for the other. On SQLite every transaction does."""
    connection = await session.connection()
    if connection.dialect.name == "postgresql":
        verb = "pg_advisory_xact_lock" if exclusive else "pg_advisory_xact_lock_shared"
        await connection.execute(text(f"SELECT {verb}({LOCK})"))
