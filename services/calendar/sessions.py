"""When a segment is open. Pure: facts and dates in, sessions out."""

import tomllib
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from openbell.contracts.commands import Sessions
from openbell.contracts.errors import UnknownExchange
from openbell.contracts.model import Session

FACTS = Path(__file__).with_name("data") / "segments.toml"
LONGEST = timedelta(days=800)
SATURDAY = 5


@dataclass(frozen=True, slots=True)
class Hours:
    """A segment's usual hours, from a day on."""

    since: date
    opens: time
    closes: time


@dataclass(frozen=True, slots=True)
class Segment:
    """One part of an exchange that opens and closes as one."""

    code: str
    timezone: str
    hours: tuple[Hours, ...]
    every_day: bool
    covered_from: date
    covered_until: date

    def session(self, day: date) -> Session | None:
        """The session that opens on this local day; None on a weekend or an uncovered day."""
        if not self.covered_from <= day <= self.covered_until:
            return None
        if day.weekday() >= SATURDAY and not self.every_day:
            return None
        hours = max((h for h in self.hours if h.since <= day), key=lambda h: h.since)
        overnight = timedelta(days=hours.closes <= hours.opens)
        return Session(
            segment=self.code,
            opens_at=self._instant(day, hours.opens),
            closes_at=self._instant(day + overnight, hours.closes),
        )

    def _instant(self, day: date, at: time) -> datetime:
        return datetime.combine(day, at, ZoneInfo(self.timezone)).astimezone(UTC)


def list_sessions(code: str, first: date, last: date) -> Sessions:
    """The sessions that open on the local days from `first` to `last`.

    Raises UnknownExchange.
    """
    segment = segments().get(code.upper())
    if segment is None:
        known = ", ".join(sorted(segments()))
        raise UnknownExchange(f"there is no exchange {code[:32]!r}; known are {known}")
    days = min(last - first, LONGEST).days + 1
    found = (segment.session(first + timedelta(days=n)) for n in range(days))
    return Sessions(
        timezone=segment.timezone,
        covered_from=segment.covered_from,
        covered_until=segment.covered_until,
        sessions=tuple(session for session in found if session is not None),
    )


@cache
def segments() -> dict[str, Segment]:
    facts = tomllib.loads(FACTS.read_text("utf-8"))
    covered = facts.pop("covered")
    return {code: _segment(code, fact, covered) for code, fact in facts.items()}


def _segment(code: str, fact: dict[str, Any], covered: dict[str, date]) -> Segment:
    every_day = bool(fact.get("every_day"))
    return Segment(
        code=code,
        timezone=fact["timezone"],
        hours=tuple(Hours(h["from"], h["opens"], h["closes"]) for h in fact["hours"]),
        every_day=every_day,
        covered_from=covered["from"],
        covered_until=date.max - timedelta(days=1) if every_day else covered["until"],
    )
