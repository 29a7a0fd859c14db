"""Everything about one strategy, read together: its rows, and what its schedule says now."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, cast

from pydantic import ValidationError
from sqlalchemy import bindparam, tuple_
from sqlalchemy import select as select_columns
from sqlalchemy.orm import defer
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from openbell.contracts.commands import StartRun, StopRun
from openbell.contracts.model import (
    Cause,
    ExitReason,
    Intent,
    Outlook,
    RunState,
    SlotState,
)
from openbell.contracts.schedules import SCHEDULE, AnySchedule, exchange_of
from openbell.db.models import Occurrence, Run, ScheduleRow, Slot, Strategy, Version
from openbell.db.session import all_rows
from services.scheduler.days import Known
from services.scheduler.decisions import EndedRun, Facts, LiveRun, StartState
from services.scheduler.planner import NO_SCHEDULE, Plan, over_since, plan, stop_of
from services.scheduler.sessions import SessionBook
from services.scheduler.windows import Window

START, STOP = "start", "stop"
LAST = datetime.max.replace(tzinfo=UTC)
MOST_OVER = 20
"""As many windows that are over are accounted for one by one; of those before, their number."""
MOST_COUNTED = 1000
TOGETHER = 1000
"""Ids in one query; PostgreSQL takes 32,767 at most."""
A_MOMENT = timedelta(seconds=2)
"""By which two schedulers' clocks may differ."""


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
    lock_sha256: str | None
    python: str | None
    schedule: ScheduleRow | None
    slot: Slot
    run: Run | None
    plan: Plan
    lead: timedelta
    """How long before its instant a start is prepared."""
    over: Sequence[Window] = ()
    """The windows that are over since this was last looked at, the earliest first."""
    over_before: int = 0
    """How many more of them there were before; some thousand at most."""
    stop_at: datetime | None = None
    """When its live run is to stop, where the windows of its schedule may overlap."""
    prepared: Plan | None = None
    """The plan at the instant for which a run is prepared; none when there is no such run."""
    occurrences: dict[tuple[datetime, str], Occurrence] = field(
        default_factory=dict[tuple[datetime, str], Occurrence]
    )
    """Those that the plan names, by instant and action."""

    def due_at(self, window: Window) -> datetime:
        """The instant at which this window's start was due: it may have begun before its schedule
        was set.
        """
        return max(window.start, self.schedule.updated_at) if self.schedule else window.start

    def start_of(self, window: Window | None) -> Occurrence | None:
        return self.occurrences.get((window.start, START)) if window else None

    @property
    def turn(self) -> tuple[bool, datetime, bool, datetime, str]:
        """Who comes first where not all can: as IN_TURN of the agenda has it."""
        since, due = self.slot.waiting_since, self.slot.next_start
        return since is None, since or LAST, due is None, due or LAST, self.strategy.id

    @property
    def live(self) -> bool:
        return self.slot.state == SlotState.HELD

    def facts(self, now: datetime) -> Facts:
        slot, run = self.slot, self.run
        latest: LiveRun | EndedRun | None = None
        if run is not None and run.live:
            stop_reason = ExitReason(run.stop_reason) if run.stop_reason else None
            latest = LiveRun(
                RunState(run.state),
                run.granted_at,
                stop_reason,
                run.due_at,
                run.started_at,
                self.stop_at,
            )
        elif run is not None:
            latest = EndedRun(run.decisive_reason, run.exited_at)
        return Facts(
            intent=Intent(slot.intent),
            intent_at=slot.intent_at,
            run=latest,
            retry_at=slot.retry_at,
            gave_up=slot.gave_up,
            schedule_at=self.schedule.updated_at if self.schedule else None,
            start=self._state(self.plan.window, now),
            next_start=self._state(self.plan.upcoming, now),
            stop_at=slot.next_stop,
            deleted=self.strategy.deleted_at is not None,
        )

    def deadline(self) -> datetime | None:
        """When its live run has lasted as long as it may."""
        run, most = self.run, self.plan.max_runtime
        if run is None or not run.live or run.started_at is None or most is None:
            return None
        return run.started_at + most

    def _state(self, window: Window | None, now: datetime) -> StartState | None:
        """What became of its start. That it was missed counts for the schedule by which it was,
        and not when that was said by a clock which has been set back since.
        """
        start = self.start_of(window)
        if start is None:
            return None
        state = StartState(start.state)
        revision = self.schedule.revision if self.schedule else 0
        outdated = start.schedule_revision != revision or start.updated_at > now + A_MOMENT
        return None if state is StartState.MISSED and outdated else state

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
            lock_sha256=self.lock_sha256,
            python=self.python,
            exchange=self.strategy.exchange,
            ladder=self.strategy.policy.stop.ladder,
            limits=self.strategy.policy.limits,
            watchdogs=self.strategy.policy.watchdogs,
            interpreter=self.strategy.policy.interpreter,
            start_at=self.run.due_at,
            expected_memory_bytes=self.run.expected_memory_bytes,
            expected_as_seen=self.slot.working_memory_bytes is not None,
        )

    def _stop_run(self) -> StopRun:
        assert self.run is not None
        return StopRun(
            run_id=self.run.id,
            strategy_id=self.strategy.id,
            epoch=self.run.epoch,
            reason=ExitReason(self.run.stop_reason or ExitReason.STOPPED_BY_USER),
            ladder=self.strategy.policy.stop.ladder,
        )


