"""The rule that says when a strategy should run."""

from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbell.contracts.commands import Sessions
from openbell.contracts.model import Outlook, SessionKind
from openbell.contracts.schedules import SCHEDULE, WEEKDAYS, AnySchedule, Market, Overlap
from services.scheduler.days import LOOK_BACK, Known
from services.scheduler.planner import LOOK_AHEAD, Plan, over_since, plan
from tests.fixtures.sessions import crypto, sessions, special

IST = ZoneInfo("Asia/Kolkata")
SINCE = datetime(2026, 8, 1, tzinfo=UTC)
DIWALI = date(2026, 11, 10)


def ist(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=IST).astimezone(UTC)


def around(now: datetime, **more: Any) -> Sessions:
    return sessions((now - LOOK_BACK).date(), (now + LOOK_AHEAD).date(), **more)


def market(start: str = "09:15", stop: str | None = "15:30", **more: object) -> Market:
    return Market.model_validate(
        {"kind": "market", "exchange": "NSE", "start": start, "stop": stop, **more}
    )


def schedule(kind: str, **fields: object) -> AnySchedule:
    return SCHEDULE.validate_python({"kind": kind, **fields})


def plan_market(
    schedule: AnySchedule, told: Sessions | None, now: datetime, since: datetime = SINCE
) -> Plan:
    return plan(schedule, since, Known(told) if told else None, now)


def test_inside_the_window_it_should_run_until_the_stop() -> None:
    now = ist("2026-11-19 10:00")  # a Thursday
    found = plan_market(market(), around(now), now)
    assert found.outlook is Outlook.OPEN
    assert found.window is not None
    assert found.window.start == ist("2026-11-19 09:15")
    assert found.next_stop == ist("2026-11-19 15:30")
    assert found.next_start == ist("2026-11-20 09:15")


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
    found = plan_market(market(), around(ist(at)), ist(at))
    assert (found.outlook, found.window, found.next_start) == (outlook, None, ist(next_start))


def test_the_window_begins_at_its_first_instant_and_ends_before_its_last() -> None:
    opens, closes = ist("2026-11-19 09:15"), ist("2026-11-19 15:30")
    assert plan_market(market(), around(opens), opens).window is not None
    assert plan_market(market(), around(closes), closes).window is None


def test_friday_night_belongs_to_friday_and_ends_on_saturday() -> None:
    overnight = market("17:00", "02:00", weekdays=["fri"])
    saturday_one = ist("2026-11-21 01:00")
    found = plan_market(overnight, around(saturday_one), saturday_one)
    assert found.window is not None
    assert found.window.start == ist("2026-11-20 17:00")
    assert found.next_stop == ist("2026-11-21 02:00")
    friday_morning = ist("2026-11-20 01:00")
    assert plan_market(overnight, around(friday_morning), friday_morning).window is None


def test_a_weekday_left_out_is_paused_and_says_so() -> None:
    now = ist("2026-11-19 10:00")
    found = plan_market(market(weekdays=["mon", "fri"]), around(now), now)
    assert (found.outlook, found.reason) == (Outlook.PAUSED, "not scheduled on Thursdays")
    assert found.next_start == ist("2026-11-20 09:15")


def test_a_schedule_that_never_meets_its_market_says_so() -> None:
    now = ist("2026-11-19 10:00")
    found = plan_market(market(weekdays=["sun"]), around(now), now)
    assert (found.outlook, found.next_start) == (Outlook.PAUSED, None)
    assert found.reason == "no session of NSE on its days in the coming weeks"


def test_without_a_stop_a_missed_start_is_caught_up_until_the_close() -> None:
    endless = market(stop=None)
    before, after = ist("2026-11-19 15:29"), ist("2026-11-19 15:31")
    found = plan_market(endless, around(before), before)
    assert found.window is not None
    assert found.next_stop is None
    assert not found.ends
    assert plan_market(endless, around(after), after).window is None


