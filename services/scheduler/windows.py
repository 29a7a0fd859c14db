"""From when to when a schedule wants its strategy to run. Pure: schedule and sessions in.

Each kind of schedule tells its windows from an instant on, backwards and forwards, and computes no
more of them than are asked for.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Protocol

from openbell.contracts.model import Session, SessionKind
from openbell.contracts.schedules import (
    Always,
    Anchored,
    AnySchedule,
    CatchUp,
    Cron,
    Interval,
    Manual,
    Market,
    MarketTime,
    Once,
    exchange_of,
)
from services.scheduler.days import DAY, Days, Known, instant
from services.scheduler.fires import fires_of

MADE_UP_FOR = timedelta(hours=1)
"""How long a start without a stop, and outside of sessions, may be late."""
CLOCK_CHANGE = timedelta(hours=3)
"""Longer than any."""
PUNCTUAL = timedelta(minutes=1)
"""What `catch_up: skip` still calls punctual."""


@dataclass(frozen=True, slots=True)
class Window:
    """One time in which a strategy should run."""

    start: datetime
    stop: datetime | None = None
    """When what runs is stopped; none when it ends by itself."""
    until: datetime | None = None
    """When it is over; none: never."""
    start_until: datetime | None = None
    """Until when its start may still happen; none: as long as it likes."""
    session: Session | None = None
    """The session that it belongs to."""

    def holds(self, now: datetime) -> bool:
        return self.start <= now and (self.until is None or now < self.until)

    def may_start(self, now: datetime) -> bool:
        return self.start_until is None or now < self.start_until


class Windows(Protocol):
    """The windows of one schedule. Their ends are ordered like their starts."""

    def started(self, now: datetime) -> Iterator[Window]:
        """Those that have started by now, the latest first."""
        ...

    def upcoming(self, now: datetime) -> Iterator[Window]:
        """Those that start later than now, the earliest first."""
        ...

    def skipped(self, first: date, last: date) -> Iterator[tuple[date, str]]:
        """The days without a window on which one would be expected, and why there is none."""
        ...


def windows_of(schedule: AnySchedule, since: datetime, known: Known | None) -> Windows:
    """`since` is when the schedule was set; `known` are the sessions of its exchange, if any."""
    match schedule:
        case Manual():
            return Listed(())
        case Always():
            return Listed((Window(since),))
        case Once():
            at, stop = schedule.starts_at, schedule.stops_at
            window = _window(at, stop, stop or at + MADE_UP_FOR, schedule.catch_up)
            return Listed((window,) if stop or at >= since else ())
        case Market():
            return MarketWindows(schedule, Days(schedule, known))
        case Cron():
            return CronWindows(schedule, since, Days(schedule, known))
        case Interval() if schedule.exchange is not None:
            return SessionIntervals(schedule, since, Days(schedule, known))
        case Interval():
            return Intervals(schedule, since, Days(schedule, None))


def needs_calendar(schedule: AnySchedule) -> bool:
    return exchange_of(schedule) is not None


def _window(
    start: datetime,
    stop: datetime | None,
    until: datetime,
    catch_up: CatchUp,
    session: Session | None = None,
) -> Window:
    punctual = min(until, start + PUNCTUAL)
    start_until = punctual if catch_up is CatchUp.SKIP else until
    return Window(start, stop, until, start_until, session)


@dataclass(frozen=True, slots=True)
class Listed:
    """The few windows of a schedule without days."""

    windows: tuple[Window, ...]

    def started(self, now: datetime) -> Iterator[Window]:
        return (window for window in reversed(self.windows) if window.start <= now)

    def upcoming(self, now: datetime) -> Iterator[Window]:
        return (window for window in self.windows if window.start > now)

    def skipped(self, first: date, last: date) -> Iterator[tuple[date, str]]:  # noqa: ARG002
        return iter(())


class MarketWindows:
    def __init__(self, schedule: Market, days: Days) -> None:
        self._schedule = schedule
        self._days = days

    def started(self, now: datetime) -> Iterator[Window]:
        """A window may start most of a day before its session opens."""
        windows = self._of(self._days.sessions_until(now + DAY))
        return (window for window in windows if window.start <= now)

    def upcoming(self, now: datetime) -> Iterator[Window]:
        """A window may start after its session has closed."""
        windows = self._of(self._days.sessions_from(now - self._latest()))
        return (window for window in windows if window.start > now)

    def skipped(self, first: date, last: date) -> Iterator[tuple[date, str]]:
        for day in _dates(first, last):
            why = self._days.why_not(day)
            sessions = self._days.sessions_of(day)
            if why is None and not any(self._window(session) for session in sessions):
                why = _no_window(sessions)
            if why is not None:
                yield day, why

    def _latest(self) -> timedelta:
        """How long after the open of its session a window starts at most; sessions last a day."""
        match self._schedule.start:
            case Anchored("open", offset):
                return max(offset, timedelta())
            case Anchored(_, offset):
                return DAY + max(offset, timedelta())
            case _:
                return DAY + CLOCK_CHANGE

    def _of(self, sessions: Iterable[Session]) -> Iterator[Window]:
        return (window for session in sessions if (window := self._window(session)))

    def _window(self, session: Session) -> Window | None:
        """The schedule's window around this session; None where there is none.

        On a usual day the user's times stand as written, before the open and after the close too.
        Any other session has hours of its own, and gates the window: nothing starts at 09:15 for a
        session at 18:00.
        """
        written, stop = self._start(session), None
        if self._schedule.stop is not None:
            stop = self._stop(session, written, self._schedule.stop)
        start = self._clipped(written, self._schedule.start, session)
        if stop is not None and self._schedule.stop is not None:
            stop = self._clipped(stop, self._schedule.stop, session)
        unusual = session.kind is not SessionKind.USUAL
        end = stop or (session.closes_at if unusual else None)
        if end is not None and start >= end:
            return None
        closes = session.closes_at if start < session.closes_at else start + MADE_UP_FOR
        return _window(start, stop, stop or closes, self._schedule.catch_up, session)

    def _start(self, session: Session) -> datetime:
        if isinstance(self._schedule.start, Anchored):
            return _anchored(self._schedule.start, session)
        zone = self._days.zone
        day = session.opens_at.astimezone(zone).date()
        start = instant(day, self._schedule.start, zone)
        later = instant(day + DAY, self._schedule.start, zone)
        inside_tomorrow = start < session.opens_at and later < session.closes_at
        return later if inside_tomorrow else start

    def _stop(self, session: Session, start: datetime, stop: MarketTime) -> datetime:
        if isinstance(stop, Anchored):
            return _anchored(stop, session)
        return _next_time(start, stop, self._days)

    def _clipped(self, at: datetime, written: MarketTime, session: Session) -> datetime:
        if isinstance(written, Anchored) or session.kind is SessionKind.USUAL:
            return at
        return min(max(at, session.opens_at), session.closes_at)


def _anchored(at: Anchored, session: Session) -> datetime:
    edge = session.opens_at if at.edge == "open" else session.closes_at
    return edge + at.offset


def _next_time(after: datetime, at: time, days: Days) -> datetime:
    """The first such local time after this instant."""
    day = after.astimezone(days.zone).date()
    found = instant(day, at, days.zone)
    return found if found > after else instant(day + DAY, at, days.zone)


def _no_window(sessions: Iterable[Session]) -> str:
    for session in sessions:
        if session.kind is not SessionKind.USUAL:
            return f"its times lie outside this session's hours: {session.reason}"
    return "its stop is not after its start"


class CronWindows:
    def __init__(self, schedule: Cron, since: datetime, days: Days) -> None:
        self._schedule = schedule
        self._since = since
        self._days = days
        self._fires = fires_of(schedule.cron, days.zone)
        self._momentary = schedule.stop is None and schedule.duration is None

    def started(self, now: datetime) -> Iterator[Window]:
        """What only begins, and began before the schedule was set, was not meant by it."""
        for fire in self._fires.until(now):
            if self._momentary and fire < self._since:
                return
            if self._days.why_not(self._days.day_of(fire)) is None:
                yield self._window(fire)

    def upcoming(self, now: datetime) -> Iterator[Window]:
        known = self._days.known
        for fire in self._fires.after(now):
            day = self._days.day_of(fire)
            if known is not None and day > known.told_until:
                return
            if self._days.why_not(day) is None:
                yield self._window(fire)

    def skipped(self, first: date, last: date) -> Iterator[tuple[date, str]]:
        midnight = instant(first, time(), self._days.zone) - timedelta(microseconds=1)
        told = first - DAY
        for fire in self._fires.after(midnight):
            day = self._days.day_of(fire)
            if day > last:
                return
            why = self._days.why_not(day) if day > told else None
            told = max(day, told)
            if why is not None:
                yield day, why

    def _window(self, fire: datetime) -> Window:
        stop = None
        if self._schedule.duration is not None:
            stop = fire + self._schedule.duration
        elif self._schedule.stop is not None:
            stop = _next_time(fire, self._schedule.stop, self._days)
        following = next(self._fires.after(fire), None) if stop is None else None
        until = stop or min(fire + MADE_UP_FOR, following or fire + MADE_UP_FOR)
        return _window(fire, stop, until, self._schedule.catch_up)


class Intervals:
    """Counted from when the schedule was set, so that no clock change moves them."""

    def __init__(self, schedule: Interval, since: datetime, days: Days) -> None:
        self._schedule = schedule
        self._since = since.replace(microsecond=0)
        self._days = days

    def started(self, now: datetime) -> Iterator[Window]:
        number = (now - self._since) // self._schedule.every
        return self._of(range(number, 0, -1))

    def upcoming(self, now: datetime) -> Iterator[Window]:
        first = max(1, (now - self._since) // self._schedule.every + 1)
        horizon = now + 9 * DAY  # all weekdays, and the longest interval
        last = max(first, (horizon - self._since) // self._schedule.every)
        return self._of(range(first, last + 1))

    def skipped(self, first: date, last: date) -> Iterator[tuple[date, str]]:
        for day in _dates(first, last):
            why = self._days.why_not(day)
            if why is not None:
                yield day, why

    def _of(self, numbers: Iterable[int]) -> Iterator[Window]:
        for number in numbers:
            start = self._since + number * self._schedule.every
            if self._days.why_not(self._days.day_of(start)) is None:
                until = start + self._schedule.every
                yield _window(start, None, until, self._schedule.catch_up)


class SessionIntervals:
    """Counted anew from each session's open."""

    def __init__(self, schedule: Interval, since: datetime, days: Days) -> None:
        self._schedule = schedule
        self._since = since
        self._days = days

    def started(self, now: datetime) -> Iterator[Window]:
        for session in self._days.sessions_until(now):
            last = (min(now, session.closes_at) - session.opens_at) // self._schedule.every
            for number in range(last, -1, -1):
                window = self._window(session, number)
                if window.start < self._since:
                    return
                if window.start < session.closes_at:
                    yield window

    def upcoming(self, now: datetime) -> Iterator[Window]:
        for session in self._days.sessions_from(now - 3 * DAY):
            number = max(0, (now - session.opens_at) // self._schedule.every + 1)
            while (window := self._window(session, number)).start < session.closes_at:
                yield window
                number += 1

    def skipped(self, first: date, last: date) -> Iterator[tuple[date, str]]:
        for day in _dates(first, last):
            why = self._days.why_not(day)
            if why is not None:
                yield day, why

    def _window(self, session: Session, number: int) -> Window:
        start = session.opens_at + number * self._schedule.every
        until = max(min(start + self._schedule.every, session.closes_at), start)
        return _window(start, None, until, self._schedule.catch_up, session)


def _dates(first: date, last: date) -> Iterator[date]:
    return (first + n * DAY for n in range((last - first).days + 1))
