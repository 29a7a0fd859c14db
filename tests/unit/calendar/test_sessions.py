"""When an exchange is open, as instants: whatever the host's own time zone is."""

import shutil
import subprocess
import sys
import time
from collections.abc import Generator
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest

from openbell.contracts.commands import Sessions
from openbell.contracts.model import Closure, SessionKind
from services.calendar import days
from services.calendar.days import LONGEST
from services.calendar.facts import DATA
from services.calendar.sessions import segments

ROOT = DATA.parents[2]
THURSDAY = date(2026, 7, 30)
DAY = timedelta(days=1)


@pytest.fixture(autouse=True, params=["UTC", "Asia/Kolkata", "America/New_York"])
def _host(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """Hosts in UTC were off by 5.5 hours."""
    monkeypatch.setenv("TZ", request.param)
    if sys.platform != "win32":
        time.tzset()
    days.kept_plan.cache_clear()
    yield
    monkeypatch.undo()
    if sys.platform != "win32":
        time.tzset()


def list_sessions(code: str, first: date, last: date) -> Sessions:
    return days.list_sessions(segments()[code], first, last)


def on(code: str, day: date, last: date | None = None) -> list[tuple[datetime, datetime]]:
    found = list_sessions(code, day, last or day).sessions
    return [(session.opens_at, session.closes_at) for session in found]


def utc(day: date, hour: int, minute: int) -> datetime:
    return datetime(day.year, day.month, day.day, hour, minute, tzinfo=UTC)


@pytest.mark.parametrize("code", ["NSE", "BSE"])
def test_equities_trade_from_9_15_to_15_30_in_india(code: str) -> None:
    assert on(code, THURSDAY) == [(utc(THURSDAY, 3, 45), utc(THURSDAY, 10, 0))]


@pytest.mark.parametrize("code", ["NFO", "BFO"])
@pytest.mark.parametrize(
    ("day", "closes"),
    [
        (date(2026, 7, 30), (10, 0)),
        (date(2026, 7, 31), (10, 0)),
        (date(2026, 8, 3), (10, 10)),
        (date(2026, 8, 4), (10, 10)),
        (date(2026, 12, 31), (10, 10)),
    ],
)
def test_derivatives_close_ten_minutes_later_since_august_2026(
    code: str, day: date, closes: tuple[int, int]
) -> None:
    assert on(code, day) == [(utc(day, 3, 45), utc(day, *closes))]


def test_equities_kept_their_close_in_august_2026() -> None:
    assert on("NSE", date(2026, 8, 3)) == [
        (utc(date(2026, 8, 3), 3, 45), utc(date(2026, 8, 3), 10, 0))
    ]


@pytest.mark.parametrize("code", ["CDS", "BCD"])
def test_currencies_trade_from_9_to_17(code: str) -> None:
    assert on(code, THURSDAY) == [(utc(THURSDAY, 3, 30), utc(THURSDAY, 11, 30))]


@pytest.mark.parametrize("code", ["MCX", "NCO"])
@pytest.mark.parametrize(
    ("day", "closes"),
    [
        (date(2024, 3, 7), (18, 25)),
        (date(2024, 3, 11), (18, 0)),  # New York changed on Sunday
        (date(2024, 10, 31), (18, 0)),
        (date(2024, 11, 4), (18, 25)),
        (date(2025, 3, 7), (18, 25)),
        (date(2025, 3, 10), (18, 0)),
        (date(2026, 3, 6), (18, 25)),
        (date(2026, 3, 9), (18, 0)),
        (date(2026, 10, 30), (18, 0)),
        (date(2026, 11, 2), (18, 25)),
    ],
)
def test_commodities_close_when_new_york_changes_its_clock(
    code: str, day: date, closes: tuple[int, int]
) -> None:
    assert on(code, day) == [(utc(day, 3, 30), utc(day, *closes))]


@pytest.mark.parametrize("code", ["MCX", "NCO"])
@pytest.mark.parametrize(
    ("day", "closes"),
    [(date(2026, 3, 3), (18, 25)), (date(2026, 5, 1), (18, 0)), (date(2026, 11, 24), (18, 25))],
)
def test_an_evening_only_day_of_mcx_does_not_open_in_the_morning(
    code: str, day: date, closes: tuple[int, int]
) -> None:
    """It was started at 09:00, when only the evening was traded."""
    (session,) = list_sessions(code, day, day).sessions
    assert (session.opens_at, session.closes_at) == (utc(day, 11, 30), utc(day, *closes))
    assert session.kind is SessionKind.SHORTENED
    assert session.reason
    assert session.source
    assert on("NSE", day) == []


@pytest.mark.parametrize("code", ["MCX", "NCO"])
def test_on_new_years_day_only_the_morning_is_traded(code: str) -> None:
    for year in (2024, 2025, 2026):
        day = date(year, 1, 1)
        assert on(code, day) == [(utc(day, 3, 30), utc(day, 11, 30))]
        assert len(on("NSE", day)) == 1


@pytest.mark.parametrize(
    "day",
    [
        date(2024, 1, 26),
        date(2024, 3, 29),
        date(2025, 4, 18),
        date(2025, 8, 15),
        date(2026, 1, 26),
        date(2026, 10, 2),
        date(2026, 12, 25),
    ],
)
def test_on_some_holidays_nothing_is_traded_at_all(day: date) -> None:
    for code in set(segments()) - {"CRYPTO"}:
        assert on(code, day) == []


MUHURAT = [
    (date(2024, 11, 1), (12, 30), (13, 30)),
    (date(2025, 10, 21), (8, 15), (9, 15)),
    (date(2026, 11, 8), (12, 30), (13, 30)),
]


@pytest.mark.parametrize("code", sorted(set(segments()) - {"CRYPTO"}))
@pytest.mark.parametrize(("day", "opens", "closes"), MUHURAT)
def test_muhurat_is_one_special_hour(
    code: str, day: date, opens: tuple[int, int], closes: tuple[int, int]
) -> None:
    """Muhurat Sunday: it was started at 09:15 for an evening session."""
    (session,) = list_sessions(code, day, day).sessions
    assert (session.opens_at, session.closes_at) == (utc(day, *opens), utc(day, *closes))
    assert session.kind is SessionKind.SPECIAL
    assert "Muhurat" in str(session.reason)


@pytest.mark.parametrize("code", ["NSE", "BSE", "NFO", "BFO"])
@pytest.mark.parametrize("day", [date(2024, 3, 2), date(2024, 5, 18)])
def test_a_day_may_have_two_sessions(code: str, day: date) -> None:
    found = list_sessions(code, day, day).sessions
    assert [(s.opens_at, s.closes_at) for s in found] == [
        (utc(day, 3, 45), utc(day, 4, 30)),
        (utc(day, 6, 0), utc(day, 7, 0)),
    ]
    assert {s.kind for s in found} == {SessionKind.SPECIAL}
    assert on("CDS", day) == on("MCX", day) == []


@pytest.mark.parametrize("day", [date(2024, 1, 20), date(2025, 2, 1), date(2026, 2, 1)])
def test_some_weekends_are_traded_in_full(day: date) -> None:
    assert day.weekday() >= 5
    for code in ("NSE", "BSE", "NFO", "BFO"):
        (session,) = list_sessions(code, day, day).sessions
        assert (session.opens_at, session.closes_at) == (utc(day, 3, 45), utc(day, 10, 0))
        assert session.kind is SessionKind.SPECIAL
    assert on("CDS", day) == []
    budget = [(utc(day, 3, 30), utc(day, 11, 30))]
    assert on("MCX", day) == on("NCO", day) == ([] if day.year == 2024 else budget)


def test_currencies_have_holidays_of_their_own() -> None:
    for day in (date(2024, 4, 9), date(2025, 9, 8), date(2026, 4, 1), date(2026, 8, 26)):
        assert on("CDS", day) == on("BCD", day) == []
        assert len(on("NSE", day)) == 1
    for moved in (date(2024, 9, 16), date(2025, 9, 5)):
        assert len(on("CDS", moved)) == 1


def test_a_closure_says_why_and_what_would_have_been() -> None:
    found = list_sessions("NFO", date(2026, 9, 12), date(2026, 9, 14))
    assert found.sessions == ()
    saturday, sunday, monday = found.closures
    assert saturday == Closure(
        day=date(2026, 9, 12),
        reason="weekend",
        weekend=True,
        opens_at=utc(date(2026, 9, 12), 3, 45),
        closes_at=utc(date(2026, 9, 12), 10, 10),
    )
    assert sunday.weekend
    assert (monday.reason, monday.weekend) == ("Ganesh Chaturthi", False)
    assert monday.opens_at == utc(date(2026, 9, 14), 3, 45)
    assert monday.closes_at == utc(date(2026, 9, 14), 10, 10)
    assert "NSE/FAOP/71777" in str(monday.source)


@pytest.mark.parametrize("code", sorted(segments()))
def test_each_covered_day_is_either_open_or_closed(code: str) -> None:
    for year in (2024, 2025, 2026):
        first, last = date(year, 1, 1), date(year, 12, 31)
        found = list_sessions(code, first, last)
        opened = {session.day for session in found.sessions}
        closed = {closure.day for closure in found.closures}
        assert opened | closed == {first + n * DAY for n in range((last - first).days + 1)}
        assert not opened & closed
        assert all(s.reason and s.source for s in found.sessions if s.kind is not SessionKind.USUAL)
        assert all(s.reason is None for s in found.sessions if s.kind is SessionKind.USUAL)
        assert all(c.source for c in found.closures if not c.weekend)


@pytest.mark.parametrize("code", sorted(set(segments()) - {"CRYPTO"}))
def test_a_weekend_has_no_session(code: str) -> None:
    assert on(code, date(2026, 8, 1), date(2026, 8, 2)) == []
    week = list_sessions(code, date(2026, 7, 27), date(2026, 8, 2)).sessions
    assert [session.opens_at.weekday() for session in week] == [0, 1, 2, 3, 4]


def test_crypto_never_closes() -> None:
    every_day = on("CRYPTO", date(2026, 2, 26), date(2026, 3, 3))
    assert [opens for opens, _ in every_day] == [
        utc(date(2026, 2, 26) + n * DAY, 0, 0) for n in range(6)
    ]
    assert all(closes - opens == DAY for opens, closes in every_day)
    assert all(before[1] == after[0] for before, after in pairwise(every_day))


def test_a_year_without_data_is_unknown_and_not_open() -> None:
    """26 Jan 2027 was shown open: there was no data for that year."""
    unknown = list_sessions("NSE", date(2027, 1, 1), date(2027, 12, 31))
    assert unknown.sessions == unknown.closures == ()
    assert unknown.covered_until == date(2026, 12, 31)
    assert unknown.covered_from == date(2024, 1, 1)
    assert list_sessions("NSE", date(2023, 12, 1), date(2023, 12, 31)).sessions == ()


def test_the_known_part_of_a_range_is_given() -> None:
    assert on("NSE", date(2026, 12, 31), date(2027, 1, 15)) == on("NSE", date(2026, 12, 31))
    assert on("NSE", date(2023, 12, 20), date(2024, 1, 1)) == on("NSE", date(2024, 1, 1))
    assert len(on("NSE", date(2024, 1, 1))) == 1


def test_crypto_is_known_for_ever() -> None:
    far = date(2999, 1, 1)
    assert on("CRYPTO", far) == [(utc(far, 0, 0), utc(far + DAY, 0, 0))]
    assert list_sessions("CRYPTO", far, far).covered_until > far


@pytest.mark.parametrize(
    ("first", "last"),
    [
        (date.min, date.max),
        (date(2024, 1, 1), date.max),
        (date.max - DAY, date.max),
        (date.max, date.max),
        (date.min, date.min),
    ],
)
@pytest.mark.parametrize("code", ["NSE", "CRYPTO"])
def test_a_very_long_range_is_bounded(code: str, first: date, last: date) -> None:
    found = list_sessions(code, first, last)
    told = {each.day for each in (*found.sessions, *found.closures)}
    assert len(told) <= LONGEST.days + 1
    assert len(found.encode()) < 1024**2  # it fits into one message


def test_a_range_that_ends_before_it_begins_is_empty() -> None:
    assert on("NSE", THURSDAY, THURSDAY - DAY) == []
    assert on("CRYPTO", date.max, date.min) == []


@pytest.mark.parametrize("code", sorted(segments()))
def test_sessions_are_in_order_and_apart(code: str) -> None:
    found = list_sessions(code, date(2026, 1, 1), date(2026, 12, 31))
    for session in found.sessions:
        assert session.opens_at < session.closes_at
        assert session.opens_at.tzinfo is UTC
        assert session.closes_at.tzinfo is UTC
    pairs = pairwise(found.sessions)
    assert all(before.closes_at <= after.opens_at for before, after in pairs)
    assert Sessions.model_validate_json(found.encode()) == found


def test_a_session_opens_on_the_local_day_that_was_asked_for() -> None:
    found = list_sessions("NSE", THURSDAY, THURSDAY)
    assert found.timezone == "Asia/Kolkata"
    assert [session.opens_at.date() for session in found.sessions] == [THURSDAY]


def test_the_facts_belong_to_the_repository() -> None:
    """What git ignores is missing in every clone, and in the wheel."""
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    ignored = subprocess.run(
        [git, "check-ignore", "-q", "--no-index", str(DATA / "days" / "2026.toml")],
        cwd=ROOT,
        check=False,
    )
    assert ignored.returncode == 1
