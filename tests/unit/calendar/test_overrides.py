"""What an admin says of a day replaces it as a whole."""

from datetime import UTC, date, datetime, time
from typing import Any

import pytest

from openbell.contracts.commands import OpenHours, Override, Sessions
from openbell.contracts.errors import InvalidRequest
from openbell.contracts.model import SessionKind
from services.calendar.days import list_sessions
from services.calendar.overrides import checked, overridden
from services.calendar.sessions import segments

MONDAY = date(2026, 9, 14)
"""Ganesh Chaturthi."""
TUESDAY = date(2026, 9, 15)
SUNDAY = date(2026, 9, 13)


def said(day: date, *hours: str, segment: str = "NSE") -> Override:
    return Override(
        segment=segment,
        day=day,
        hours=tuple(
            OpenHours(opens=time.fromisoformat(each[:5]), closes=time.fromisoformat(each[6:]))
            for each in hours
        ),
        reason="as announced",
        by="asha",
        at=datetime(2026, 9, 1, 12, 0, tzinfo=UTC),
    )


def told(override: Override, first: date | None = None, last: date | None = None) -> Sessions:
    calendar = segments()[override.segment]
    known = list_sessions(calendar, first or override.day, last or override.day)
    return overridden(calendar, known, [checked(override)])


def utc(day: date, hour: int, minute: int) -> datetime:
    return datetime(day.year, day.month, day.day, hour, minute, tzinfo=UTC)


def test_a_false_holiday_is_removed_by_an_override() -> None:
    """It had to be deleted from the table."""
    found = told(said(MONDAY, "09:15-15:30"))
    assert found.closures == ()
    (session,) = found.sessions
    assert (session.opens_at, session.closes_at) == (utc(MONDAY, 3, 45), utc(MONDAY, 10, 0))
    assert (session.kind, session.reason) == (SessionKind.SPECIAL, "as announced")
    assert session.source == "set by asha on 2026-09-01"


def test_a_day_is_closed_by_an_override_without_hours() -> None:
    found = told(said(TUESDAY))
    assert found.sessions == ()
    (closure,) = found.closures
    assert (closure.day, closure.reason, closure.weekend) == (TUESDAY, "as announced", False)
    assert (closure.opens_at, closure.closes_at) == (utc(TUESDAY, 3, 45), utc(TUESDAY, 10, 0))
    assert closure.source == "set by asha on 2026-09-01"


@pytest.mark.parametrize(
    ("segment", "day", "hours", "kind"),
    [
        ("NSE", TUESDAY, ["09:15-15:30"], SessionKind.USUAL),
        ("NSE", TUESDAY, ["09:15-13:00"], SessionKind.SHORTENED),
        ("NSE", TUESDAY, ["09:15-12:00", "12:30-15:30"], SessionKind.SHORTENED),
        ("NSE", SUNDAY, ["09:15-15:30"], SessionKind.SPECIAL),
        ("NSE", MONDAY, ["09:15-15:30"], SessionKind.SPECIAL),
        ("NSE", date(2026, 11, 8), ["18:15-19:15"], SessionKind.SPECIAL),
        ("MCX", MONDAY, ["09:00-23:30"], SessionKind.USUAL),
        ("MCX", MONDAY, ["17:00-23:00"], SessionKind.SHORTENED),
        ("CRYPTO", SUNDAY, ["00:00-00:00"], SessionKind.USUAL),
        ("CRYPTO", SUNDAY, ["10:00-12:00"], SessionKind.SHORTENED),
    ],
)
def test_what_its_sessions_are(
    segment: str, day: date, hours: list[str], kind: SessionKind
) -> None:
    found = told(said(day, *hours, segment=segment))
    assert len(found.sessions) == len(hours)
    assert {session.kind for session in found.sessions} == {kind}


@pytest.mark.parametrize(
    ("day", "hours", "kind"),
    [
        (date(2027, 1, 26), "09:15-15:30", SessionKind.USUAL),
        (date(2027, 1, 26), "10:00-12:00", SessionKind.SHORTENED),
        (date(2027, 1, 24), "09:15-15:30", SessionKind.SPECIAL),
    ],
)
def test_a_day_that_is_not_covered_becomes_known_and_no_other(
    day: date, hours: str, kind: SessionKind
) -> None:
    found = told(said(day, hours), date(2027, 1, 1), date(2027, 12, 31))
    assert [(session.day, session.kind) for session in found.sessions] == [(day, kind)]
    assert found.closures == ()
    assert found.covered_until == date(2026, 12, 31)


def test_a_day_that_is_not_covered_may_be_known_to_be_closed() -> None:
    found = told(said(date(2027, 1, 26)))
    assert [closure.day for closure in found.closures] == [date(2027, 1, 26)]


def test_the_other_days_stay_as_they_are_and_in_order() -> None:
    before = list_sessions(segments()["NSE"], SUNDAY, date(2026, 9, 18))
    found = told(said(MONDAY, "09:15-10:00", "11:00-12:00"), SUNDAY, date(2026, 9, 18))
    assert [session.day for session in found.sessions[:3]] == [MONDAY, MONDAY, TUESDAY]
    assert found.sessions[2:] == before.sessions
    assert [closure.day for closure in found.closures] == [SUNDAY]


def test_an_overnight_close_is_tomorrows() -> None:
    (session,) = told(said(TUESDAY, "20:00-02:00")).sessions
    assert session.opens_at == utc(TUESDAY, 14, 30)
    assert session.closes_at == utc(TUESDAY, 20, 30)
    assert session.day == TUESDAY
    (whole,) = told(said(TUESDAY, "09:15-09:15")).sessions
    assert (whole.closes_at - whole.opens_at).total_seconds() == 86400


def test_hours_are_put_in_order() -> None:
    found = checked(said(TUESDAY, "13:00-14:00", "09:00-10:00", "10:00-13:00"))
    assert [each.opens.hour for each in found.hours] == [9, 10, 13]


@pytest.mark.parametrize(
    "hours",
    [
        ["09:00-12:00", "11:59-13:00"],
        ["09:00-12:00", "09:00-12:00"],
        ["20:00-02:00", "21:00-22:00"],
        ["09:00-09:00", "10:00-11:00"],
        ["10:00-09:00", "11:00-12:00"],
    ],
)
def test_overlapping_hours_are_refused(hours: list[str]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        checked(said(TUESDAY, *hours))
    assert caught.value.errors
    assert caught.value.errors[0]["field"] == "hours"


@pytest.mark.parametrize("day", [date.min, date.max, date(1999, 12, 31), date(2200, 1, 1)])
def test_a_day_out_of_this_world_is_refused(day: date) -> None:
    with pytest.raises(InvalidRequest) as caught:
        checked(said(day, "09:00-10:00"))
    errors: Any = caught.value.errors
    assert errors[0]["field"] == "day"