def test_muhurat_does_not_start_in_the_morning() -> None:
    muhurat = special(date(2026, 11, 8), time(18), time(19))
    morning = ist("2026-11-08 10:00")
    known = sessions(muhurat.day, muhurat.day, specials=[muhurat])
    found = plan_market(market("09:15", "23:00"), known, morning)
    assert (found.window, found.next_start) == (None, ist("2026-11-08 18:00"))
    assert found.next_stop == ist("2026-11-08 19:00")
    usual = plan_market(market(), known, morning)
    assert usual.next_start is None


def test_an_evening_only_day_of_commodities_starts_in_the_evening() -> None:
    evening = special(DIWALI, time(17), time(23, 55), kind=SessionKind.SHORTENED, reason="Diwali")
    known = sessions(DIWALI, DIWALI, specials=[evening], opens=time(9), closes=time(23, 55))
    found = plan_market(market("09:00", "23:30"), known, ist("2026-11-10 08:00"))
    assert (found.next_start, found.next_stop) == (
        ist("2026-11-10 17:00"),
        ist("2026-11-10 23:30"),
    )
    without = market("09:00", "23:30", special_sessions=False)
    assert plan_market(without, known, ist("2026-11-10 18:00")).window is not None


def test_special_sessions_can_be_left_out() -> None:
    muhurat = special(date(2026, 11, 8), time(18), time(19))
    known = sessions(muhurat.day, muhurat.day, specials=[muhurat])
    found = plan_market(
        market("open", "close", special_sessions=False), known, ist("2026-11-08 18:30")
    )
    assert (found.window, found.outlook) == (None, Outlook.PAUSED)


def test_open_and_close_move_with_the_session() -> None:
    short = special(DIWALI, time(10), time(12, 30), kind=SessionKind.SHORTENED)
    known = sessions(DIWALI, DIWALI + timedelta(days=1), specials=[short])
    anchored = market("open-15m", "close+5m")
    first = plan_market(anchored, known, ist("2026-11-10 08:00"))
    assert (first.next_start, first.next_stop) == (
        ist("2026-11-10 09:45"),
        ist("2026-11-10 12:35"),
    )
    second = plan_market(anchored, known, ist("2026-11-10 13:00"))
    assert second.next_start == ist("2026-11-11 09:00")


def test_a_window_may_begin_before_the_close() -> None:
    known = sessions(DIWALI, DIWALI)
    found = plan_market(market("close-15m", "close+30m"), known, ist("2026-11-10 15:40"))
    assert found.window is not None
    assert found.window.start == ist("2026-11-10 15:15")


def test_a_false_holiday_can_be_opened_and_a_day_left_out() -> None:
    closed = around(ist("2026-11-10 10:00"), holidays={DIWALI: "Diwali"})
    now = ist("2026-11-10 10:00")
    paused = plan_market(market(), closed, now)
    assert (paused.outlook, paused.reason) == (Outlook.PAUSED, "NSE is closed: Diwali")
    opened = plan_market(market(open_dates=["2026-11-10"]), closed, now)
    assert opened.outlook is Outlook.OPEN
    left_out = plan_market(market(skip_dates=["2026-11-10"]), around(now), now)
    assert (left_out.outlook, left_out.reason) == (Outlook.PAUSED, "one of its dates to skip")


def test_local_times_are_those_of_the_schedules_zone() -> None:
    """A trader in Mumbai writes New York's session in Mumbai's times, across its clock change."""
    evening = market("20:00", "02:30", exchange="XNYS", timezone="Asia/Kolkata")
    for day, opens in ((date(2026, 10, 30), time(19)), (date(2026, 11, 2), time(20))):
        known = sessions(
            day, day, zone="America/New_York", opens=time(9, 30), closes=time(16), segment="XNYS"
        )
        assert known.sessions[0].opens_at == ist(f"{day} {opens}") + timedelta(minutes=0)
        found = plan_market(evening, known, ist(f"{day} 21:00"))
        assert found.window is not None
        assert (found.window.start, found.window.stop) == (
            ist(f"{day} 20:00"),
            ist(f"{day + timedelta(days=1)} 02:30"),
        )


