"""The calendars of exchange_calendars, as the rest of us sees them."""

import asyncio
import subprocess
import sys
import warnings
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path

import pytest

from openbell.contracts.commands import Sessions
from openbell.contracts.model import SessionKind
from services.calendar import shelf
from services.calendar.days import Calendar, list_sessions
from services.calendar.exchanges import library_exchanges
from services.calendar.library import LibraryCalendar, known_until, load
from services.calendar.shelf import Shelf

UNTIL = date(2031, 12, 31)
"""Further than is ever asked for: what a list of holidays lacks would show."""


@cache
def calendar(code: str) -> LibraryCalendar:
    return load(code, library_exchanges()[code], UNTIL)


def told(code: str, first: date, last: date | None = None) -> Sessions:
    return list_sessions(calendar(code), first, last or first)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize("code", sorted(library_exchanges()))
def test_every_calendar_lists_its_weeks(code: str) -> None:
    covered = calendar(code)
    last = covered.covered_until
    first = last - timedelta(days=27)
    found = told(code, first, last)
    opened = {session.day for session in found.sessions}
    closed = {closure.day for closure in found.closures}
    assert len(opened) >= 10
    assert len(opened | closed) == 28
    assert not opened & closed
    for session in found.sessions:
        assert session.opens_at < session.closes_at <= session.opens_at + timedelta(days=1)
        assert (session.kind is SessionKind.USUAL) == (session.reason is None)
    assert covered.timezone == library_exchanges()[code].timezone


@pytest.mark.parametrize("code", sorted(library_exchanges()))
def test_most_days_are_usual_ones(code: str) -> None:
    """Were its usual hours misread, none would be."""
    last = calendar(code).covered_until
    found = told(code, last - timedelta(days=360), last).sessions
    usual = [session for session in found if session.kind is SessionKind.USUAL]
    assert len(usual) > 0.75 * len(found)


def test_new_york_in_summer_and_winter() -> None:
    (winter,) = told("XNYS", date(2026, 3, 6)).sessions
    assert (winter.opens_at, winter.closes_at) == (at("2026-03-06T14:30"), at("2026-03-06T21:00"))
    (summer,) = told("XNYS", date(2026, 3, 9)).sessions
    assert (summer.opens_at, summer.closes_at) == (at("2026-03-09T13:30"), at("2026-03-09T20:00"))
    assert summer.kind is SessionKind.USUAL


def test_an_early_close_is_shortened_and_named() -> None:
    (session,) = told("XNYS", date(2026, 11, 27)).sessions
    assert session.closes_at == at("2026-11-27T18:00")
    assert (session.kind, session.reason) == (SessionKind.SHORTENED, "Black Friday")
    assert str(session.source).startswith("exchange_calendars ")


def test_a_holiday_is_named_and_says_what_would_have_been() -> None:
    thanksgiving, saturday, sunday = told("XNYS", date(2026, 11, 26), date(2026, 11, 29)).closures
    assert (thanksgiving.reason, thanksgiving.weekend) == ("Thanksgiving", False)
    assert thanksgiving.opens_at == at("2026-11-26T14:30")
    assert thanksgiving.closes_at == at("2026-11-26T21:00")
    assert saturday.weekend
    assert sunday.reason == "weekend"


def test_a_holiday_without_a_name_is_closed() -> None:
    (closure,) = told("XBOM", date(2026, 1, 26)).closures
    assert closure.reason == "closed"


@pytest.mark.parametrize(
    ("code", "saturday"),
    [("XBOM", date(2024, 1, 20)), ("XBOM", date(2025, 2, 1)), ("XMOS", date(2024, 12, 28))],
)
def test_an_opening_on_a_weekend_is_special(code: str, saturday: date) -> None:
    (session,) = told(code, saturday).sessions
    assert session.kind is SessionKind.SPECIAL
    assert (session.opens_at, session.closes_at) == calendar(code).usual(saturday)
    week_before = told(code, saturday - timedelta(days=7)).closures
    assert [closure.weekend for closure in week_before] == [True]


def test_a_day_may_open_on_the_evening_before() -> None:
    (monday,) = told("CMES", date(2026, 9, 14)).sessions
    assert monday.opens_at == at("2026-09-13T22:00")
    assert monday.closes_at == at("2026-09-14T22:00")
    assert monday.kind is SessionKind.USUAL


