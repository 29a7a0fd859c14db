"""What a schedule says about a moment. Pure: (schedule, sessions, now) in, a plan out.

Written once, for the scheduler, the API's preview and the UI.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from openbell.contracts.commands import Sessions
from openbell.contracts.model import Outlook, Session
from openbell.contracts.schedules import WEEKDAYS, Market

LOOK_BACK = timedelta(days=14)
"""As far as a missed stop is remembered."""
LOOK_AHEAD = timedelta(days=21)
"""Longer than any closure of a covered exchange; beyond it, no next start is named."""
AFTER_HOURS_CATCH_UP = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Window:
    """From when to when a strategy should run."""

    start: datetime
    stop: datetime | None
    latest_start: datetime | None
    """Until when a missed start is caught up; None: as long as the window lasts."""

    def holds(self, now: datetime) -> bool:
        end = self.stop or self.latest_start
        return self.start <= now and (end is None or now < end)


@dataclass(frozen=True, slots=True)
class Plan:
    """What the schedule wants at one moment, and what it wants next."""

    outlook: Outlook
    reason: str
    window: Window | None = None
    """The window that holds now."""
    ends: bool = False
    """Whether the schedule stops what it started."""
    last_stop: datetime | None = None
    """The latest stop that is not in the future."""
    last_window: Window | None = None
    """The latest window that is over."""
    next_start: datetime | None = None
    next_stop: datetime | None = None


NO_SCHEDULE = Plan(Outlook.NONE, "no schedule")


def plan_always(since: datetime) -> Plan:
    return Plan(Outlook.OPEN, "around the clock", window=Window(since, None, None))


def plan_market(schedule: Market, known: Sessions | None, now: datetime) -> Plan:
    """The plan of a market schedule.

    `known` holds the sessions of its exchange around `now`; None when no calendar answers. A day
    that the calendar does not cover is unknown, and never taken for open.
    """
    if known is None:
        return Plan(Outlook.UNKNOWN, "the calendar does not answer")
    zone = ZoneInfo(known.timezone)
    today = now.astimezone(zone).date()
    windows = _windows(schedule, known.sessions, zone)
    current = next((window for window in windows if window.holds(now)), None)
    upcoming = next((window for window in windows if window.start > now), None)
    past = [window for window in windows if window.start <= now and window is not current]
    stops = [window.stop for window in past if window.stop and window.stop <= now]
    outlook, reason = _outlook(schedule, known, today, current, upcoming, zone)
    return Plan(
        outlook=outlook,
        reason=reason,
        window=current,
        ends=schedule.stop is not None,
        last_stop=max(stops, default=None),
        last_window=past[-1] if past else None,
        next_start=upcoming.start if upcoming else None,
        next_stop=current.stop if current else upcoming.stop if upcoming else None,
    )


def _windows(schedule: Market, sessions: Sequence[Session], zone: ZoneInfo) -> list[Window]:
    windows = [_window(schedule, session, zone) for session in sessions]
    by_start = {window.start: window for window in windows if window is not None}
    return [by_start[start] for start in sorted(by_start)]


def _window(schedule: Market, session: Session, zone: ZoneInfo) -> Window | None:
    """The schedule's window on this session's day; None where there is none.

    On a usual day the user's times stand as written, before the open and after the close too. A
    special session has hours of its own, and gates the window: nothing starts at 09:15 for a
    session at 18:00.
    """
    day = session.opens_at.astimezone(zone).date()
    if WEEKDAYS[day.weekday()] not in schedule.weekdays:
        return None
    start, stop = _instant(day, schedule.start, zone), None
    if schedule.stop is not None:
        overnight = timedelta(days=schedule.stop < schedule.start)
        stop = _instant(day + overnight, schedule.stop, zone)
    if session.special:
        start = max(start, session.opens_at)
        stop = min(stop, session.closes_at) if stop else None
        if start >= (stop or session.closes_at):
            return None
    latest = session.closes_at if start < session.closes_at else start + AFTER_HOURS_CATCH_UP
    return Window(start, stop, latest_start=None if stop else latest)


def _instant(day: date, at: time, zone: ZoneInfo) -> datetime:
    """A local time as an instant. Of one that comes twice on a clock change, the first counts; one
    that the change skips comes as much later as the clock went forward.
    """
    return datetime.combine(day, at, zone).astimezone(UTC)


def _outlook(
    schedule: Market,
    known: Sessions,
    today: date,
    current: Window | None,
    upcoming: Window | None,
    zone: ZoneInfo,
) -> tuple[Outlook, str]:
    exchange = schedule.exchange
    if current is not None:
        return Outlook.OPEN, f"inside its window on {exchange}"
    if not known.covered_from <= today <= known.covered_until:
        return Outlook.UNKNOWN, f"the calendar of {exchange} does not cover {today:%Y}"
    days = {session.opens_at.astimezone(zone).date() for session in known.sessions}
    if upcoming is None and known.covered_until < today + LOOK_AHEAD:
        return Outlook.UNKNOWN, f"the calendar of {exchange} ends on {known.covered_until}"
    if upcoming is None:
        return Outlook.PAUSED, f"no session of {exchange} on its weekdays in the coming weeks"
    if today not in days:
        weekend = today.weekday() >= 5
        return Outlook.PAUSED, "weekend" if weekend else f"{exchange} is closed today"
    if WEEKDAYS[today.weekday()] not in schedule.weekdays:
        return Outlook.PAUSED, f"not scheduled on {today:%A}s"
    return Outlook.SCHEDULED, "outside its window"