def test_a_session_that_opens_on_the_evening_before_has_its_morning_inside() -> None:
    monday = special(
        date(2026, 11, 16), time(9), time(16), kind=SessionKind.USUAL, zone="America/Chicago"
    )
    opens_on_sunday = monday.model_copy(update={"opens_at": monday.opens_at - timedelta(hours=16)})
    known = sessions(monday.day, monday.day, zone="America/Chicago", specials=[opens_on_sunday])
    found = plan_market(market("08:30", "15:00"), known, monday.opens_at)
    assert found.window is not None
    assert found.window.start == datetime(2026, 11, 16, 14, 30, tzinfo=UTC)


def test_friday_night_runs_into_saturday() -> None:
    """Friday 17:00 to 02:00 is not stopped on Friday at 02:00, nor skipped on Saturday."""
    overnight = market("17:00", "02:00", weekdays=["fri"])
    friday = ist("2026-11-20 17:00")
    assert plan_market(overnight, around(friday), ist("2026-11-20 01:59")).window is None
    night = plan_market(overnight, around(friday), ist("2026-11-21 01:59"))
    assert night.outlook is Outlook.OPEN
    assert plan_market(overnight, around(friday), ist("2026-11-21 02:00")).window is None


@pytest.mark.parametrize(("day", "warns"), [("2026-10-31", False), ("2026-11-22", True)])
def test_a_calendar_that_ends_soon_is_warned_of(day: str, warns: bool) -> None:
    now = ist(f"{day} 10:00")
    found = plan_market(market(), around(now), now)
    assert (found.warning is not None) is warns
    if found.warning:
        assert "NSE ends on 2026-12-31" in found.warning


def test_a_late_start_can_be_unwanted() -> None:
    strict = market(catch_up="skip")
    for now, wanted in ((ist("2026-11-19 09:15:59"), True), (ist("2026-11-19 09:16"), False)):
        found = plan_market(strict, around(now), now)
        assert found.window is not None
        assert found.window.may_start(now) is wanted


# ---- the other kinds


def test_once_is_due_once() -> None:
    once = schedule("once", at="2026-11-19T09:15:00", timezone="Asia/Kolkata")
    due = ist("2026-11-19 09:15")
    before = plan(once, SINCE, None, due - timedelta(days=90))
    assert (before.outlook, before.next_start, before.window) == (Outlook.SCHEDULED, due, None)
    assert plan(once, SINCE, None, due).window is not None
    over = plan(once, SINCE, None, due + timedelta(hours=1))
    assert (over.outlook, over.reason) == (Outlook.NONE, "its one time is over")
    assert (over.next_start, over.window) == (None, None)


def test_once_that_was_over_before_it_was_set_never_starts() -> None:
    once = schedule("once", at="2026-11-19T09:15:00+05:30")
    late = ist("2026-11-19 09:30")
    assert plan(once, late, None, late).window is None


def test_an_interval_counts_from_when_it_was_set() -> None:
    every = schedule("interval", every="15m", overlap="queue")
    found = plan(every, SINCE, None, SINCE + timedelta(minutes=40))
    assert found.window is not None
    assert found.window.start == SINCE + timedelta(minutes=30)
    assert found.next_start == SINCE + timedelta(minutes=45)
    assert found.overlap is Overlap.QUEUE
    assert not found.ends
    assert plan(every, SINCE, None, SINCE + timedelta(minutes=5)).window is None


def test_an_interval_inside_sessions_counts_from_the_open() -> None:
    every = schedule("interval", every="2h", exchange="NSE")
    noon, evening = ist("2026-11-19 12:00"), ist("2026-11-19 16:00")
    found = plan_market(every, around(noon), noon)
    assert found.window is not None
    assert found.window.start == ist("2026-11-19 11:15")
    assert found.next_start == ist("2026-11-19 13:15")
    assert plan_market(every, around(evening), evening).next_start == ist("2026-11-20 09:15")


def test_cron_on_trading_days_leaves_holidays_out() -> None:
    cron = schedule("cron", cron="0 9 * * *", exchange="NSE", duration="1h")
    now = ist("2026-11-09 12:00")
    known = around(now, holidays={DIWALI: "Diwali"})
    assert plan_market(cron, known, now).next_start == ist("2026-11-11 09:00")