def test_a_lunch_break_is_no_closing() -> None:
    (session,) = told("XTKS", date(2026, 9, 14)).sessions
    assert (session.opens_at, session.closes_at) == (at("2026-09-14T00:00"), at("2026-09-14T06:30"))


@pytest.mark.parametrize(
    ("code", "easter_monday"),
    [("ASEX", date(2026, 4, 13)), ("XBSE", date(2026, 4, 13)), ("XCYS", date(2025, 4, 21))],
)
def test_orthodox_easter(code: str, easter_monday: date) -> None:
    friday = easter_monday - timedelta(days=3)
    closed = told(code, friday, easter_monday).closures
    assert [closure.day for closure in closed if not closure.weekend] == [friday, easter_monday]


@pytest.mark.parametrize(
    ("code", "until"),
    [
        ("XBOM", date(2026, 12, 31)),  # the library's own bound: it raises beyond
        ("XSES", date(2026, 12, 31)),
        ("XSHG", date(2026, 12, 31)),
        ("XKAR", date(2025, 12, 31)),  # ours: see data/exchanges.toml
        ("XIDX", date(2025, 12, 31)),
        ("XMOS", date(2024, 12, 31)),
        ("XTAE", date(2026, 12, 31)),
        ("XNYS", UNTIL),
        ("24/7", UNTIL),
    ],
)
def test_it_covers_what_is_known_and_no_more(code: str, until: date) -> None:
    assert calendar(code).covered_until == until
    beyond = told(code, until + timedelta(days=1), until + timedelta(days=30))
    assert beyond.sessions == beyond.closures == ()


@pytest.mark.parametrize("code", sorted(library_exchanges()))
def test_no_list_of_holidays_ends_before_it_is_said_to(code: str) -> None:
    covered = calendar(code)
    years = range(covered.covered_from.year, covered.covered_until.year + 1)
    counts = Counter(day.year for day in covered.spans)
    early = [counts[year] for year in years if year <= 2025]
    late = [counts[year] for year in years if year > 2025]
    if early and late:
        assert max(late) <= max(early) + 3


def test_the_next_year_is_known_and_not_more() -> None:
    assert known_until(date(2026, 1, 1)) == known_until(date(2026, 12, 31)) == date(2027, 12, 31)


# ---- the shelf


def test_the_library_is_imported_when_it_is_asked_for_and_not_before() -> None:
    program = """
import asyncio, sys
import services.calendar.service
from services.calendar.exchanges import all_exchanges
from services.calendar.shelf import Shelf
shelf = Shelf()
assert len(list(all_exchanges())) > 60
asyncio.run(shelf.get("NSE"))
assert "pandas" not in sys.modules
asyncio.run(shelf.get("NYSE"))
assert "pandas" in sys.modules
"""
    root = Path(__file__).parents[3]
    subprocess.run([sys.executable, "-c", program], cwd=root, check=True)


async def _get_at_once(names: list[str], of: Shelf) -> tuple[list[Calendar], float]:
    """The calendars, and the longest time for which the event loop stood still."""
    longest, done = 0.0, False

    async def watch() -> None:
        nonlocal longest
        loop = asyncio.get_running_loop()
        while not done:
            before = loop.time()
            await asyncio.sleep(0.01)
            longest = max(longest, loop.time() - before - 0.01)

    watching = asyncio.create_task(watch())
    found = await asyncio.gather(*(of.get(name) for name in names))
    done = True
    await watching
    return list(found), longest


def test_many_who_ask_at_once_wait_for_one_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[str] = []

    def counted(code: str, *more: object) -> LibraryCalendar:
        loads.append(code)
        return load(code, *more)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(shelf, "load", counted)
    found, longest = asyncio.run(_get_at_once(["NYSE", "xnys", "NASDAQ", "XNYS", "LSE"], Shelf()))
    assert [each.code for each in found] == ["XNYS", "XNYS", "XNYS", "XNYS", "XLON"]
    assert sorted(loads) == ["XLON", "XNYS"]
    assert found[0] is found[1]
    assert longest < 1


def test_a_new_year_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    shelf_of_today = Shelf()
    old = asyncio.run(shelf_of_today.get("XNYS"))
    next_year = datetime(old.covered_until.year, 1, 1, tzinfo=UTC)
    monkeypatch.setattr(shelf, "utc_now", lambda: next_year)
    new = asyncio.run(shelf_of_today.get("XNYS"))
    assert new.covered_until.year == old.covered_until.year + 1


def test_loading_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load("XHKG", library_exchanges()["XHKG"], UNTIL)
