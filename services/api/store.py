"""Writes what api owns: strategies, versions, schedules, each change with its event."""

from typing import Any

from sqlalchemy.exc import IntegrityError
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from openbell.contracts.base import utc_now
from openbell.contracts.errors import NameTaken, UnknownRun, UnknownStrategy
from openbell.contracts.events import (
    ScheduleChanged,
    ScheduleRemoved,
    StrategyDeleted,
    StrategyUploaded,
)
from openbell.contracts.model import RestartPolicy
from openbell.db.models import Run, ScheduleRow, Strategy, Version
from openbell.db.session import Database
from openbell.outbox import Outbox
from services.api.uploads import Source, new_id


class Store:
    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox

    async def create(
        self,
        owner: str,
        name: str,
        source: Source,
        *,
        exchange: str | None,
        parameters: dict[str, str],
        restart: RestartPolicy,
        stop_grace_s: float,
    ) -> str:
        """Keep a new strategy with its first version. Returns its id. Raises NameTaken."""
        now = utc_now()
        strategy = Strategy(
            id=new_id(name),
            owner=owner,
            name=name,
            name_key=name.casefold(),
            exchange=exchange,
            version=1,
            parameters=parameters,
            restart=restart,
            stop_grace_s=stop_grace_s,
            created_at=now,
        )
        version = Version(
            strategy_id=strategy.id,
            number=1,
            sha256=source.sha256,
            filename=source.filename,
            size=len(source.body),
            source=source.body,
            created_at=now,
        )
        event = StrategyUploaded(owner=owner, strategy_id=strategy.id, at=now, name=name, version=1)
        try:
            async with self._database.write() as session:
                session.add_all([strategy, version])
                self._outbox.add(session, event)
        except IntegrityError:
            raise NameTaken(f"you have a strategy named {name!r} already") from None
        self._outbox.wake()
        return strategy.id

    async def delete(self, owner: str, strategy_id: str) -> None:
        """Hide it; its rows stay for a while. Raises UnknownStrategy."""
        now = utc_now()
        async with self._database.write() as session:
            strategy = await _strategy(session, owner, strategy_id)
            strategy.deleted_at = now
            session.add(strategy)
            event = StrategyDeleted(owner=owner, strategy_id=strategy_id, at=now)
            self._outbox.add(session, event)
        self._outbox.wake()

    async def set_schedule(self, owner: str, strategy_id: str, spec: dict[str, Any]) -> None:
        """Raises UnknownStrategy."""
        now = utc_now()
        async with self._database.write() as session:
            await _strategy(session, owner, strategy_id)
            row = await session.get(ScheduleRow, strategy_id)
            row = row or ScheduleRow(strategy_id=strategy_id, revision=0, spec=spec, updated_at=now)
            row.revision, row.spec, row.updated_at = row.revision + 1, spec, now
            session.add(row)
            event = ScheduleChanged(
                owner=owner, strategy_id=strategy_id, at=now, revision=row.revision
            )
            self._outbox.add(session, event)
        self._outbox.wake()

    async def remove_schedule(self, owner: str, strategy_id: str) -> bool:
        """Whether there was one. Raises UnknownStrategy."""
        now = utc_now()
        async with self._database.write() as session:
            await _strategy(session, owner, strategy_id)
            row = await session.get(ScheduleRow, strategy_id)
            if row is None:
                return False
            await session.delete(row)
            event = ScheduleRemoved(owner=owner, strategy_id=strategy_id, at=now)
            self._outbox.add(session, event)
        self._outbox.wake()
        return True

    async def runs(self, owner: str, strategy_id: str, most: int) -> list[Run]:
        """The latest runs, newest first. Raises UnknownStrategy."""
        async with self._database.read() as session:
            await _strategy(session, owner, strategy_id)
            query = (
                select(Run)
                .where(Run.strategy_id == strategy_id)
                .order_by(col(Run.epoch).desc())
                .limit(most)
            )
            return list((await session.exec(query)).all())

    async def run(self, owner: str, strategy_id: str, run_id: str | None) -> Run:
        """This run, or the latest. Raises UnknownStrategy, UnknownRun."""
        if run_id is None:
            for run in await self.runs(owner, strategy_id, 1):
                return run
            raise UnknownRun("it has not run yet")
        async with self._database.read() as session:
            await _strategy(session, owner, strategy_id)
            run = await session.get(Run, run_id)
            if run is None or run.strategy_id != strategy_id:
                raise UnknownRun(f"there is no run {run_id[:100]!r}")
            return run

    async def source(self, sha256: str) -> bytes | None:
        async with self._database.read() as session:
            query = select(Version.source).where(Version.sha256 == sha256).limit(1)
            return (await session.exec(query)).first()

    async def parameters(self, run_id: str, epoch: int) -> dict[str, str]:
        """What the owner set for the strategy of this live run. Raises UnknownRun."""
        async with self._database.read() as session:
            query = (
                select(Strategy)
                .join(Run, col(Run.strategy_id) == Strategy.id)
                .where(Run.id == run_id, Run.epoch == epoch, col(Run.exited_at).is_(None))
            )
            strategy = (await session.exec(query)).first()
        if strategy is None:
            raise UnknownRun(f"{run_id} is not live")
        return strategy.parameters


async def _strategy(session: AsyncSession, owner: str, strategy_id: str) -> Strategy:
    strategy = await session.get(Strategy, strategy_id)
    if strategy is None or strategy.owner != owner or strategy.deleted_at is not None:
        raise UnknownStrategy(f"there is no strategy {strategy_id[:100]!r}")
    return strategy
