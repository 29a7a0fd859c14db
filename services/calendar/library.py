"""The calendars of the library exchange_calendars, read once into plain facts.

The only module that knows the library. It brings pandas, so it is imported when the first of its
calendars is asked for and not before; afterwards no object of it is kept.
"""

import importlib
import sys
import warnings
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from openbell.contracts.model import Closure, Session, SessionKind
from services.calendar.days import Plan, days, instant
from services.calendar.exchanges import LIBRARY, LibraryExchange
from services.calendar.sessions import WEEKEND

SINCE = date(2020, 1, 1)
"""What was before, nobody schedules."""
UNNAMED = "closed"
ORTHODOX = 2
"""What dateutil, and pandas with it, calls the Easter of the Eastern churches."""
Span = tuple[datetime, datetime]


@dataclass(frozen=True, slots=True)
class Edge:
    """When its usual days open, or close: local times by the date from which they hold."""

    times: tuple[tuple[date, time], ...]
    days_off: int
    """-1: on the evening before; 1: at the end of the day."""

    def on(self, day: date, zone: ZoneInfo) -> datetime:
        begun = [at for since, at in self.times if since <= day]
        at = begun[-1] if begun else self.times[0][1]
        return instant(day + timedelta(days=self.days_off), at, zone)


@dataclass(frozen=True, slots=True, eq=False)
class LibraryCalendar:
    """A Calendar. A lunch break is not a closing: there is one session a day, from open to close.

    It covers what the library has rules or lists for, and at most until the end of next year:
    further ahead, no exchange has said anything.
    """

    code: str
    timezone: str
    covered_from: date
    covered_until: date
    wanted_until: date
    """Until when it was asked for."""
    source: str
    week: str
    """A digit a weekday, from Monday on: 1 when it trades."""
    opening: Edge
    closing: Edge
    spans: Mapping[date, Span]
    holidays: Mapping[date, str]
    other_hours: Mapping[date, str]
    """Names of the days with an early close or a late open, as far as they have one."""

    def plan(self, day: date) -> Plan:
        span = self.spans.get(day)
        return self._closure(day) if span is None else (self._session(day, span),)

    def usual(self, day: date) -> Span:
        zone = ZoneInfo(self.timezone)
        return self.opening.on(day, zone), self.closing.on(day, zone)

    def is_weekend(self, day: date) -> bool:
        return self.week[day.weekday()] == "0"

    def _session(self, day: date, span: Span) -> Session:
        kind, reason = self._kind(day, span)
        return Session(
            segment=self.code,
            day=day,
            opens_at=span[0],
            closes_at=span[1],
            kind=kind,
            reason=reason,
            source=self.source if reason else None,
        )

    def _kind(self, day: date, span: Span) -> tuple[SessionKind, str | None]:
        if self.is_weekend(day):
            return SessionKind.SPECIAL, "trading on a weekend"
        opens_at, closes_at = self.usual(day)
        if span == (opens_at, closes_at):
            return SessionKind.USUAL, None
        change = "early close" if span[1] < closes_at else "late open"
        return SessionKind.SHORTENED, self.other_hours.get(day, change)

    def _closure(self, day: date) -> Closure:
        weekend = self.is_weekend(day)
        opens_at, closes_at = self.usual(day)
        return Closure(
            day=day,
            reason=WEEKEND if weekend else self.holidays.get(day, UNNAMED),
            weekend=weekend,
            opens_at=opens_at,
            closes_at=closes_at,
            source=None if weekend else self.source,
        )


def known_until(today: date) -> date:
    """No exchange tells more than the next year."""
    return date(today.year + 1, 12, 31)


def load(code: str, exchange: LibraryExchange, until: date) -> LibraryCalendar:
    """The calendar of this code until then, or as far as it is known. Takes seconds: not for the
    event loop.
    """
    with warnings.catch_warnings():
        # it uses what pandas is about to change; nobody who reads our log can do anything about it
        warnings.simplefilter("ignore")
        return _load(code, exchange, until)


def _load(code: str, exchange: LibraryExchange, until: date) -> LibraryCalendar:
    library: Any = importlib.import_module(LIBRARY)
    factory: Any = library.calendar_utils._default_calendar_factories[code]
    _mend_orthodox_easter(factory)
    first = max(_date(factory.bound_min()) or date.min, exchange.covered_from or SINCE)
    last = min(_date(factory.bound_max()) or until, until)
    if exchange.covered_until:
        last = min(last, date(exchange.covered_until, 12, 31))
    calendar = factory(start=first.isoformat(), end=last.isoformat())
    opening = Edge(_times(calendar.open_times), calendar.open_offset)
    closing = Edge(_times(calendar.close_times), calendar.close_offset)
    holidays = _names(calendar.regular_holidays, first, last)
    spans = _spans(calendar)
    for day in _special_days(calendar, first, last, holidays):
        spans.setdefault(day, (opening.on(day, calendar.tz), closing.on(day, calendar.tz)))
    return LibraryCalendar(
        code=code,
        timezone=calendar.tz.key,
        covered_from=first,
        covered_until=last,
        wanted_until=until,
        source=f"{LIBRARY} {library.__version__}, {code}",
        week=calendar.weekmask,
        opening=opening,
        closing=closing,
        spans=spans,
        holidays=holidays,
        other_hours={
            day: name
            for _, rules in (*calendar.special_opens, *calendar.special_closes)
            for day, name in _names(rules, first, last).items()
        },
    )


def _date(bound: Any) -> date | None:
    return None if bound is None else bound.date()


def _timestamp(day: Any) -> Any:
    return importlib.import_module("pandas").Timestamp(day)


def _times(times: Any) -> tuple[tuple[date, time], ...]:
    return tuple((_date(since) or date.min, at) for since, at in times)


def _spans(calendar: Any) -> dict[date, Span]:
    days = (label.date() for label in calendar.sessions)
    spans = zip(_instants(calendar.opens), _instants(calendar.closes), strict=True)
    return dict(zip(days, spans, strict=True))


def _instants(column: Any) -> list[datetime]:
    return [at.to_pydatetime().astimezone(UTC) for at in column]


def _special_days(
    calendar: Any, first: date, last: date, holidays: Container[date]
) -> Iterator[date]:
    """Those on which single weeks have trading: with pandas 3 the library loses them itself."""
    adhoc = {_timestamp(day).date() for day in calendar.adhoc_holidays}
    for since, until, week in getattr(calendar, "special_weekmasks", ()):
        for day in days(max(first, _date(since) or first), min(last, _date(until) or last)):
            if week[day.weekday()] == "1" and day not in adhoc and day not in holidays:
                yield day


def _names(rules: Any, first: date, last: date) -> dict[date, str]:
    """A rule that is no holiday calendar, such as one of each Friday, has none."""
    if not getattr(rules, "rules", None):
        return {}
    named: Any = rules.holidays(_timestamp(first), _timestamp(last), return_name=True)
    return {day.date(): " ".join(name.split()) for day, name in named.items()}


def _mend_orthodox_easter(factory: Any) -> None:
    """The library's own offset of that name does not work with pandas 3, which has one itself."""
    offsets: Any = importlib.import_module("pandas.tseries.offsets")
    broken: Any = importlib.import_module(f"{LIBRARY}.pandas_extensions.offsets").OrthodoxEaster
    for rule in vars(sys.modules[factory.__module__]).values():
        if isinstance(getattr(rule, "offset", None), list):
            rule.offset = [
                offsets.Easter(method=ORTHODOX) if isinstance(each, broken) else each
                for each in rule.offset
            ]
