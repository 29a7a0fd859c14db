"""What every calendar has in common, and what is computed from it. Pure."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Protocol
from zoneinfo import ZoneInfo

from openbell.contracts.commands import Sessions
from openbell.contracts.model import Closure, Session

LONGEST = timedelta(days=800)
"""Of a range that is answered: it fits into one message."""
DAY = timedelta(days=1)
EARLIEST, LATEST = date(2000, 1, 1), date(2199, 12, 31)
"""What anybody can mean; far from the ends of what a date can be."""

Plan = tuple[Session, ...] | Closure
"""What a covered day holds: at least one session, in order, or none and why."""


@dataclass(frozen=True, slots=True)
class Hours:
    """From when until when, in local time; a close that is not after the open is tomorrow's."""

    opens: time
    closes: time

    def on(self, day: date, zone: ZoneInfo) -> tuple[datetime, datetime]:
        """As instants."""
        closing_day = day if self.closes > self.opens else day + DAY
        return instant(day, self.opens, zone), instant(closing_day, self.closes, zone)


class Calendar(Protocol):
    """One segment's days. It is hashed by identity: what it says of a day never changes."""

    @property
    def code(self) -> str: ...
    @property
    def timezone(self) -> str: ...
    @property
    def covered_from(self) -> date: ...
    @property
    def covered_until(self) -> date: ...

    def plan(self, day: date) -> Plan:
        """What this covered day holds; not to be asked of any other."""
        ...

    def usual(self, day: date) -> tuple[datetime, datetime]:
        """The hours of this day, covered or not, if it is a usual one."""
        ...

    def is_weekend(self, day: date) -> bool:
        """Whether the weekday, covered or not, is one without trading."""
        ...


def covers(calendar: Calendar, day: date) -> bool:
    return calendar.covered_from <= day <= calendar.covered_until


def list_sessions(calendar: Calendar, first: date, last: date) -> Sessions:
    """What the calendar holds on the local days from `first` to `last`, as far as it is covered.

    At most LONGEST is answered, from `first` on.
    """
    sessions: list[Session] = []
    closures: list[Closure] = []
    for day in days(first, last):
        plan = kept_plan(calendar, day) if covers(calendar, day) else ()
        if isinstance(plan, Closure):
            closures.append(plan)
        else:
            sessions += plan
    return Sessions(
        segment=calendar.code,
        timezone=calendar.timezone,
        covered_from=calendar.covered_from,
        covered_until=calendar.covered_until,
        sessions=tuple(sessions),
        closures=tuple(closures),
    )


def days(first: date, last: date) -> list[date]:
    """All from `first` to `last`; of more than LONGEST the first ones."""
    count = min(last - first, LONGEST).days + 1
    return [first + n * DAY for n in range(count)]


def instant(day: date, at: time, zone: ZoneInfo) -> datetime:
    return datetime.combine(day, at, zone).astimezone(UTC)


@lru_cache(maxsize=4096)
def kept_plan(calendar: Calendar, day: date) -> Plan:
    """Asked for again and again: schedulers look at the weeks around now."""
    return calendar.plan(day)
