"""Everything about one strategy, read together: its rows, and what its schedule says now."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import or_, tuple_
from sqlalchemy import select as select_columns
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from sqlmodel.sql.expression import SelectOfScalar

from openbell.contracts.commands import StartRun, StopRun
from openbell.contracts.errors import UnknownStrategy
from openbell.contracts.model import (
    ExitReason,
    Intent,
    Outlook,
    RestartPolicy,
    RunState,
    SlotState,
    stop_ladder,
)
from openbell.contracts.schedules import SCHEDULE, Always
from openbell.db.models import Occurrence, Run, ScheduleRow, Slot, Strategy, Version
from openbell.db.session import all_rows
from services.scheduler.decisions import EndedRun, Facts, LiveRun
from services.scheduler.planner import NO_SCHEDULE, Plan, plan_always, plan_market
from services.scheduler.sessions import SessionBook

START, STOP = "start", "stop"
DONE, WAITING, MISSED = "done", "waiting", "missed"
TOGETHER = 1000
"""Ids in one query; PostgreSQL takes 32,767 at most."""


@dataclass(frozen=True, slots=True)
class Dispatch:
    """What a runner must be told once the transaction is committed. Safe to repeat."""

    runner: str
    command: StartRun | StopRun


@dataclass(slots=True)
class Case:
    """All rows of one strategy, and what its schedule says now."""

    strategy: Strategy
    sha256: str
    filename: str
    schedule: ScheduleRow | None
    slot: Slot
    run: Run | None
    plan: Plan
    occurrences: dict[tuple[datetime, str], Occurrence] = field(
        default_factory=dict[tuple[datetime, str], Occurrence]
    )
    """Those that the plan names, by instant and action."""

    @property
    def always(self) -> bool:
        """Whether its window is open-ended, so that nothing in it is late."""
        return self.schedule is not None and self.schedule.spec["kind"] == "always"

    @property
    def live(self) -> bool:
        return self.slot.state == SlotState.HELD

    def facts(self) -> Facts:
        slot, run = self.slot, self.run
        latest: LiveRun | EndedRun | None = None
        if run is not None and run.live:
            stop_reason = ExitReason(run.stop_reason) if run.stop_reason else None
            latest = LiveRun(RunState(run.state), run.granted_at, stop_reason)
        elif run is not None:
            latest = EndedRun(run.decisive_reason, run.exited_at)
        return Facts(
            intent=Intent(slot.intent),
            intent_at=slot.intent_at,
            run=latest,
            policy=RestartPolicy(self.strategy.restart),
            retry_at=slot.retry_at,
            gave_up=slot.gave_up,
            schedule_at=self.schedule.updated_at if self.schedule else None,
            served=self._is_served(),
            stop_at=slot.next_stop,
            deleted=self.strategy.deleted_at is not None,
        )

    def _is_served(self) -> bool:
        window = self.plan.window
        start = self.occurrences.get((window.start, START)) if window else None
        return start is not None and start.state == DONE

    def dispatch(self) -> Dispatch | None:
        """What the runner has not confirmed yet; it is told again at every look."""
        run = self.run
        if run is None or not run.live:
            return None
        if run.stop_reason is not None:
            return Dispatch(run.runner, self._stop_run())
        if run.state == RunState.GRANTED:
            return Dispatch(run.runner, self._start_run())
        return None

    def _start_run(self) -> StartRun:
        assert self.run is not None
        return StartRun(
            run_id=self.run.id,
            strategy_id=self.strategy.id,
            strategy_name=self.strategy.name,
            owner=self.strategy.owner,
            epoch=self.run.epoch,
            sha256=self.sha256,
            filename=self.filename,
            exchange=self.strategy.exchange,
            ladder=stop_ladder(self.strategy.stop_grace_s),
        )

    def _stop_run(self) -> StopRun:
        assert self.run is not None
        return StopRun(
            run_id=self.run.id,
            strategy_id=self.strategy.id,
            epoch=self.run.epoch,
            reason=ExitReason(self.run.stop_reason or ExitReason.STOPPED_BY_USER),
            ladder=stop_ladder(self.strategy.stop_grace_s),
        )


class Cases:
    """Reads cases, and locks them for the transaction where the database has row locks."""

    def __init__(self, session: AsyncSession, book: SessionBook, now: datetime) -> None:
        self._session = session
        self._book = book
        self._now = now

    async def existing(self, strategy_id: str) -> Case:
        """Raises UnknownStrategy."""
        for case in await self.load([strategy_id]):
            if case.strategy.deleted_at is None:
                return case
        raise UnknownStrategy(f"there is no strategy {strategy_id}")

    async def load(self, ids: Sequence[str]) -> list[Case]:
        await self._lock(ids)
        query = (
            select_columns(
                Strategy, col(Version.sha256), col(Version.filename), ScheduleRow, Slot, Run
            )
            .join(
                Version,
                (col(Version.strategy_id) == Strategy.id)
                & (col(Version.number) == Strategy.version),
            )
            .outerjoin(ScheduleRow, col(ScheduleRow.strategy_id) == Strategy.id)
            .outerjoin(Slot, col(Slot.strategy_id) == Strategy.id)
            .outerjoin(Run, col(Run.id) == Slot.run_id)
            .where(
                col(Strategy.id).in_(ids),
                col(Strategy.deleted_at).is_(None) | (col(Slot.state) == SlotState.HELD),
            )
            .order_by(Strategy.id)
        )
        cases = [
            Case(
                strategy,
                sha256,
                filename,
                schedule,
                slot or Slot(strategy_id=strategy.id, owner=strategy.owner),
                run,
                self._plan(schedule),
            )
            for strategy, sha256, filename, schedule, slot, run in await all_rows(
                self._session, query
            )
        ]
        await self._find_occurrences(cases)
        return cases

    async def _lock(self, ids: Sequence[str]) -> None:
        """Before reading, in one order: what is read after it is what the last holder wrote.

        SQLite has one writer, which we are already.
        """
        if self._session.get_bind().dialect.name == "sqlite":
            return
        query = select(Strategy.id).where(col(Strategy.id).in_(ids)).order_by(Strategy.id)
        await all_rows(self._session, query.with_for_update(key_share=True))

    async def _find_occurrences(self, cases: Sequence[Case]) -> None:
        by_id = {case.strategy.id: case for case in cases}
        named = {(case.strategy.id, instant) for case in cases for instant in _instants(case.plan)}
        if not named:
            return
        key = tuple_(col(Occurrence.strategy_id), col(Occurrence.instant))
        query = select(Occurrence).where(key.in_(named))
        for occurrence in await all_rows(self._session, query):
            known = by_id[occurrence.strategy_id].occurrences
            known[occurrence.instant, occurrence.action] = occurrence

    def _plan(self, row: ScheduleRow | None) -> Plan:
        if row is None:
            return NO_SCHEDULE
        schedule = SCHEDULE.validate_python(row.spec)
        if isinstance(schedule, Always):
            return plan_always(row.updated_at)
        known = self._book.known(schedule.exchange, self._now)
        return plan_market(schedule, known, self._now)


def _instants(plan: Plan) -> list[datetime]:
    windows = [window.start for window in (plan.window, plan.last_window) if window]
    return [*windows, plan.last_stop] if plan.last_stop else windows


async def all_ids(session: AsyncSession) -> Sequence[str]:
    """The strategies that a scheduler has anything to do with, in a stable order."""
    return (await session.exec(_scheduled_ids())).all()


async def pending_ids(session: AsyncSession, now: datetime) -> Sequence[str]:
    """Those of them that may need something now, as far as their rows tell.

    What is live, wanted, waited for, or past the next instant of its plan; and whose plan is not of
    the schedule that it has. Of the others nothing is due before their plan says so.
    """
    query = _scheduled_ids().where(
        or_(
            col(Slot.state) == SlotState.HELD,
            col(Slot.intent) == Intent.RUN,
            col(Slot.retry_at).is_not(None),
            col(Slot.waiting).is_not(None),
            col(Slot.next_start) <= now,
            col(Slot.next_stop) <= now,
            col(Slot.outlook) == Outlook.UNKNOWN,
            col(Slot.schedule_at).is_distinct_from(col(ScheduleRow.updated_at)),
        )
    )
    return (await session.exec(query)).all()


async def moments(
    session: AsyncSession, after: datetime, until: datetime
) -> Sequence[tuple[str, datetime]]:
    """The next instants of plans, with whose they are, whichever scheduler has made them."""
    found: list[tuple[str, datetime]] = []
    for moment in (col(Slot.next_start), col(Slot.next_stop)):
        within = (moment > after) & (moment <= until)
        found += await all_rows(
            session, select_columns(col(Slot.strategy_id), moment).where(within)
        )
    return found


def _scheduled_ids() -> SelectOfScalar[str]:
    return (
        select(Strategy.id)
        .outerjoin(Slot, col(Slot.strategy_id) == Strategy.id)
        .outerjoin(ScheduleRow, col(ScheduleRow.strategy_id) == Strategy.id)
        .where(col(Strategy.deleted_at).is_(None) | (col(Slot.state) == SlotState.HELD))
        .order_by(Strategy.id)
    )


async def exchanges(session: AsyncSession, ids: Sequence[str]) -> set[str]:
    """Whose sessions the schedules of these strategies need."""
    found: set[str] = set()
    for start in range(0, len(ids), TOGETHER):
        some = col(ScheduleRow.strategy_id).in_(ids[start : start + TOGETHER])
        rows = (await session.exec(select(ScheduleRow).where(some))).all()
        found |= {row.spec["exchange"] for row in rows if "exchange" in row.spec}
    return found
