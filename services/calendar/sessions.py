"""When a segment of our own facts is open. Pure: facts and dates in, days out."""

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from functools import cache
from zoneinfo import ZoneInfo

from openbell.contracts.model import Closure, Session
from services.calendar.days import Hours, Plan
from services.calendar.facts import SATURDAY, Exceptional, Facts, load

NEW_YORK = ZoneInfo("America/New_York")
NOON = time(12)
WEEKEND = "weekend"


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """One part of an exchange that opens and closes as one. A Calendar."""

    facts: Facts

    @property
    def code(self) -> str:
        return self.facts.code

    @property
    def timezone(self) -> str:
        return self.facts.timezone

    @property
    def covered_from(self) -> date:
        if self.facts.every_day:
            return self.facts.usual[0].since
        return date(self.facts.years[0], 1, 1)

    @property
    def covered_until(self) -> date:
        if self.facts.every_day:
            return date.max - timedelta(days=1)
        return date(self.facts.years[-1], 12, 31)

    def plan(self, day: date) -> Plan:
        exceptional = self.facts.exceptional.get(day)
        if exceptional is not None:
            return self._exceptional(day, exceptional)
        if self.is_weekend(day):
            return self._closure(day, WEEKEND, weekend=True)
        opens_at, closes_at = self.usual(day)
        return (Session(segment=self.code, day=day, opens_at=opens_at, closes_at=closes_at),)

    def usual(self, day: date) -> tuple[datetime, datetime]:
        return self._usual(day).on(day, self._zone)

    def is_weekend(self, day: date) -> bool:
        return day.weekday() >= SATURDAY and not self.facts.every_day

    def _usual(self, day: date) -> Hours:
        """Before the first day that is known of, what held on it."""
        begun = [usual for usual in self.facts.usual if usual.since <= day]
        usual = begun[-1] if begun else self.facts.usual[0]
        if usual.us_summer and datetime.combine(day, NOON, NEW_YORK).dst():
            return usual.us_summer
        return usual.hours

    def _exceptional(self, day: date, exceptional: Exceptional) -> Plan:
        hours = exceptional.hours
        if exceptional.opens:
            hours = (Hours(exceptional.opens, self._usual(day).closes),)
        if not hours:
            return self._closure(day, exceptional.name, source=exceptional.source)
        return tuple(self._session(day, each, exceptional) for each in hours)

    def _session(self, day: date, hours: Hours, exceptional: Exceptional) -> Session:
        opens_at, closes_at = hours.on(day, self._zone)
        return Session(
            segment=self.code,
            day=day,
            opens_at=opens_at,
            closes_at=closes_at,
            kind=exceptional.kind,
            reason=exceptional.name,
            source=exceptional.source,
        )

    def _closure(
        self, day: date, reason: str, *, weekend: bool = False, source: str | None = None
    ) -> Closure:
        opens_at, closes_at = self.usual(day)
        return Closure(
            day=day,
            reason=reason,
            weekend=weekend,
            opens_at=opens_at,
            closes_at=closes_at,
            source=source,
        )

    @property
    def _zone(self) -> ZoneInfo:
        return ZoneInfo(self.facts.timezone)


@cache
def segments() -> dict[str, Segment]:
    """By code, in the order of the file."""
    return {code: Segment(facts) for code, facts in load().items()}
