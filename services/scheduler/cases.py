"""Everything about one strategy, read together: its rows, and what its schedule says now."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select as select_columns
from sqlalchemy import tuple_
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from openbell.contracts.commands import StartRun, StopRun
from openbell.contracts.errors import UnknownStrategy
from openbell.contracts.model import (
    ExitReason,
    Intent,
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
    occurrence: Occurrence | None = None
    """The start of the plan's window."""

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
            latest = EndedRun(run.exit_reason or ExitReason.LOST, run.exited_at)
        return Facts(
            intent=Intent(slot.intent),
            intent_at=slot.intent_at,
            run=latest,
            policy=RestartPolicy(self.strategy.restart),
            retry_at=slot.retry_at,
            gave_up=slot.gave_up,
            schedule_at=self.schedule.updated_at if self.schedule else None,
            served=self.occurrence is not None and self.occurrence.state == DONE,
            deleted=self.strategy.deleted_at is not None,
        )

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
            .with_for_update(of=Strategy, key_share=True)
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

    async def _find_occurrences(self, cases: Sequence[Case]) -> None:
        by_key = {(c.strategy.id, c.plan.window.start): c for c in cases if c.plan.window}
        if not by_key:
            return
        key = tuple_(col(Occurrence.strategy_id), col(Occurrence.instant))
        query = select(Occurrence).where(col(Occurrence.action) == START, key.in_(by_key))
        for occurrence in await all_rows(self._session, query):
            by_key[occurrence.strategy_id, occurrence.instant].occurrence = occurrence

    def _plan(self, row: ScheduleRow | None) -> Plan:
        if row is None:
            return NO_SCHEDULE
        schedule = SCHEDULE.validate_python(row.spec)
        if isinstance(schedule, Always):
            return plan_always(row.updated_at)
        known = self._book.known(schedule.exchange, self._now)
        return plan_market(schedule, known, self._now)


async def all_ids(session: AsyncSession) -> Sequence[str]:
    """The strategies that a scheduler has anything to do with, in a stable order."""
    query = (
        select(Strategy.id)
        .outerjoin(Slot, col(Slot.strategy_id) == Strategy.id)
        .where(col(Strategy.deleted_at).is_(None) | (col(Slot.state) == SlotState.HELD))
        .order_by(Strategy.id)
    )
    return (await session.exec(query)).all()
