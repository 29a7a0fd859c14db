"""Which strategies have to be looked at, and when: as far as rows tell."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import delete, func, or_
from sqlalchemy import select as select_columns
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from sqlmodel.sql.expression import SelectOfScalar

from openbell.contracts.model import Intent, Outlook, RunState, SlotState
from openbell.db.models import Occurrence, Run, ScheduleRow, Slot, Strategy
from openbell.db.session import all_rows
from services.scheduler.decisions import StartState

KEPT = timedelta(days=30)
"""How long occurrences are kept."""
SKIPPED_KEPT = timedelta(days=2)
PRUNED = 10_000
"""As many are forgotten at once."""
TOGETHER = 1000
"""Ids in one query; PostgreSQL takes 32,767 at most."""
OVERDUE = timedelta(seconds=1)
"""So late, something is not under way any more: whoever was to do it did not."""
UNDER_WAY = timedelta(seconds=10)
"""For so long what a runner was not told is told again each second; then at the slower look."""
PREPARING_ONE = timedelta(seconds=0.06)
"""Of many that are due at one instant each takes its runner so long, or less (docs/benchmarks.md),
and so much earlier all of them are granted."""
LONGEST_LEAD = timedelta(minutes=5)
IN_TURN = (
    col(Slot.waiting_since).asc().nulls_last(),
    col(Slot.next_start).asc().nulls_last(),
    col(Strategy.id),
)
"""Who has waited for the longest; then who is due by its plan, the earliest first."""


async def all_ids(session: AsyncSession) -> Sequence[str]:
    """The strategies that a scheduler has anything to do with, those whose turn it is first."""
    return (await session.exec(_scheduled_ids())).all()


async def pending_ids(session: AsyncSession, now: datetime, lead: timedelta) -> Sequence[str]:
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
            col(Slot.next_start) <= now + lead,
            col(Slot.next_stop) <= now,
            col(Slot.outlook) == Outlook.UNKNOWN,
            col(Slot.schedule_at).is_distinct_from(col(ScheduleRow.updated_at)),
        )
    )
    return (await session.exec(query)).all()


async def overdue_ids(session: AsyncSession, now: datetime, lead: timedelta) -> Sequence[str]:
    """Those for whom something is due that nobody has done, or told a runner, for a while.

    Cheap, for it is asked every second: whichever scheduler planned it may be gone by now. What
    waits for something is left to the slower look.
    """
    late, recently = now - OVERDUE, now - UNDER_WAY
    free = (col(Slot.state) == SlotState.FREE) & (col(Slot.intent) != Intent.STOP)
    undelivered = (col(Run.state) == RunState.GRANTED) & col(Run.granted_at).between(recently, late)
    due = or_(
        col(Slot.waiting).is_(None)
        & or_(
            free & (col(Slot.next_start) <= now + lead),
            col(Slot.next_start) <= late,
            col(Slot.retry_at) <= late,
        ),
        col(Slot.next_stop) <= late,
        (col(Slot.state) == SlotState.HELD)
        & or_(undelivered, col(Run.stop_asked_at).between(recently, late)),
    )
    query = (
        select(Slot.strategy_id)
        .join(Strategy, col(Strategy.id) == Slot.strategy_id)
        .outerjoin(Run, col(Run.id) == Slot.run_id)
        .where(due, col(Strategy.deleted_at).is_(None) | (col(Slot.state) == SlotState.HELD))
        .order_by(*IN_TURN)
    )
    return (await session.exec(query)).all()


async def ids_on(session: AsyncSession, exchange: str) -> Sequence[str]:
    """Those whose schedules depend on this exchange; what runs, or is due soon, comes first."""
    query = (
        select(ScheduleRow.strategy_id)
        .outerjoin(Slot, col(Slot.strategy_id) == ScheduleRow.strategy_id)
        .where(col(ScheduleRow.spec)["exchange"].as_string() == exchange)
        .order_by(col(Slot.state).desc(), col(Slot.next_start), ScheduleRow.strategy_id)
    )
    return (await session.exec(query)).all()


async def moments(
    session: AsyncSession, after: datetime, until: datetime, lead: timedelta
) -> Sequence[tuple[str, datetime]]:
    """When something is due by their plans, with whose it is, whichever scheduler made the plan.

    A start is due twice: when it is prepared, and at its instant.
    """
    found: list[tuple[str, datetime]] = []
    for moment, earlier in (
        (col(Slot.next_start), lead),
        (col(Slot.next_start), timedelta()),
        (col(Slot.next_stop), timedelta()),
    ):
        within = (moment > after + earlier) & (moment <= until + earlier)
        query = select_columns(col(Slot.strategy_id), moment).where(within)
        found += [(id_, at - earlier) for id_, at in await all_rows(session, query)]
    return found


async def lead_now(session: AsyncSession, now: datetime, least: timedelta) -> timedelta:
    """How long before their instant starts are granted: the longer, the more share one soon.

    Those that are granted by now do not count any more, and the others need no longer for them.
    """
    instant = col(Slot.next_start)
    soon = (instant > now) & (instant <= now + LONGEST_LEAD) & (col(Slot.state) == SlotState.FREE)
    together = func.count()
    query = select(together).where(soon).group_by(instant).order_by(together.desc())
    most = (await session.exec(query.limit(1))).first() or 0
    return max(least, min(most * PREPARING_ONE, LONGEST_LEAD)) if least else least


async def prune_occurrences(session: AsyncSession, now: datetime) -> None:
    """Forget some of those of which no plan and no missed start can speak any more."""
    instant, state = col(Occurrence.instant), col(Occurrence.state)
    old = (instant < now - KEPT) | ((state == StartState.SKIPPED) & (instant < now - SKIPPED_KEPT))
    newest = select(Occurrence.instant).where(old).order_by(instant).offset(PRUNED).limit(1)
    until = (await session.exec(newest)).first() or now
    await session.exec(delete(Occurrence).where(old, instant < until))


def _scheduled_ids() -> SelectOfScalar[str]:
    return (
        select(Strategy.id)
        .outerjoin(Slot, col(Slot.strategy_id) == Strategy.id)
        .outerjoin(ScheduleRow, col(ScheduleRow.strategy_id) == Strategy.id)
        .where(col(Strategy.deleted_at).is_(None) | (col(Slot.state) == SlotState.HELD))
        .order_by(*IN_TURN)
    )


async def exchanges(session: AsyncSession, ids: Sequence[str]) -> set[str]:
    """Whose sessions the schedules of these strategies need."""
    found: set[str] = set()
    for start in range(0, len(ids), TOGETHER):
        some = col(ScheduleRow.strategy_id).in_(ids[start : start + TOGETHER])
        rows = (await session.exec(select(ScheduleRow).where(some))).all()
        named = (row.spec.get("exchange") for row in rows)
        found |= {exchange for exchange in named if isinstance(exchange, str)}
    return found
