"""When an exchange is open, as instants: whatever the host's own time zone is."""

import shutil
import subprocess
import sys
import time
from collections.abc import Generator
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from openbell.contracts.commands import Sessions
from openbell.contracts.errors import UnknownExchange
from services.calendar import sessions
from services.calendar.sessions import LONGEST, list_sessions, segments

ROOT = Path(__file__).parents[3]
THURSDAY = date(2026, 7, 30)
DAY = timedelta(days=1)


@pytest.fixture(autouse=True, params=["UTC", "Asia/Kolkata", "America/New_York"])
def _host(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """Hosts in UTC were off by 5.5 hours."""
    monkeypatch.setenv("TZ", request.param)
    if sys.platform != "win32":
        time.tzset()
    sessions.segments.cache_clear()
    yield
    monkeypatch.undo()
    if sys.platform != "win32":
        time.tzset()


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
def test_commodities_trade_into_the_night(code: str) -> None:
    ((opens, closes),) = on(code, THURSDAY)
    assert opens == utc(THURSDAY, 3, 30)
    assert utc(THURSDAY, 18, 0) <= closes <= utc(THURSDAY, 18, 25)


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
    assert unknown.sessions == ()
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


@pytest.mark.parametrize("code", ["", "XYZ", "NSE ", "../NSE", "covered", "N\0SE", "x" * 100_000])
def test_an_unknown_exchange_is_told_together_with_the_known_ones(code: str) -> None:
    with pytest.raises(UnknownExchange) as caught:
        list_sessions(code, THURSDAY, THURSDAY)
    assert all(known in caught.value.detail for known in segments())
    assert len(caught.value.detail) < 300
    assert caught.value.status == 422


def test_an_exchange_is_known_in_either_case() -> None:
    assert on("nse", THURSDAY) == on("NSE", THURSDAY)
    assert list_sessions("nfo", THURSDAY, THURSDAY).sessions[0].segment == "NFO"


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
    assert len(found.sessions) <= LONGEST.days + 1
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
        [git, "check-ignore", "-q", "--no-index", str(sessions.FACTS)], cwd=ROOT, check=False
    )
    assert ignored.returncode == 1
