"""The instants of a cron expression. Pure: what is remembered only saves computing it again."""

from collections.abc import Iterator
from datetime import datetime, timedelta, tzinfo
from functools import lru_cache
from itertools import takewhile

from cronsim import CronSim

from openbell.contracts.base import to_utc

REWIND = timedelta(hours=3)
"""Longer than any clock change: a walk that begins inside an hour that comes twice would tell of
times before its beginning, and leave some out."""
LOOK_BACKS = (timedelta(minutes=10), timedelta(days=1), timedelta(days=15))


class Fires:
    """Of one expression in one zone.

    A time that a clock change skips comes right after it; one that comes twice counts once, unless
    the expression means every hour, or every so many minutes.
    """

    def __init__(self, expression: str, zone: tzinfo) -> None:
        self._expression = expression
        self._zone = zone
        self._gap: tuple[datetime, datetime] | None = None
        """Two instants that follow each other; most questions are about the time between."""

    def after(self, at: datetime) -> Iterator[datetime]:
        """Those after this instant, the earliest first."""
        if self._gap is None or not self._gap[0] <= at < self._gap[1]:
            yield from self._walk(at)
            return
        yield self._gap[1]
        yield from self._walk(self._gap[1])

    def until(self, at: datetime) -> Iterator[datetime]:
        """Those at or before this instant, the latest first; of the last two weeks."""
        before = at + timedelta(microseconds=1)
        if self._gap is not None and self._gap[0] <= at < self._gap[1]:
            before = self._gap[0]
            yield before
        else:
            self._gap = None
        for look_back in LOOK_BACKS:
            start = at - look_back
            found = list(takewhile(lambda fire, end=before: fire < end, self._walk(start)))
            if found and self._gap is None:
                self._remember(found[-1])
            yield from reversed(found)
            before = min(before, start + timedelta(microseconds=1))

    def _remember(self, fire: datetime) -> None:
        following = next(self._walk(fire), None)
        if following is not None:
            self._gap = fire, following

    def _walk(self, after: datetime) -> Iterator[datetime]:
        for fire in CronSim(self._expression, (after - REWIND).astimezone(self._zone)):
            moment = to_utc(fire)
            if moment > after:
                yield moment


@lru_cache(maxsize=20_000)
def fires_of(expression: str, zone: tzinfo) -> Fires:
    return Fires(expression, zone)
