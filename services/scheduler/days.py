"""Which days of an exchange count for a schedule, and why others do not. Pure."""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import cached_property
from zoneinfo import ZoneInfo

from openbell.contracts.commands import Sessions
from openbell.contracts.model import Closure, Session, SessionKind
from openbell.contracts.schedules import MOST_DATES, WEEKDAYS, Cron, Interval, Market

DAY = timedelta(days=1)
LOOK_BACK = timedelta(days=14)
"""As far as a missed start or stop is remembered."""
MOST_AHEAD = 7 * (MOST_DATES + 1) * DAY
"""Within these, a weekday comes that no date to skip names."""


class Known:
    """What the calendar told of a segment, sorted and indexed once for all who ask."""

    def __init__(self, told: Sessions) -> None:
        self.segment = told.segment
        self.zone = ZoneInfo(told.timezone)
        self.covered_from = told.covered_from
        self.covered_until = told.covered_until
        self.sessions = _outermost(told.sessions)
        """In their order. One that lies within another, as an override may say, opens nothing."""
        self._told = told.sessions
        self.closures = {closure.day: closure for closure in told.closures}

    @cached_property
    def opens(self) -> list[datetime]:
        return [session.opens_at for session in self.sessions]

    @cached_property
    def by_day(self) -> dict[date, list[Session]]:
        days: defaultdict[date, list[Session]] = defaultdict(list)
        for session in self._told:
            days[session.day].append(session)
        return dict(days)

    def why_closed(self, day: date) -> str | None:
        """Why there is no session on this day; None when there is one."""
        if day in self.by_day:
            return None
        closure = self.closures.get(day)
        if closure is None:
            return f"unknown: the calendar of {self.segment} does not cover {day}"
        return closure.reason if closure.weekend else f"{self.segment} is closed: {closure.reason}"

    @cached_property
    def specials(self) -> dict[date, str | None]:
        """The days that have special sessions alone, and what these are."""
        return {
            day: sessions[0].reason
            for day, sessions in self.by_day.items()
            if all(session.kind is SessionKind.SPECIAL for session in sessions)
        }

    def covers(self, day: date) -> bool:
        """Whether it is known what happens on this day."""
        said = day in self.by_day or day in self.closures
        return said or self.covered_from <= day <= self.covered_until

    def trades_usually(self, at: datetime) -> bool:
        """Whether this lies in the hours of a usual day."""
        usual = next((s for s in self.sessions if s.kind is SessionKind.USUAL), None)
        if usual is None:
            return False
        opens, closes = (
            edge.astimezone(self.zone).time() for edge in (usual.opens_at, usual.closes_at)
        )
        local = at.astimezone(self.zone).time()
        if opens < closes:
            return opens <= local < closes
        return local >= opens or local < closes

    @cached_property
    def told_until(self) -> date:
        """The last day of which anything was told."""
        return max((*self.by_day, *self.closures), default=date.min)

    def with_open(self, days: frozenset[date]) -> "Known":
        """As if it was open on these days, in its usual hours."""
        opened = [
            _as_open(self.segment, self.closures[day]) for day in days if day in self.closures
        ]
        if not opened:
            return self
        left = [closure for day, closure in self.closures.items() if day not in days]
        return Known(
            Sessions(
                segment=self.segment,
                timezone=str(self.zone),
                covered_from=self.covered_from,
                covered_until=self.covered_until,
                sessions=(*self._told, *opened),
                closures=tuple(left),
            )
        )


def _outermost(sessions: Iterable[Session]) -> list[Session]:
    found: list[Session] = []
    longest_first = sorted(sessions, key=lambda session: session.closes_at, reverse=True)
    for session in sorted(longest_first, key=lambda session: session.opens_at):
        if not found or session.closes_at > found[-1].closes_at:
            found.append(session)
    return found


