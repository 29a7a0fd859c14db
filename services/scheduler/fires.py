"""The instants of a cron expression. Pure: what is remembered only saves computing it again."""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import lru_cache

from cronsim import CronSim

from services.scheduler.days import DAY, LOOK_BACK, instant

MINUTE = timedelta(minutes=1)
REACH = timedelta(hours=3)
"""Longer than any clock change."""
LONGEST_PAUSE_YEARS = 50
"""Longer than from one 29th of February that is a Sunday to the next."""


class Fires:
    """Of one expression in one zone.

    A time that a clock change skips comes right after it; one that comes twice counts once, unless
    the expression means every hour, or every so many minutes.
    """

    def __init__(self, expression: str, zone: tzinfo) -> None:
        self._expression = expression
        self._zone = zone
        self._times = _times_of(expression)

    def after(self, at: datetime) -> Iterator[datetime]:
        """Those after this instant, the earliest first."""
        day = at.astimezone(self._zone).date() - DAY
        last = day.year + LONGEST_PAUSE_YEARS
        named_before = self._times.on(day - DAY)
        while day.year <= last:
            named = self._times.on(day)
            if not named and not named_before and day.month not in self._times.months:
                day = (day.replace(day=1) + 32 * DAY).replace(day=1)
                continue
            if named or named_before:
                for fire in self._of(day, named).after(at):
                    yield fire
                    last = day.year + LONGEST_PAUSE_YEARS
            day, named_before = day + DAY, named

    def until(self, at: datetime) -> Iterator[datetime]:
        """Those at or before this instant, the latest first; of the last two weeks."""
        day = at.astimezone(self._zone).date() + DAY
        first = (at - LOOK_BACK).astimezone(self._zone).date()
        named = self._times.on(day)
        while day >= first:
            named_before = self._times.on(day - DAY)
            if named or named_before:
                yield from self._of(day, named).until(at)
            day, named = day - DAY, named_before

    def _of(self, day: date, named: bool) -> "_Day":
        """Those from its midnight to the next; a clock change may move one over a midnight."""
        offset = _offset(self._zone, day)
        if offset is None:
            return _changing_day(self._expression, self._zone, day)
        return _Day(
            datetime.combine(day, time(), UTC) - offset, self._times.minutes if named else ()
        )


@dataclass(frozen=True, slots=True)
class _Day:
    midnight: datetime
    minutes: tuple[int, ...]
    """Since then, as time passes."""

    def after(self, at: datetime) -> Iterator[datetime]:
        for number in range(self._until(at), len(self.minutes)):
            yield self.midnight + self.minutes[number] * MINUTE

    def until(self, at: datetime) -> Iterator[datetime]:
        for number in range(self._until(at) - 1, -1, -1):
            yield self.midnight + self.minutes[number] * MINUTE

    def _until(self, at: datetime) -> int:
        return bisect_right(self.minutes, (at - self.midnight) // MINUTE)


class _Times:
    """The local days and minutes that an expression names."""

    def __init__(self, expression: str) -> None:
        self._parsed = CronSim(expression, datetime(2026, 1, 1, tzinfo=UTC))
        self.months = self._parsed.months
        hours, minutes = self._parsed.hours, self._parsed.minutes
        self.minutes = tuple(
            60 * hour + minute for hour in sorted(hours) for minute in sorted(minutes)
        )
        minute, hour, *_ = expression.split()
        self.repeats = minute.startswith("*") or hour.startswith("*")
        """Whether it means every hour or every so many minutes, as time passes."""

    def on(self, day: date) -> bool:
        return day.month in self.months and self._parsed.match_day(day)


@lru_cache(maxsize=2_000)
def _times_of(expression: str) -> _Times:
    return _Times(expression)


@lru_cache(maxsize=10_000)
def _offset(zone: tzinfo, day: date) -> timedelta | None:
    """From UTC on this day; None when clocks change on it or about its midnights."""
    midnights = (datetime.combine(day + n * DAY, time(), zone) for n in (-1, 0, 1))
    offsets = {at.replace(fold=fold).utcoffset() for at in midnights for fold in (0, 1)}
    return offsets.pop() if len(offsets) == 1 else None


@lru_cache(maxsize=100)
def _changing_day(expression: str, zone: tzinfo, day: date) -> _Day:
    times = _times_of(expression)
    begin, end = instant(day, time(), zone), instant(day + DAY, time(), zone)
    found = _repeating(times, zone, begin, end) if times.repeats else _fixed(times, zone, day)
    minutes = {(fire - begin) // MINUTE for fire in found if begin <= fire < end}
    return _Day(begin, tuple(sorted(minutes)))


def _repeating(times: _Times, zone: tzinfo, begin: datetime, end: datetime) -> Iterator[datetime]:
    minutes = frozenset(times.minutes)
    for number in range((end - begin) // MINUTE):
        local = (begin + number * MINUTE).astimezone(zone)
        if 60 * local.hour + local.minute in minutes and times.on(local.date()):
            yield begin + number * MINUTE


def _fixed(times: _Times, zone: tzinfo, day: date) -> Iterator[datetime]:
    """A change about midnight may move a time into the day before or after its own."""
    begin, end = datetime.combine(day, time()) - REACH, datetime.combine(day, time()) + DAY + REACH
    for near in (day - DAY, day, day + DAY):
        for minute in times.minutes if times.on(near) else ():
            local = datetime.combine(near, time()) + minute * MINUTE
            if begin <= local <= end:
                yield _not_skipped(local.replace(tzinfo=zone))


def _not_skipped(local: datetime) -> datetime:
    while (at := local.astimezone(UTC)).astimezone(local.tzinfo) != local:
        local += MINUTE
    return at
