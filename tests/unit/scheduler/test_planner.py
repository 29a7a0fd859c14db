"""The rule that says when a strategy should run."""

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbell.contracts.commands import Sessions
from openbell.contracts.model import Outlook, Session
from openbell.contracts.schedules import WEEKDAYS, Market
from services.calendar.sessions import list_sessions
from services.scheduler.planner import LOOK_AHEAD, LOOK_BACK, plan_always, plan_market

IST = ZoneInfo("Asia/Kolkata")


def ist(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=IST).astimezone(UTC)


def around(now: datetime, exchange: str = "NSE") -> Sessions:
    return list_sessions(exchange, (now - LOOK_BACK).date(), (now + LOOK_AHEAD).date())


def market(start: str = "09:15", stop: str | None = "15:30", **more: object) -> Market:
    return Market.model_validate(
        {"kind": "market", "exchange": "NSE", "start": start, "stop": stop, **more}
    )


def test_inside_the_window_it_should_run_until_the_stop() -> None:
    now = ist("2026-11-19 10:00")  # a Thursday
    plan = plan_market(market(), around(now), now)
    assert plan.outlook is Outlook.OPEN
    assert plan.window is not None
    assert plan.window.start == ist("2026-11-19 09:15")
    assert plan.next_stop == ist("2026-11-19 15:30")
    assert plan.next_start == ist("2026-11-20 09:15")


@pytest.mark.parametrize(
    ("at", "outlook", "next_start"),
    [
        ("2026-11-19 09:14:59", Outlook.SCHEDULED, "2026-11-19 09:15"),
        ("2026-11-19 15:30:00", Outlook.SCHEDULED, "2026-11-20 09:15"),
        ("2026-11-20 16:00:00", Outlook.SCHEDULED, "2026-11-23 09:15"),
        ("2026-11-21 10:00:00", Outlook.PAUSED, "2026-11-23 09:15"),
    ],
)
def test_outside_the_window_it_names_the_next_start(
    at: str, outlook: Outlook, next_start: str
) -> None:
    plan = plan_market(market(), around(ist(at)), ist(at))
    assert (plan.outlook, plan.window, plan.next_start) == (outlook, None, ist(next_start))


def test_the_window_begins_at_its_first_instant_and_ends_before_its_last() -> None:
    opens, closes = ist("2026-11-19 09:15"), ist("2026-11-19 15:30")
    assert plan_market(market(), around(opens), opens).window is not None
    assert plan_market(market(), around(closes), closes).window is None


def test_friday_night_belongs_to_friday_and_ends_on_saturday() -> None:
    overnight = market("17:00", "02:00", weekdays=["fri"])
    saturday_one = ist("2026-11-21 01:00")
    plan = plan_market(overnight, around(saturday_one), saturday_one)
    assert plan.window is not None
    assert plan.window.start == ist("2026-11-20 17:00")
    assert plan.next_stop == ist("2026-11-21 02:00")
    friday_morning = ist("2026-11-20 01:00")
    assert plan_market(overnight, around(friday_morning), friday_morning).window is None


def test_a_weekday_left_out_is_paused_and_says_so() -> None:
    now = ist("2026-11-19 10:00")
    plan = plan_market(market(weekdays=["mon", "fri"]), around(now), now)
    assert (plan.outlook, plan.reason) == (Outlook.PAUSED, "not scheduled on Thursdays")
    assert plan.next_start == ist("2026-11-20 09:15")


def test_a_schedule_that_never_meets_its_market_says_so() -> None:
    now = ist("2026-11-19 10:00")
    plan = plan_market(market(weekdays=["sun"]), around(now), now)
    assert (plan.outlook, plan.next_start) == (Outlook.PAUSED, None)
    assert plan.reason == "no session of NSE on its weekdays in the coming weeks"


def test_without_a_stop_a_missed_start_is_caught_up_until_the_close() -> None:
    endless = market(stop=None)
    before, after = ist("2026-11-19 15:29"), ist("2026-11-19 15:31")
    plan = plan_market(endless, around(before), before)
    assert plan.window is not None
    assert plan.next_stop is None
    assert not plan.ends
    assert plan_market(endless, around(after), after).window is None


def test_muhurat_does_not_start_in_the_morning() -> None:
    day = date(2026, 11, 8)
    special = Session(
        segment="NSE",
        opens_at=ist("2026-11-08 18:00"),
        closes_at=ist("2026-11-08 19:00"),
        special=True,
    )
    known = Sessions(
        timezone="Asia/Kolkata",
        covered_from=day,
        covered_until=day + timedelta(days=60),
        sessions=(special,),
    )
    morning = ist("2026-11-08 10:00")
    all_day = market("09:15", "23:00")
    plan = plan_market(all_day, known, morning)
    assert (plan.window, plan.next_start) == (None, ist("2026-11-08 18:00"))
    assert plan.next_stop == ist("2026-11-08 19:00")
    usual = plan_market(market(), known, morning)
    assert usual.next_start is None


def test_an_uncovered_year_is_unknown_not_open() -> None:
    now = ist("2027-01-26 10:00")
    plan = plan_market(market(), around(now), now)
    assert (plan.outlook, plan.window) == (Outlook.UNKNOWN, None)
    assert "does not cover 2027" in plan.reason


def test_a_calendar_that_does_not_answer_is_unknown() -> None:
    now = ist("2026-11-19 10:00")
    assert plan_market(market(), None, now).outlook is Outlook.UNKNOWN


def test_always_is_open_from_when_it_was_set() -> None:
    since = ist("2026-11-21 10:00")
    plan = plan_always(since)
    assert plan.window is not None
    assert plan.window.holds(since)
    assert not plan.ends


def test_crypto_has_no_weekend() -> None:
    sunday = ist("2026-11-22 10:00")
    schedule = market("00:00", "23:59", exchange="CRYPTO")
    assert plan_market(schedule, around(sunday, "CRYPTO"), sunday).outlook is Outlook.OPEN


@given(
    start=st.times(timezones=st.none()),
    stop=st.times(timezones=st.none()),
    weekdays=st.sets(st.sampled_from(WEEKDAYS[:5]), min_size=1),
    minutes=st.integers(0, 14 * 24 * 60),
)
def test_a_plan_is_consistent_at_any_moment(
    start: time, stop: time, weekdays: set[str], minutes: int
) -> None:
    """Level and edge agree: just at its next start a schedule is open, at its next stop not."""
    if start.replace(microsecond=0) == stop.replace(microsecond=0):
        return
    schedule = market(
        start.isoformat("seconds"), stop.isoformat("seconds"), weekdays=sorted(weekdays)
    )
    now = ist("2026-09-01 00:00") + timedelta(minutes=minutes)
    plan = plan_market(schedule, around(now), now)
    assert (plan.outlook is Outlook.OPEN) == (plan.window is not None)
    assert plan.next_start is not None
    assert plan.next_start > now
    then = plan_market(schedule, around(plan.next_start), plan.next_start)
    assert then.window is not None
    assert then.window.start == plan.next_start
    assert plan.next_stop is not None
    after = plan_market(schedule, around(plan.next_stop), plan.next_stop)
    assert after.last_stop is not None
    assert after.last_stop <= plan.next_stop
