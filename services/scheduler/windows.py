"""From when to when a schedule wants its strategy to run. Pure: schedule and sessions in.

Each kind of schedule tells its windows from an instant on, backwards and forwards, and computes no
more of them than are asked for.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from itertools import chain, count, pairwise, takewhile
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
)
from services.scheduler.days import DAY, LOOK_BACK, Days, Known, instant
from services.scheduler.fires import Fires

MADE_UP_FOR = timedelta(hours=1)
"""How long a start without a stop, and outside of sessions, may be late."""
CLOCK_CHANGE = timedelta(hours=3)
"""Longer than any."""
PUNCTUAL = timedelta(minutes=1)
"""What `catch_up: skip` still calls punctual."""
MOST_TRIES = 500
"""How many days in a row are looked at whose times may be those of a schedule, but are not: more
than it may have dates to skip."""
INSTANT = timedelta(microseconds=1)


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
        """Those that have started by now, the latest first: all that hold, and of those that do
        not, as many as are remembered.
        """
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


def why_never(schedule: AnySchedule, known: Known | None, now: datetime) -> str | None:
    """Why none of the sessions to come has a window; None when there is none that counts, or one
    that has.
    """
    if not isinstance(schedule, Market):
        return None
    days = Days(schedule, known)
    coming = list(days.sessions_from(now))
    if not coming or next(MarketWindows(schedule, days).upcoming(now), None):
        return None
    return _no_window([s for s in coming if s.kind is SessionKind.USUAL] or coming)


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
        return (
            window
            for window in reversed(self.windows)
            if window.holds(now) or now - LOOK_BACK < window.start <= now
        )

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
        sessions = self._days.sessions_until(now + DAY)
        recent = takewhile(lambda session: session.opens_at > now - LOOK_BACK - DAY, sessions)
        following: Window | None = None
        for window in self._of(recent):
            if now - LOOK_BACK < window.start <= now and _apart(window, following):
                yield window
            following = window

    def upcoming(self, now: datetime) -> Iterator[Window]:
        """A window may start after its session has closed."""
        windows = self._of(self._days.sessions_from(now - self._latest()))
        for window, following in pairwise(chain(windows, (None,))):
            assert window is not None
            if window.start > now and _apart(window, following):
                yield window

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


def _apart(window: Window, following: Window | None) -> bool:
    """Sessions that overlap, as an override may say, may have the same start, which counts once."""
    return following is None or window.start < following.start


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
        self._fires = Fires(schedule.cron, days.zone)
        self._momentary = schedule.stop is None and schedule.duration is None

    def started(self, now: datetime) -> Iterator[Window]:
        """What only begins, and began before the schedule was set, was not meant by it."""
        for fire in _backwards(self._fires.until, self._days, now):
            if self._momentary and fire < self._since:
                return
            if not self._days.is_shut(fire):
                yield self._window(fire)

    def upcoming(self, now: datetime) -> Iterator[Window]:
        fires = _forwards(self._fires.after, self._days, now)
        return (self._window(fire) for fire in fires if not self._days.is_shut(fire))

    def skipped(self, first: date, last: date) -> Iterator[tuple[date, str]]:
        before = self._days.begin(first) - INSTANT
        while (fire := next(self._fires.after(before), None)) is not None:
            day = self._days.day_of(fire)
            if day > last:
                return
            why = self._days.why_not(day)
            if why is None and self._days.is_shut(fire):
                why = _no_window(self._days.sessions_of(day))
            if why is not None:
                yield day, why
            before = max(fire, self._days.begin(day + DAY) - INSTANT)

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
        return (self._window(start) for start in _backwards(self._until, self._days, now))

    def upcoming(self, now: datetime) -> Iterator[Window]:
        return (self._window(start) for start in _forwards(self._after, self._days, now))

    def skipped(self, first: date, last: date) -> Iterator[tuple[date, str]]:
        for day in _dates(first, last):
            why = self._days.why_not(day)
            if why is not None:
                yield day, why

    def _until(self, at: datetime) -> Iterator[datetime]:
        last = (at - self._since) // self._schedule.every
        return (self._since + number * self._schedule.every for number in range(last, 0, -1))

    def _after(self, at: datetime) -> Iterator[datetime]:
        first = max(1, (at - self._since) // self._schedule.every + 1)
        return (self._since + number * self._schedule.every for number in count(first))

    def _window(self, start: datetime) -> Window:
        return _window(start, None, start + self._schedule.every, self._schedule.catch_up)


class SessionIntervals:
    """Counted anew from each session's open; one that overlaps the next, as an override may say,
    is over when that opens.
    """

    def __init__(self, schedule: Interval, since: datetime, days: Days) -> None:
        self._schedule = schedule
        self._since = since
        self._days = days

    def started(self, now: datetime) -> Iterator[Window]:
        following = next(self._days.sessions_from(now + INSTANT), None)
        for session in self._days.sessions_until(now):
            end = _end(session, following)
            last = (min(now, end - INSTANT) - session.opens_at) // self._schedule.every
            for number in range(last, -1, -1):
                window = self._window(session, number, end)
                if window.start < self._since or window.start <= now - LOOK_BACK:
                    return
                yield window
            following = session

    def upcoming(self, now: datetime) -> Iterator[Window]:
        for session, following in pairwise(chain(self._days.sessions_from(now - 3 * DAY), (None,))):
            assert session is not None
            end = _end(session, following)
            number = max(0, (now - session.opens_at) // self._schedule.every + 1)
            while (window := self._window(session, number, end)).start < end:
                yield window
                number += 1

    def skipped(self, first: date, last: date) -> Iterator[tuple[date, str]]:
        for day in _dates(first, last):
            why = self._days.why_not(day)
            if why is not None:
                yield day, why

    def _window(self, session: Session, number: int, end: datetime) -> Window:
        start = session.opens_at + number * self._schedule.every
        until = min(start + self._schedule.every, end)
        return _window(start, None, max(start, until), self._schedule.catch_up, session)


def _end(session: Session, following: Session | None) -> datetime:
    return min(session.closes_at, following.opens_at) if following else session.closes_at


Steps = Callable[[datetime], Iterator[datetime]]
"""The instants next to one: those after it, or those until it, the nearest first."""


def _forwards(after: Steps, days: Days, now: datetime) -> Iterator[datetime]:
    """The steps on days that count. Days that do not are never walked through."""
    tries = 0
    steps = after(now)
    while tries < MOST_TRIES and (step := next(steps, None)) is not None:
        day = days.day_of(step)
        if days.counts(day):
            tries = 0
            yield step
            continue
        tries += 1
        begin = days.next_begin(day)
        if begin is None:
            return
        steps = after(max(begin - INSTANT, step))


def _backwards(until: Steps, days: Days, now: datetime) -> Iterator[datetime]:
    """The steps on days that count, as far back as is remembered."""
    earliest = now - LOOK_BACK
    steps = until(now)
    while (step := next(steps, None)) is not None and step > earliest:
        day = days.day_of(step)
        if days.counts(day):
            yield step
        else:
            steps = until(min(days.end_before(day, earliest), step) - INSTANT)


def _dates(first: date, last: date) -> Iterator[date]:
    return (first + n * DAY for n in range((last - first).days + 1))
