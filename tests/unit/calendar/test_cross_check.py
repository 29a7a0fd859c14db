"""Our rows of NSE and BSE against two libraries, day by day, with each difference explained.

A difference that is not listed fails, and so does one that is listed and has gone.
"""

import importlib
import warnings
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from services.calendar.days import list_sessions
from services.calendar.sessions import segments

FIRST, LAST = date(2024, 1, 1), date(2026, 12, 31)
Spans = tuple[tuple[datetime, datetime], ...]

DR_TEST = "it does not know the test of the disaster recovery site: two short sessions"
NO_MUHURAT = "it does not know the hour of Muhurat trading"
NO_SATURDAY = "it does not know that this Saturday was traded in full"
NO_SUNDAY = "it does not know that the budget's Sunday was traded in full"
LOST = "it knows this Saturday, but loses its special weeks with pandas 3"

XBOM = {
    date(2024, 1, 20): LOST,
    date(2024, 3, 2): DR_TEST,
    date(2024, 5, 18): DR_TEST,
    date(2024, 11, 1): NO_MUHURAT,
    date(2025, 2, 1): LOST,
    date(2025, 10, 21): NO_MUHURAT,
    date(2026, 2, 1): NO_SUNDAY,
    date(2026, 11, 8): NO_MUHURAT,
}
"""exchange_calendars, whose Bombay is compared with NSE too: both keep the same days."""

PMC: dict[str, dict[date, str]] = {
    "NSE": {
        date(2024, 1, 20): NO_SATURDAY,
        date(2024, 3, 2): DR_TEST,
        date(2024, 5, 18): DR_TEST,
        date(2025, 2, 1): NO_SATURDAY,
        date(2026, 2, 1): NO_SUNDAY,
        date(2026, 11, 8): NO_MUHURAT,
    },
    "BSE": {
        date(2024, 1, 20): NO_SATURDAY,
        date(2024, 3, 2): DR_TEST,
        date(2024, 5, 18): DR_TEST,
        date(2024, 11, 1): NO_MUHURAT,
        date(2025, 2, 1): NO_SATURDAY,
        date(2025, 10, 21): NO_MUHURAT,
        date(2026, 2, 1): NO_SUNDAY,
        date(2026, 11, 8): NO_MUHURAT,
    },
}
"""pandas_market_calendars, which has a calendar of each."""


def ours(code: str) -> dict[date, Spans]:
    found: dict[date, Spans] = {}
    first = FIRST
    while first <= LAST:  # a single answer is bounded
        last = min(first + timedelta(days=365), LAST)
        for session in list_sessions(segments()[code], first, last).sessions:
            span = (session.opens_at, session.closes_at)
            found[session.day] = (*found.get(session.day, ()), span)
        first = last + timedelta(days=1)
    return found


def days_of(schedule: Any, opens: str, closes: str) -> dict[date, Spans]:
    rows = zip(schedule.index, schedule[opens], schedule[closes], strict=True)
    return {
        day.date(): ((_instant(opens_at), _instant(closes_at)),)
        for day, opens_at, closes_at in rows
    }


def _instant(at: Any) -> datetime:
    return at.to_pydatetime().astimezone(UTC)


def of_exchange_calendars() -> dict[date, Spans]:
    library: Any = importlib.import_module("exchange_calendars")
    calendar = library.get_calendar("XBOM", start=FIRST.isoformat(), end=LAST.isoformat())
    return days_of(calendar.schedule, "open", "close")


def of_pandas_market_calendars(code: str) -> dict[date, Spans]:
    library: Any = importlib.import_module("pandas_market_calendars")
    schedule = library.get_calendar(code).schedule(FIRST.isoformat(), LAST.isoformat())
    return days_of(schedule, "market_open", "market_close")


def differences(known: Mapping[date, Spans], told: Mapping[date, Spans]) -> set[date]:
    return {day for day in known.keys() | told.keys() if known.get(day) != told.get(day)}


@pytest.fixture(autouse=True)
def _their_warnings() -> Any:
    """Of pandas, about what they use of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize("code", ["NSE", "BSE"])
def test_our_rows_against_exchange_calendars(code: str) -> None:
    assert differences(ours(code), of_exchange_calendars()) == XBOM.keys()


@pytest.mark.parametrize("code", ["NSE", "BSE"])
def test_our_rows_against_pandas_market_calendars(code: str) -> None:
    assert differences(ours(code), of_pandas_market_calendars(code)) == PMC[code].keys()


@pytest.mark.parametrize(("derivatives", "equities"), [("NFO", "NSE"), ("BFO", "BSE")])
def test_derivatives_keep_the_days_of_their_equities(derivatives: str, equities: str) -> None:
    of, to = ours(derivatives), ours(equities)
    assert of.keys() == to.keys()
    longer = {day for day in of if of[day] != to[day]}
    assert min(longer) == date(2026, 8, 3)
    usual = {day for day in to if day >= date(2026, 8, 3)} - {date(2026, 11, 8)}
    assert longer == usual


@pytest.mark.parametrize("code", ["CDS", "BCD", "MCX", "NCO"])
def test_no_other_segment_is_open_as_usual_when_equities_are_closed(code: str) -> None:
    """Their holidays are equities' own and more; commodities may have an evening on them."""
    calendar, equities = segments()[code], ours("NSE")
    for day, spans in ours(code).items():
        if calendar.usual(day) in spans:
            assert day in equities