def test_cron_does_not_start_in_hours_that_a_shortened_day_leaves_out() -> None:
    """The evening alone of commodities, and Muhurat; what is no trading time stands as written."""
    evening = special(DIWALI, time(17), time(23, 55), kind=SessionKind.SHORTENED, reason="Diwali")
    now = ist("2026-11-09 23:00")
    known = around(now, specials=[evening], opens=time(9), closes=time(23, 30))
    for cron, start in (
        ("0 10", "2026-11-11 10:00"),
        ("0 18", "2026-11-10 18:00"),
        ("30 8", "2026-11-10 08:30"),
    ):
        at_hour = schedule("cron", cron=f"{cron} * * *", exchange="NSE", duration="1h")
        assert plan_market(at_hour, known, now).next_start == ist(start)
        during = plan_market(at_hour, known, ist("2026-11-10 10:30"))
        assert during.window is None


def test_cron_that_was_due_before_it_was_set_does_not_start() -> None:
    cron = schedule("cron", cron="0 9 * * *", timezone="Asia/Kolkata")
    since = ist("2026-11-19 09:20")
    assert plan(cron, since, None, since).window is None
    running = schedule("cron", cron="0 9 * * *", timezone="Asia/Kolkata", stop="15:30")
    found = plan(running, since, None, since)
    assert found.window is not None
    assert found.window.stop == ist("2026-11-19 15:30")


def test_cron_that_never_meets_its_exchange_says_so() -> None:
    cron = schedule("cron", cron="0 9 * * 0", exchange="NSE")
    now = ist("2026-10-19 12:00")
    found = plan_market(cron, around(now), now)
    assert (found.outlook, found.next_start) == (Outlook.PAUSED, None)
    assert "coming weeks" in found.reason


def test_by_hand_wants_nothing() -> None:
    found = plan(schedule("manual", max_runtime="1h"), SINCE, None, SINCE)
    assert (found.outlook, found.window, found.next_start) == (Outlook.NONE, None, None)
    assert found.max_runtime == timedelta(hours=1)


# ---- what is over


def test_each_window_is_over_once() -> None:
    now = ist("2026-11-19 15:30")
    known = Known(around(now))
    over = list(over_since(market(), SINCE, known, now - timedelta(days=3), now))
    days = [window.start.astimezone(IST).day for window in over]
    assert days == [19, 18, 17]
    assert list(over_since(market(), SINCE, known, now, now + timedelta(hours=1))) == []


def test_an_uncovered_year_is_unknown_not_open() -> None:
    now = ist("2027-01-26 10:00")
    found = plan_market(market(), around(now), now)
    assert (found.outlook, found.window) == (Outlook.UNKNOWN, None)
    assert "does not cover 2027" in found.reason


def test_a_calendar_that_does_not_answer_is_unknown() -> None:
    now = ist("2026-11-19 10:00")
    assert plan_market(market(), None, now).outlook is Outlook.UNKNOWN


def test_always_is_open_from_when_it_was_set() -> None:
    since = ist("2026-11-21 10:00")
    found = plan(schedule("always"), since, None, since)
    assert found.window is not None
    assert found.window.holds(since)
    assert not found.ends


def test_crypto_has_no_weekend() -> None:
    sunday = ist("2026-11-22 10:00")
    always_open = crypto(sunday.date() - LOOK_BACK, sunday.date() + LOOK_AHEAD)
    found = plan_market(market("00:00", "23:59", exchange="CRYPTO"), always_open, sunday)
    assert found.outlook is Outlook.OPEN
    assert found.warning is None


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
    daily = market(start.isoformat("seconds"), stop.isoformat("seconds"), weekdays=sorted(weekdays))
    now = ist("2026-09-01 00:00") + timedelta(minutes=minutes)
    found = plan_market(daily, around(now), now)
    assert (found.outlook is Outlook.OPEN) == (found.window is not None)
    assert found.next_start is not None
    assert found.next_start > now
    then = plan_market(daily, around(found.next_start), found.next_start)
    assert then.window is not None
    assert then.window.start == found.next_start
    assert found.next_stop is not None
    after = plan_market(daily, around(found.next_stop), found.next_stop)
    assert after.last_stop is not None
    assert after.last_stop <= found.next_stop
