"""What a person is told of a market at one moment."""

from datetime import UTC, date, datetime

import pytest

from openbell.contracts.commands import MarketState
from openbell.contracts.errors import InvalidRequest
from services.calendar.days import list_sessions
from services.calendar.markets import days_around, state_of
from services.calendar.sessions import segments


def state(code: str, at: str) -> tuple[bool | None, str]:
    found = tell(code, at)
    return found.is_open, found.reason


def tell(code: str, at: str) -> MarketState:
    calendar = segments()[code]
    moment = datetime.fromisoformat(f"{at}+05:30").astimezone(UTC)
    first, last = days_around(moment, calendar.timezone)
    return state_of(list_sessions(calendar, first, last), moment)


@pytest.mark.parametrize(
    ("code", "at", "is_open", "reason"),
    [
        ("NSE", "2026-09-15 09:14:59", False, "closed: opens at 09:15"),
        ("NSE", "2026-09-15 09:15", True, "open until 15:30"),
        ("NSE", "2026-09-15 15:29:59", True, "open until 15:30"),
        ("NSE", "2026-09-15 15:30", False, "closed since 15:30"),
        ("NFO", "2026-09-15 15:30", True, "open until 15:40"),
        ("NSE", "2026-09-13 12:00", False, "weekend"),
        ("NSE", "2026-09-14 12:00", False, "closed: Ganesh Chaturthi"),
        ("MCX", "2026-09-14 12:00", False, "closed: opens at 17:00: Ganesh Chaturthi"),
        ("MCX", "2026-09-14 18:00", True, "open until 23:30: Ganesh Chaturthi"),
        ("NSE", "2024-03-02 10:30", False,
         "closed: opens at 11:30: Test of the disaster recovery site"),
        ("NSE", "2026-11-08 09:15", False,
         "closed: opens at 18:00: Diwali Laxmi Pujan, Muhurat trading"),
        ("NSE", "2027-01-26 12:00", None,
         "not covered: the calendar of NSE ends on 2026-12-31"),
        ("NSE", "2023-12-29 12:00", None,
         "not covered: the calendar of NSE begins on 2024-01-01"),
        ("CRYPTO", "2026-11-08 09:15", True, "open until 00:00"),
    ],
)  # fmt: skip
def test_it_says_whether_and_why(code: str, at: str, is_open: bool | None, reason: str) -> None:
    assert state(code, at) == (is_open, reason)


@pytest.mark.parametrize("at", [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)])
def test_a_moment_that_nobody_can_mean_is_refused(at: datetime) -> None:
    with pytest.raises(InvalidRequest) as caught:
        days_around(at, "Asia/Kolkata")
    assert caught.value.errors
    assert caught.value.errors[0]["field"] == "at"


def test_it_tells_the_session_and_the_next_one() -> None:
    found = tell("NSE", "2026-09-11 12:00")
    assert found.session
    assert found.session.day == date(2026, 9, 11)
    assert found.next
    assert found.next.day == date(2026, 9, 15)
    assert tell("NSE", "2026-09-11 16:00").session is None
    assert tell("NSE", "2026-12-31 16:00").next is None
