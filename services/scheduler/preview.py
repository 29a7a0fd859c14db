"""What a schedule will do, day by day, and why. Pure, but for asking the calendar."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from itertools import islice, takewhile

from openbell.contracts.commands import Preview, PreviewedDay, PreviewedWindow, PreviewSchedule
from openbell.contracts.model import Session, SessionKind
from openbell.contracts.schedules import (
    Always,
    Anchored,
    AnySchedule,
    Cron,
    Interval,
    Manual,
    Market,
    MarketTime,
    Once,
    exchange_of,
    show_duration,
    show_market_time,
    show_time,
)
from services.scheduler.days import DAY, Days, Known
from services.scheduler.planner import plan
from services.scheduler.windows import Window, windows_of

MOST_WINDOWS = 1000
MOST_SKIPPED = 400
Ask = Callable[[str, date, date], Awaitable[Known]]


async def preview(command: PreviewSchedule, ask: Ask) -> Preview:
    """In a thread: a year takes long enough for a start to be late.

    Raises UnknownExchange, ServiceUnavailable.
    """
    exchange = exchange_of(command.schedule)
    first = command.first.date()
    known = None
    if exchange is not None:
        known = await ask(exchange, first - 2 * DAY, first + (command.days + 2) * DAY)
    return await asyncio.to_thread(_preview, command, known)


def _preview(command: PreviewSchedule, known: Known | None) -> Preview:
    schedule, now = command.schedule, command.first
    until = now + command.days * DAY
    windows = windows_of(schedule, command.since, known)
    current = [window for window in islice(windows.started(now), 1) if window.holds(now)]
    coming = takewhile(lambda window: window.start < until, windows.upcoming(now))
    found = [*current, *islice(coming, MOST_WINDOWS + 1)]
    truncated = len(found) > MOST_WINDOWS
    found = found[:MOST_WINDOWS]
    zones = _zones(schedule, known)
    last = found[-1].start if truncated else until
    skipped = dict(islice(windows.skipped(zones.day_of(now), zones.day_of(last)), MOST_SKIPPED))
    now_plan = plan(schedule, command.since, known, now)
    return Preview(
        timezone=str(zones.local),
        days=_days(schedule, found, skipped, zones),
        truncated=truncated,
        warning="; ".join(filter(None, (None if found else now_plan.reason, now_plan.warning)))
        or None,
    )


@dataclass(frozen=True, slots=True)
class _Zones:
    local: tzinfo
    """In which the schedule's times are told."""
    dates: tzinfo
    """Of whose dates its days are."""

    def day_of(self, at: datetime) -> date:
        return at.astimezone(self.dates).date()


def _zones(schedule: AnySchedule, known: Known | None) -> _Zones:
    match schedule:
        case Market() | Interval() | Cron():
            days = Days(schedule, known)
            return _Zones(days.zone, days.day_zone)
        case Once():
            return _Zones(schedule.zone, schedule.zone)
        case _:
            return _Zones(UTC, UTC)


def _days(
    schedule: AnySchedule, windows: Sequence[Window], skipped: dict[date, str], zones: _Zones
) -> tuple[PreviewedDay, ...]:
    by_day: defaultdict[date, list[PreviewedWindow]] = defaultdict(list)
    for window in windows:
        day = window.session.day if window.session else zones.day_of(window.start)
        by_day[day].append(_previewed(schedule, window))
    return tuple(
        PreviewedDay(day=day, windows=tuple(by_day[day]), skipped=None)
        if day in by_day
        else PreviewedDay(day=day, skipped=skipped[day])
        for day in sorted({*by_day, *skipped})
    )


def _previewed(schedule: AnySchedule, window: Window) -> PreviewedWindow:
    start, stop = _reasons(schedule, window)
    return PreviewedWindow(
        starts_at=window.start, start_reason=start, stops_at=window.stop, stop_reason=stop
    )


def _reasons(schedule: AnySchedule, window: Window) -> tuple[str, str]:
    """Why it starts when it does, and stops when it does."""
    match schedule:
        case Market():
            return _of_market(schedule, window)
        case Cron(duration=timedelta() as duration):
            return f"cron {schedule.cron}", f"{show_duration(duration)} after its start"
        case Cron():
            stop = f"at {show_time(schedule.stop)}" if schedule.stop else ENDS_BY_ITSELF
            return f"cron {schedule.cron}", stop
        case Interval():
            inside = f" from the open of {schedule.exchange}" if schedule.exchange else ""
            return f"every {show_duration(schedule.every)}{inside}", ENDS_BY_ITSELF
        case Once():
            return "at its one time", "at its one stop" if window.stop else ENDS_BY_ITSELF
        case Always():
            return "around the clock", "never"
        case Manual():
            return "by hand", ENDS_BY_ITSELF


ENDS_BY_ITSELF = "it ends by itself"


def _of_market(schedule: Market, window: Window) -> tuple[str, str]:
    session = window.session
    assert session is not None
    note = f" ({session.reason})" if session.reason else ""
    start = _edge(schedule.start, window.start, session) + note
    if schedule.stop is None or window.stop is None:
        return start, ENDS_BY_ITSELF
    return start, _edge(schedule.stop, window.stop, session) + note


def _edge(written: MarketTime, at: datetime, session: Session) -> str:
    """What an end of a window goes by: the user's time, or its session's where that clips it."""
    if isinstance(written, Anchored):
        return f"the session's {show_market_time(written)}"
    clips = session.kind is not SessionKind.USUAL
    if clips and at == session.opens_at:
        return "the session opens"
    if clips and at == session.closes_at:
        return "the session closes"
    return f"at {show_time(written)}"