class Cases:
    """Reads cases, and locks them for the transaction where the database has row locks."""

    def __init__(
        self, session: AsyncSession, book: SessionBook, now: datetime, lead: timedelta
    ) -> None:
        self._session = session
        self._book = book
        self._now = now
        self._lead = lead

    async def load(self, ids: Sequence[str]) -> list[Case]:
        await self.lock(ids)
        cases = [self._case(*row) for row in await all_rows(self._session, _CASES, ids=ids)]
        await self._find_occurrences(cases)
        return cases

    def _case(
        self,
        strategy: Strategy,
        sha256: str,
        filename: str,
        lock_sha256: str | None,
        python: str | None,
        row: ScheduleRow | None,
        slot: Slot | None,
        run: Run | None,
    ) -> Case:
        slot = slot or Slot(strategy_id=strategy.id, owner=strategy.owner)
        case = Case(
            strategy, sha256, filename, lock_sha256, python, row, slot, run, NO_SCHEDULE, self._lead
        )
        schedule = _readable(case)
        if row is None or schedule is None:
            return case
        known = self._known(schedule)
        case.plan = plan(schedule, row.updated_at, known, self._now)
        self.foresee(case)
        self._count_over(case, schedule, row.updated_at, known)
        if run is not None and run.live and run.cause != Cause.MANUAL:
            due = run.due_at or run.granted_at
            case.stop_at = stop_of(schedule, row.updated_at, known, due)
        return case

    def _count_over(
        self, case: Case, schedule: AnySchedule, since: datetime, known: Known | None
    ) -> None:
        """From where it was accounted for; a clock that has been set back since counts as now."""
        after = max(min(case.slot.accounted_until or since, self._now), since)
        over = over_since(schedule, since, known, after, self._now)
        case.over = [*islice(over, MOST_OVER)][::-1]
        if len(case.over) == MOST_OVER:
            case.over_before = sum(1 for _ in islice(over, MOST_COUNTED))

    def foresee(self, case: Case) -> None:
        """The plan at the instant for which its run is prepared, if it is."""
        run, row = case.run, case.schedule
        if run is None or row is None or not run.live or run.started_at is not None:
            return
        schedule = _readable(case)
        if schedule is not None and run.due_at is not None and run.due_at > self._now:
            known = self._known(schedule)
            case.prepared = plan(schedule, row.updated_at, known, run.due_at)

    def _known(self, schedule: AnySchedule) -> Known | None:
        exchange = exchange_of(schedule)
        return self._book.known(exchange, self._now) if exchange else None

    async def lock(self, ids: Sequence[str]) -> None:
        """Before reading, in one order: what is read after it is what the last holder wrote.

        SQLite has one writer, which we are already.
        """
        if self._session.get_bind().dialect.name == "sqlite":
            return
        query = select(Strategy.id).where(col(Strategy.id).in_(ids)).order_by(Strategy.id)
        await all_rows(self._session, query.with_for_update(key_share=True))

    async def _find_occurrences(self, cases: Sequence[Case]) -> None:
        by_id = {case.strategy.id: case for case in cases}
        named = {(case.strategy.id, at) for case in cases for at in self._instants(case)}
        key = tuple_(col(Occurrence.strategy_id), col(Occurrence.instant))
        ordered = sorted(named)
        for start in range(0, len(ordered), TOGETHER):
            query = select(Occurrence).where(key.in_(ordered[start : start + TOGETHER]))
            for occurrence in await all_rows(self._session, query):
                known = by_id[occurrence.strategy_id].occurrences
                known[occurrence.instant, occurrence.action] = occurrence

    def _instants(self, case: Case) -> set[datetime]:
        """Of what is due, and what is over: the occurrences that matter now."""
        plan = case.plan
        soon = None
        if plan.upcoming and plan.upcoming.start - self._now <= self._lead:
            soon = plan.upcoming
        found = {window.start for window in (plan.window, soon, *case.over) if window}
        if plan.last_stop:
            found.add(plan.last_stop)
        if case.run is not None and case.run.live and case.run.due_at:
            found.add(case.run.due_at)
        return found


_CASES = (
    select_columns(
        Strategy,
        col(Version.sha256),
        col(Version.filename),
        col(Version.lock_sha256),
        col(Version.python),
        ScheduleRow,
        Slot,
        Run,
    )
    .join(
        Version,
        (col(Version.strategy_id) == Strategy.id) & (col(Version.number) == Strategy.version),
    )
    .outerjoin(ScheduleRow, col(ScheduleRow.strategy_id) == Strategy.id)
    .outerjoin(Slot, col(Slot.strategy_id) == Strategy.id)
    .outerjoin(Run, col(Run.id) == Slot.run_id)
    .options(defer(cast("Any", Run.last_lines)))
    .where(
        col(Strategy.id).in_(bindparam("ids", expanding=True)),
        col(Strategy.deleted_at).is_(None) | (col(Slot.state) == SlotState.HELD),
    )
    .order_by(Strategy.id)
)
"""Without what is large: the last lines of the run."""


def _readable(case: Case) -> AnySchedule | None:
    """Its schedule. One that this release cannot read forbids starts, and says so."""
    if case.schedule is None:
        return None
    try:
        return SCHEDULE.validate_python(case.schedule.spec)
    except ValidationError as error:
        why = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
        case.plan = Plan(Outlook.UNKNOWN, f"its schedule cannot be read: {why}; set it anew")
        return None