def _as_open(segment: str, closure: Closure) -> Session:
    return Session(
        segment=segment, day=closure.day, opens_at=closure.opens_at, closes_at=closure.closes_at
    )


class Days:
    """The days of one schedule. Dates are those of its exchange, if it has one."""

    def __init__(self, schedule: Market | Interval | Cron, known: Known | None) -> None:
        self._schedule = schedule
        self._weekdays = WEEKDAYS if isinstance(schedule, Cron) else schedule.weekdays
        self.known = known.with_open(schedule.open_dates) if known else None
        exchange = self.known.zone if self.known else None
        own = ZoneInfo(schedule.timezone) if schedule.timezone else None
        self.zone: tzinfo = own or exchange or UTC
        """In which the schedule's local times are meant."""
        self.day_zone: tzinfo = exchange or own or UTC

    def day_of(self, at: datetime) -> date:
        return at.astimezone(self.day_zone).date()

    def why_not(self, day: date) -> str | None:
        """Why the schedule leaves this day out; None when it does not."""
        if day in self._schedule.skip_dates:
            return "one of its dates to skip"
        if self.known is not None:
            why = self.known.why_closed(day)
            if why is not None:
                return why
            if not self._schedule.special_sessions and day in self.known.specials:
                return f"a special session, which it leaves out: {self.known.specials[day]}"
        if WEEKDAYS[day.weekday()] not in self._weekdays:
            return f"not scheduled on {day:%A}s"
        return None

    def counts(self, day: date) -> bool:
        """Whether it is left out by nothing."""
        if WEEKDAYS[day.weekday()] not in self._weekdays or day in self._schedule.skip_dates:
            return False
        if self.known is None:
            return True
        special = not self._schedule.special_sessions and day in self.known.specials
        return day in self.known.by_day and not special

    def is_shut(self, at: datetime) -> bool:
        """Whether its exchange does not trade then, for a shortened or special day, although it
        does at this time of a usual one.
        """
        sessions = self.known.by_day.get(self.day_of(at), ()) if self.known else ()
        if self.known is None or all(s.kind is SessionKind.USUAL for s in sessions):
            return False
        if any(session.opens_at <= at < session.closes_at for session in sessions):
            return False
        return self.known.trades_usually(at)

    def next_begin(self, day: date) -> datetime | None:
        """When the next day begins that counts, as far as anything is told of it."""
        last = self.known.told_until if self.known else day + MOST_AHEAD
        while day < last:
            day += DAY
            if self.counts(day):
                return self.begin(day)
        return None

    def end_before(self, day: date, earliest: datetime) -> datetime:
        """When the last day before this one has ended that counts, unless that is too early."""
        while (end := self.begin(day)) > earliest and not self.counts(day - DAY):
            day -= DAY
        return end

    def begin(self, day: date) -> datetime:
        return instant(day, time(), self.day_zone)

    def sessions_until(self, at: datetime) -> Iterator[Session]:
        """Those that count, and open at or before this instant, the latest first."""
        known = self._sessions()
        return self._counting(reversed(known.sessions[: bisect_right(known.opens, at)]))

    def sessions_from(self, at: datetime) -> Iterator[Session]:
        """Those that count, and open at or after this instant, the earliest first."""
        known = self._sessions()
        return self._counting(iter(known.sessions[bisect_left(known.opens, at) :]))

    def sessions_of(self, day: date) -> Sequence[Session]:
        return self._sessions().by_day.get(day, ())

    def _counting(self, sessions: Iterator[Session]) -> Iterator[Session]:
        return (session for session in sessions if self.why_not(session.day) is None)

    def _sessions(self) -> Known:
        assert self.known is not None
        return self.known


def instant(day: date, at: time, zone: tzinfo) -> datetime:
    """A local time as an instant. Of one that comes twice on a clock change, the first counts; one
    that the change skips comes as much later as the clock went forward.
    """
    return datetime.combine(day, at, zone).astimezone(UTC)
