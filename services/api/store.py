"""Writes what api owns: strategies, versions, schedules, each change with its event."""

from collections.abc import Sequence
from typing import Any, cast

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import defer
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from openbell.contracts.base import utc_now
from openbell.contracts.errors import NameTaken, UnknownRun
from openbell.contracts.events import (
    AccessChanged,
    LimitsChanged,
    ScheduleChanged,
    ScheduleRemoved,
    StrategyDeleted,
    StrategyShared,
    StrategyUploaded,
)
from openbell.contracts.limits import RunPolicy
from openbell.contracts.model import Permission
from openbell.db.models import Run, ScheduleRow, Share, Strategy, User, Version
from openbell.db.session import Database, all_rows
from openbell.identity import Identities
from openbell.outbox import Outbox
from services.api.acts import Act, StrategyAct
from services.api.audit import record
from services.api.board import unknown
from services.api.environments import Environment, headline
from services.api.policies import Part, changed, differences
from services.api.uploads import Given, Source, new_id
from services.api.variables.vault import Vault


class Store:
    def __init__(
        self, database: Database, outbox: Outbox, identities: Identities, vault: Vault
    ) -> None:
        self._database = database
        self._outbox = outbox
        self._identities = identities
        self._vault = vault

    async def create(
        self,
        act: Act,
        name: str,
        source: Source,
        *,
        exchange: str | None,
        variables: Given,
        policy: RunPolicy,
        environment: Environment,
    ) -> str:
        """Keep a new strategy with its first version. Returns its id.

        Raises NameTaken, UnknownSecret.
        """
        now = utc_now()
        owner = act.caller.user
        strategy = Strategy(
            id=new_id(name),
            owner=owner,
            name=name,
            name_key=name.casefold(),
            exchange=exchange,
            version=1,
            policy=policy,
            created_at=now,
        )
        version = Version(
            strategy_id=strategy.id,
            number=1,
            sha256=source.sha256,
            filename=source.filename,
            size=len(source.body),
            source=source.body,
            requirements=None
            if environment.requirements is None
            else list(environment.requirements),
            requires_python=environment.requires_python,
            python=environment.python,
            lock_sha256=environment.lock_sha256,
            lock=environment.lock,
            packages=environment.packages,
            created_at=now,
        )
        event = StrategyUploaded(owner=owner, strategy_id=strategy.id, at=now, name=name, version=1)
        try:
            async with self._database.write() as session:
                session.add_all([strategy, version])
                kept = await self._vault.add(session, owner, strategy.id, variables)
                said = {name: now for name, (_, now) in differences(RunPolicy(), policy).items()}
                after = {"name": name, "sha256": source.sha256, **kept, **said}
                after |= headline(environment)
                record(session, act, on=(owner, strategy.id), after=after)
                self._outbox.add(session, event)
        except IntegrityError:
            raise NameTaken(f"you have a strategy named {name!r} already") from None
        self._outbox.wake()
        return strategy.id

    async def delete(self, act: StrategyAct) -> None:
        """Hide it; its rows stay for a while. Raises UnknownStrategy."""
        now = utc_now()
        async with self._database.write() as session:
            strategy = await _existing(session, act.id)
            strategy.deleted_at = now
            session.add(strategy)
            record(session, act, on=act.on, before={"name": strategy.name})
            event = StrategyDeleted(owner=act.owner, strategy_id=act.id, at=now)
            self._outbox.add(session, event)
        self._outbox.wake()

    async def schedule(self, strategy_id: str) -> ScheduleRow | None:
        async with self._database.read() as session:
            return await session.get(ScheduleRow, strategy_id)

    async def set_schedule(self, act: StrategyAct, spec: dict[str, Any]) -> None:
        """Raises UnknownStrategy."""
        now = utc_now()
        async with self._database.write() as session:
            await _existing(session, act.id)
            row = await session.get(ScheduleRow, act.id)
            record(session, act, on=act.on, before=row.spec if row else None, after=spec)
            row = row or ScheduleRow(strategy_id=act.id, revision=0, spec=spec, updated_at=now)
            row.revision, row.spec, row.updated_at = row.revision + 1, spec, now
            session.add(row)
            event = ScheduleChanged(
                owner=act.owner, strategy_id=act.id, at=now, revision=row.revision
            )
            self._outbox.add(session, event)
        self._outbox.wake()

    async def remove_schedule(self, act: StrategyAct) -> bool:
        """Whether there was one. Raises UnknownStrategy."""
        now = utc_now()
        async with self._database.write() as session:
            await _existing(session, act.id)
            row = await session.get(ScheduleRow, act.id)
            record(session, act, on=act.on, before=row.spec if row else None)
            if row is None:
                return False
            await session.delete(row)
            event = ScheduleRemoved(owner=act.owner, strategy_id=act.id, at=now)
            self._outbox.add(session, event)
        self._outbox.wake()
        return True

    async def policy(self, strategy_id: str) -> RunPolicy:
        """Raises UnknownStrategy."""
        async with self._database.read() as session:
            return (await _existing(session, strategy_id)).policy

    async def change_policy(self, act: StrategyAct, part: Part) -> tuple[RunPolicy, set[str]]:
        """Set these fields of it. Returns the policy, and the names of those that differ now.

        Raises UnknownStrategy, InvalidRequest.
        """
        async with self._database.write() as session:
            strategy = await _existing(session, act.id, lock=True)  # two parts are both kept
            policy = changed(strategy.policy, part)
            differing = differences(strategy.policy, policy)
            strategy.policy = policy
            session.add(strategy)
            before = {name: was for name, (was, _) in differing.items()}
            after = {name: now for name, (_, now) in differing.items()}
            record(session, act, on=act.on, before=before, after=after)
            if differing:
                event = LimitsChanged(
                    owner=act.owner, strategy_id=act.id, at=utc_now(), names=tuple(differing)
                )
                self._outbox.add(session, event)
        self._outbox.wake()
        return policy, set(differing)

    async def share(self, act: StrategyAct, user: User, permission: Permission | None) -> None:
        """Let somebody else see or operate it, or with none no longer. Raises UnknownStrategy."""
        now = utc_now()
        async with self._database.write() as session:
            await _existing(session, act.id)
            row = await session.get(Share, (act.id, user.id))
            if row is None and permission is None:
                return
            before = {"user": user.name, "permission": row.permission} if row else None
            after = {"user": user.name, "permission": permission} if permission else None
            record(session, act, on=act.on, before=before, after=after)
            if permission is None and row is not None:
                await session.delete(row)
            if permission is not None:
                row = row or Share(
                    strategy_id=act.id, user_id=user.id, permission=permission, created_at=now
                )
                row.permission = permission
                session.add(row)
            shared = StrategyShared(
                owner=act.owner,
                strategy_id=act.id,
                at=now,
                user=user.name,
                permission=permission,
            )
            self._outbox.add(session, shared)
            self._outbox.add(session, AccessChanged(owner=user.id, at=now))
        self._identities.forget(user.id)
        self._outbox.wake()

    async def shares(self, strategy_id: str) -> Sequence[tuple[Share, str]]:
        """Each with the name of its user."""
        async with self._database.read() as session:
            query = (
                select(Share, User.name)
                .join(User, col(User.id) == Share.user_id)
                .where(Share.strategy_id == strategy_id)
                .order_by(User.name_key)
            )
            return [(share, name) for share, name in await all_rows(session, query)]

    async def runs(self, strategy_id: str, most: int, before: int | None = None) -> list[Run]:
        """The latest runs, newest first, or those before an epoch; without their last lines."""
        async with self._database.read() as session:
            query = (
                select(Run)
                .where(Run.strategy_id == strategy_id)
                .order_by(col(Run.epoch).desc())
                .limit(most)
                .options(defer(cast("Any", Run.last_lines)))
            )
            if before is not None:
                query = query.where(Run.epoch < before)
            return list((await session.exec(query)).all())

    async def run(self, strategy_id: str, run_id: str | None) -> Run:
        """This run, or the latest. Raises UnknownRun."""
        if run_id is None:
            for run in await self.runs(strategy_id, 1):
                return run
            raise UnknownRun("it has not run yet")
        async with self._database.read() as session:
            run = await session.get(Run, run_id)
            if run is None or run.strategy_id != strategy_id:
                raise UnknownRun(f"there is no run {run_id[:100]!r}")
            return run

    async def version(self, strategy_id: str) -> Version:
        """The current one, without its source. Raises UnknownStrategy."""
        query = (
            select(Version)
            .join(Strategy, col(Strategy.id) == Version.strategy_id)
            .where(Version.strategy_id == strategy_id, Version.number == Strategy.version)
            .options(defer(cast("Any", Version.source)))
        )
        async with self._database.read() as session:
            found = (await session.exec(query)).first()
        if found is None:
            raise unknown(strategy_id)
        return found

    async def artifact(self, sha256: str) -> bytes | None:
        """The source, or the lock, that has this hash."""
        async with self._database.read() as session:
            for body, digest in (
                (Version.source, Version.sha256),
                (Version.lock, Version.lock_sha256),
            ):
                query = select(body).where(col(digest) == sha256).limit(1)
                if found := (await session.exec(query)).first():
                    return found
        return None


async def _existing(session: AsyncSession, strategy_id: str, *, lock: bool = False) -> Strategy:
    """Who may is decided before; meanwhile it may have been deleted. Raises UnknownStrategy."""
    strategy = await session.get(Strategy, strategy_id, with_for_update=lock or None)
    if strategy is None or strategy.deleted_at is not None:
        raise unknown(strategy_id)
    return strategy
