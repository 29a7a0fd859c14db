"""What a schedule says about a moment. Pure: (schedule, sessions, now) in, a plan out.

Written once, for the scheduler, the API's preview and the UI.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import islice
from typing import NamedTuple

from openbell.contracts.model import Outlook
from openbell.contracts.schedules import (
    Always,
    AnySchedule,
    CatchUp,
    Cron,
    Interval,
    Manual,
    Market,
    Once,
    Overlap,
    exchange_of,
)
from services.scheduler.days import Days, Known
from services.scheduler.windows import Window, Windows, why_never, windows_of

LOOK_AHEAD = timedelta(days=21)
"""Longer than any closure of a covered exchange; beyond it, no next start is named."""
WARN_DAYS = 60
"""How long before its calendar ends a schedule warns of it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What the schedule wants at one moment, and what it wants next."""

    outlook: Outlook
    reason: str
    window: Window | None = None
    """The window that holds now; of several, the one that started last."""
    upcoming: Window | None = None
    """The next one that starts."""
    ends: bool = False
    """Whether the schedule stops what it started."""
    next_stop: datetime | None = None
    """When what runs now, or runs next, is stopped."""
    last_stop: datetime | None = None
    """The latest stop that is not in the future; none where a window held on over it."""
    warning: str | None = None
    """What its user should know before it matters."""
    overlap: Overlap | None = None
    """What becomes of a start that finds a run; none: that run serves it."""
    max_runtime: timedelta | None = None

    @property
    def next_start(self) -> datetime | None:
        return self.upcoming.start if self.upcoming else None

    def ahead(self, now: datetime, lead: timedelta) -> Window | None:
        """The window that holds, or else the one that starts so soon that it is prepared."""
        if self.window is None and self.upcoming and self.upcoming.start - now <= lead:
            return self.upcoming
        return self.window


NO_SCHEDULE = Plan(Outlook.NONE, "no schedule")


def plan(schedule: AnySchedule, since: datetime, known: Known | None, now: datetime) -> Plan:
    """The plan at `now` of a schedule that was set at `since`.

    `known` holds the sessions of its exchange around `now`; None when no calendar answers. A day
    that the calendar does not cover is unknown, and never taken for open.
    """
    if exchange_of(schedule) is not None and known is None:
        found = _Found(None, None, None, None)
        outlook, reason = Outlook.UNKNOWN, "the calendar does not answer"
    else:
        found = _around(windows_of(schedule, since, known), now)
        outlook, reason = _outlook(schedule, known, found, now)
    return Plan(
        outlook=outlook,
        reason=reason,
        window=found.window,
        upcoming=found.upcoming,
        ends=_ends(schedule),
        next_stop=found.next_stop,
        last_stop=found.last_stop,
        warning=_warning(known, now) if known else None,
        overlap=schedule.overlap if isinstance(schedule, Cron | Interval) else None,
        max_runtime=schedule.max_runtime,
    )


def over_since(
    schedule: AnySchedule, since: datetime, known: Known | None, after: datetime, now: datetime
) -> Iterator[Window]:
    """The windows whose starts could happen no longer than until a moment in (`after`, `now`],
    the latest first.
    """
    if exchange_of(schedule) is not None and known is None:
        return
    windows = windows_of(schedule, since, known)
    for window in windows.started(_startable_until(schedule, now)):
        end = window.start_until
        if end is None or end > now:
            continue
        if end <= after:
            return
        yield window


def stop_of(
    schedule: AnySchedule, since: datetime, known: Known | None, at: datetime
) -> datetime | None:
    """When a run is to stop that was due at this instant, where the windows of a schedule may
    overlap: the next one must not keep it alive.
    """
    if not isinstance(schedule, Cron) or (schedule.exchange is not None and known is None):
        return None
    window = next(windows_of(schedule, since, known).started(at), None)
    return window.stop if window is not None and window.holds(at) else None


def _startable_until(schedule: AnySchedule, now: datetime) -> datetime:
    """What started later may still start: all windows of one cron are equally long."""
    if isinstance(schedule, Cron) and schedule.catch_up is CatchUp.START and schedule.duration:
        return now - schedule.duration
    return now


class _Found(NamedTuple):
    """The windows next to a moment; as a Plan has them."""

    window: Window | None
    upcoming: Window | None
    next_stop: datetime | None
    last_stop: datetime | None


def _around(windows: Windows, now: datetime) -> _Found:
    """Ends are ordered like starts: of all that holds, what started last stops last."""
    recent = list(islice(windows.started(now), 2))
    upcoming = next(windows.upcoming(now), None)
    current = next((window for window in recent if window.holds(now)), None)
    over = next((window for window in recent if not window.holds(now)), None)
    last_stop = over.stop if over else None
    if current is None:
        return _Found(None, upcoming, upcoming.stop if upcoming else None, last_stop)
    if last_stop and current.start < last_stop:
        last_stop = None
    return _Found(current, upcoming, current.stop, last_stop)


def _ends(schedule: AnySchedule) -> bool:
    match schedule:
        case Market() | Once():
            return schedule.stop is not None
        case Cron():
            return schedule.stop is not None or schedule.duration is not None
        case _:
            return False


def _outlook(
    schedule: AnySchedule, known: Known | None, found: _Found, now: datetime
) -> tuple[Outlook, str]:
    match schedule:
        case Manual():
            return Outlook.NONE, "only when you start it"
        case Always():
            return Outlook.OPEN, "around the clock"
        case _ if found.window is not None:
            where = f" on {known.segment}" if known else ""
            return Outlook.OPEN, f"inside its window{where}"
        case Once():
            over = found.upcoming is None
            return (Outlook.NONE, "its one time is over") if over else _later()
        case Market() | Interval() | Cron():
            return _outlook_of_day(schedule, known, found, now)


def _later() -> tuple[Outlook, str]:
    return Outlook.SCHEDULED, "outside its window"


def _outlook_of_day(
    schedule: Market | Interval | Cron, known: Known | None, found: _Found, now: datetime
) -> tuple[Outlook, str]:
    days = Days(schedule, known)
    today = days.day_of(now)
    if known is not None and not known.covers(today):
        return Outlook.UNKNOWN, f"the calendar of {known.segment} does not cover {today:%Y}"
    if found.upcoming is None:
        never = why_never(schedule, known, now)
        return (Outlook.PAUSED, never) if never else _nothing_comes(known, today)
    why = days.why_not(today)
    return (Outlook.PAUSED, why) if why else _later()


def _nothing_comes(known: Known | None, today: date) -> tuple[Outlook, str]:
    if known is None:
        return Outlook.PAUSED, "none of its times comes again"
    if known.covered_until < today + LOOK_AHEAD:
        return Outlook.UNKNOWN, f"the calendar of {known.segment} ends on {known.covered_until}"
    return Outlook.PAUSED, f"no session of {known.segment} on its days in the coming weeks"


def _warning(known: Known, now: datetime) -> str | None:
    today = now.astimezone(known.zone).date()
    if (known.covered_until - today).days >= WARN_DAYS:
        return None
    return (
        f"the calendar of {known.segment} ends on {known.covered_until};"
        " nothing starts after that day until its next year is known"
    )
