"""Any schedule, in any zone, at any instant: what is wanted agrees with what is announced."""

from datetime import UTC, date, datetime, time, timedelta
from itertools import islice, pairwise, takewhile
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from openbell.contracts.model import Session, SessionKind
from openbell.contracts.schedules import (
    SCHEDULE,
    WEEKDAYS,
    AnySchedule,
    Cron,
    exchange_of,
    show_duration,
    show_time,
)
from services.scheduler.days import LOOK_BACK, Days, Known
from services.scheduler.fires import Fires
from services.scheduler.planner import plan
from services.scheduler.windows import Window, why_never, windows_of
from tests.fixtures.sessions import sessions, special

ZONES = ("America/New_York", "Europe/London", "Asia/Kolkata", "UTC", "Australia/Lord_Howe")
CLOCK_CHANGES = (date(2026, 3, 8), date(2026, 3, 29), date(2026, 10, 25), date(2026, 11, 1))
SPAN = timedelta(days=5)
SECOND = timedelta(seconds=1)

clock_times = st.times().map(lambda at: at.replace(microsecond=0, fold=0))
edges = st.builds(
    "{}{}{}".format,
    st.sampled_from(["open", "close"]),
    st.sampled_from(["+", "-"]),
    st.integers(1, 3 * 3600).map(lambda s: show_duration(timedelta(seconds=s))),
)
market_times = st.one_of(clock_times.map(show_time), edges, st.sampled_from(["open", "close"]))
weekdays = st.sets(st.sampled_from(WEEKDAYS), min_size=1).map(sorted)
minutes = st.one_of(
    st.sampled_from(["*", "*/5", "*/7", "0", "30", "0,30"]), st.integers(0, 59).map(str)
)
hours = st.one_of(
    st.sampled_from(["*", "*/2", "1", "2", "1-3", "9-15"]), st.integers(0, 23).map(str)
)
days_of_week = st.sampled_from(["*", "1-5", "0", "6,0", "3"])
crons = st.builds("{} {} * * {}".format, minutes, hours, days_of_week)
durations = st.integers(60, 30 * 3600).map(lambda s: show_duration(timedelta(seconds=s)))


@st.composite
def calendars(draw: st.DrawFn) -> tuple[Known, date]:
    """Two weeks of sessions around a night on which clocks are changed somewhere."""
    middle = draw(st.sampled_from(CLOCK_CHANGES))
    zone = draw(st.sampled_from(ZONES))
    opens, closes = draw(clock_times), draw(clock_times)
    first, last = middle - timedelta(days=17), middle + timedelta(days=10)
    holidays = draw(st.dictionaries(st.dates(first, last), st.just("a holiday"), max_size=5))
    on = draw(st.lists(st.dates(first, last), unique=True, max_size=3))
    hours = st.tuples(st.times(max_value=time(11)), st.times(min_value=time(12)))
    exceptions: list[Session] = []
    for day in on:
        begins, ends = draw(hours)
        kind = draw(st.sampled_from([SessionKind.SHORTENED, SessionKind.SPECIAL]))
        exceptions.append(special(day, begins, ends, kind=kind, zone=zone))
    told = sessions(
        first,
        last,
        zone=zone,
        opens=opens,
        closes=closes,
        every_day=draw(st.booleans()),
        holidays=holidays,
        specials=exceptions,
    )
    return Known(told), middle


@st.composite
def schedules(draw: st.DrawFn, middle: date) -> AnySchedule:
    zone = draw(st.sampled_from(ZONES))
    common: dict[str, object] = {"catch_up": draw(st.sampled_from(["start", "skip"]))}
    on_exchange: dict[str, object] = {
        "exchange": "NSE",
        "timezone": draw(st.none() | st.just(zone)),
        "special_sessions": draw(st.booleans()),
        "skip_dates": draw(st.lists(st.sampled_from([middle]), max_size=1)),
    }
    at = datetime.combine(middle, draw(clock_times))
    kinds: list[dict[str, object]] = [
        {"kind": "manual"},
        {"kind": "always"},
        {"kind": "once", "at": at, "timezone": zone, **common},
        {"kind": "once", "at": at, "stop": at + SPAN, "timezone": zone, **common},
        {"kind": "interval", "every": draw(durations), **common},
        {"kind": "interval", "every": draw(durations), **common, **on_exchange},
        {"kind": "cron", "cron": draw(crons), "timezone": zone, **common},
        {
            "kind": "cron",
            "cron": draw(crons),
            "stop": draw(clock_times.map(show_time)),
            **common,
            **on_exchange,
        },
        {"kind": "cron", "cron": draw(crons), "duration": draw(durations), **common, **on_exchange},
    ]
    start, stop = draw(market_times), draw(st.none() | market_times)
    market = {"kind": "market", "start": start, "stop": stop, "weekdays": draw(weekdays)}
    market_kinds = 4 * [{**market, **common, **on_exchange}]
    spec = draw(st.sampled_from([*market_kinds, *reversed(kinds)]))
    try:
        return SCHEDULE.validate_python(spec)
    except ValueError:
        return SCHEDULE.validate_python({"kind": "market", "exchange": "NSE", "stop": "close"})


@st.composite
def cases(draw: st.DrawFn) -> tuple[AnySchedule, datetime, Known | None, datetime]:
    """A schedule, when it was set, its sessions, and the beginning of the days to look at."""
    known, middle = draw(calendars())
    schedule = draw(schedules(middle))
    begin = datetime.combine(middle, time(), UTC) - timedelta(days=2)
    since = begin - draw(st.timedeltas(timedelta(), timedelta(days=9)))
    return schedule, since, known if exchange_of(schedule) else None, begin


def listed(case: tuple[AnySchedule, datetime, Known | None, datetime]) -> list[Window]:
    schedule, since, known, begin = case
    upcoming = windows_of(schedule, since, known).upcoming(begin)
    return list(takewhile(lambda window: window.start <= begin + SPAN, upcoming))


@settings(max_examples=150, deadline=None)
@given(cases())
def test_no_window_ends_before_it_starts(
    case: tuple[AnySchedule, datetime, Known | None, datetime],
) -> None:
    for window in listed(case):
        assert window.stop is None or window.start < window.stop == window.until
        assert window.until is None or window.start <= window.until
        assert window.start_until is None or window.start <= window.start_until


@settings(max_examples=150, deadline=None)
@given(cases())
def test_backwards_and_forwards_tell_the_same(
    case: tuple[AnySchedule, datetime, Known | None, datetime],
) -> None:
    """No start is missed or doubled, from wherever it is looked at, over a clock change too."""
    schedule, since, known, begin = case
    forward = listed(case)
    assert all(one.start < other.start for one, other in pairwise(forward))
    started = windows_of(schedule, since, known).started(begin + SPAN)
    backward = list(takewhile(lambda window: window.start > begin, started))
    assert backward[::-1] == forward


@settings(max_examples=100, deadline=None)
@given(cases())
def test_each_start_is_announced_by_the_one_before(
    case: tuple[AnySchedule, datetime, Known | None, datetime],
) -> None:
    schedule, since, known, now = case
    for window in listed(case)[:40]:
        announced = plan(schedule, since, known, now).upcoming
        assert announced == window
        now = window.start


@settings(max_examples=150, deadline=None)
@given(cases(), st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_the_state_wanted_at_any_instant_is_that_of_the_list(
    case: tuple[AnySchedule, datetime, Known | None, datetime], at: list[float]
) -> None:
    schedule, since, known, begin = case
    windows = windows_of(schedule, since, known)
    before = takewhile(lambda window: window.start > begin - LOOK_BACK, windows.started(begin))
    everything = [*before, *listed(case)]
    instants = [begin + SPAN * part for part in at]
    instants += [window.start for window in listed(case)[:5]]
    instants += [window.until - SECOND for window in listed(case)[:5] if window.until]
    for now in instants:
        if now > begin + SPAN:
            continue
        found = plan(schedule, since, known, now)
        holding = [window for window in everything if window.holds(now)]
        assert found.window == max(holding, key=lambda window: window.start, default=None)
        stops = [window.stop for window in holding if window.stop]
        if holding:
            assert found.next_stop == max(stops, default=None)


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, 59),
    st.integers(0, 23),
    st.sampled_from(CLOCK_CHANGES),
    st.sampled_from(ZONES),
    st.integers(0, 8 * 24 * 60),
)
def test_a_daily_time_comes_once_a_day_over_a_clock_change(
    minute: int, hour: int, change: date, zone: str, later: int
) -> None:
    begin = datetime.combine(change - timedelta(days=4), time(), ZoneInfo(zone)).astimezone(UTC)
    end = datetime.combine(change + timedelta(days=4), time(), ZoneInfo(zone)).astimezone(UTC)
    fires = Fires(f"{minute} {hour} * * *", ZoneInfo(zone))
    from_somewhere = begin + timedelta(minutes=later)
    list(fires.until(from_somewhere))  # what it remembers changes nothing
    found = takewhile(lambda at: at < end, fires.after(begin - SECOND))
    days = [at.astimezone(ZoneInfo(zone)).date() for at in found]
    assert days == [change + timedelta(days=n) for n in range(-4, 4)]


def test_every_half_hour_comes_in_both_passes_of_an_hour_that_comes_twice() -> None:
    new_york = ZoneInfo("America/New_York")
    begin = datetime(2026, 11, 1, 0, 45, tzinfo=new_york).astimezone(UTC)
    found = Fires("*/30 * * * *", new_york).after(begin)
    starts = [next(found) for _ in range(5)]
    assert [one - begin for one in starts] == [timedelta(minutes=15 + 30 * n) for n in range(5)]


def test_a_cron_time_in_the_hour_that_comes_twice_is_told_from_within_it() -> None:
    new_york = ZoneInfo("America/New_York")
    cron = SCHEDULE.validate_python(
        {"kind": "cron", "cron": "30 1 * * *", "timezone": "America/New_York", "duration": "2h"}
    )
    assert isinstance(cron, Cron)
    second_pass = datetime(2026, 11, 1, 1, 10, fold=1, tzinfo=new_york).astimezone(UTC)
    found = plan(cron, second_pass - SPAN, None, second_pass)
    assert found.window is not None
    assert found.window.start == datetime(2026, 11, 1, 5, 30, tzinfo=UTC)
    assert found.next_start == datetime(2026, 11, 2, 6, 30, tzinfo=UTC)


@settings(max_examples=100, deadline=None)
@given(crons, st.sampled_from(ZONES[:4]), st.sampled_from(CLOCK_CHANGES), st.integers(0, 6 * 1440))
def test_times_are_those_that_cron_would_tell(
    cron: str, zone: str, change: date, later: int
) -> None:
    """But where clocks change by half an hour: there CronSim leaves some out."""
    begin = datetime.combine(change - timedelta(days=3), time(), UTC) + timedelta(minutes=later)
    told = CronSim(cron, (begin - timedelta(hours=3)).astimezone(ZoneInfo(zone)))
    expected = (at for at in (fire.astimezone(UTC) for fire in told) if at > begin)
    found = Fires(cron, ZoneInfo(zone)).after(begin)
    assert list(islice(found, 40)) == list(islice(expected, 40))


MONDAYS = [date(2025, 1, 6) + timedelta(weeks=n) for n in range(400)]
SUNDAY = datetime(2026, 11, 22, 6, tzinfo=UTC)


@pytest.mark.parametrize(
    ("spec", "most"),
    [
        ({"kind": "interval", "every": "5s", "weekdays": ["mon"], "skip_dates": MONDAYS}, 2300),
        ({"kind": "interval", "every": "5s", "weekdays": ["mon"], "skip_dates": MONDAYS[:99]}, 50),
        ({"kind": "interval", "every": "168h", "weekdays": ["mon"]}, 5000),
        ({"kind": "interval", "every": "5s", "exchange": "NSE"}, 200),
        ({"kind": "cron", "cron": "* * * * *", "exchange": "NSE"}, 100),
        ({"kind": "cron", "cron": "* * * * *", "exchange": "NSE", "duration": "168h"}, 100),
        ({"kind": "cron", "cron": "* * * * 0,6", "exchange": "NSE"}, 200),
        ({"kind": "cron", "cron": "* * * * *", "duration": "168h"}, 100),
        ({"kind": "cron", "cron": "* * * * *", "skip_dates": MONDAYS}, 100),
        ({"kind": "cron", "cron": "0 9 * * 1", "skip_dates": MONDAYS}, 3000),
    ],
)
def test_a_plan_looks_at_few_days_and_instants(
    spec: dict[str, Any], most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = _count_looks(monkeypatch)
    schedule = SCHEDULE.validate_python({"timezone": "Asia/Kolkata", **spec})
    first, last = (SUNDAY - LOOK_BACK).date(), (SUNDAY + timedelta(days=21)).date()
    known = Known(sessions(first, last)) if exchange_of(schedule) else None
    plan(schedule, SUNDAY - timedelta(days=2000), known, SUNDAY)
    assert 0 < len(looks) <= most


def _count_looks(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Each question whether a day counts, or which day an instant belongs to."""
    looks: list[object] = []
    counts, day_of = Days.counts, Days.day_of

    def seen_counts(days: Days, day: date) -> bool:
        looks.append(day)
        return counts(days, day)

    def seen_day_of(days: Days, at: datetime) -> date:
        looks.append(at)
        return day_of(days, at)

    monkeypatch.setattr(Days, "counts", seen_counts)
    monkeypatch.setattr(Days, "day_of", seen_day_of)
    return looks


def test_an_interval_longer_than_its_days_are_apart_comes_again() -> None:
    every = SCHEDULE.validate_python(
        {"kind": "interval", "every": "120h", "weekdays": ["mon"], "timezone": "UTC"}
    )
    found = plan(every, SUNDAY, None, SUNDAY).next_start
    assert found == SUNDAY + 3 * timedelta(hours=120)
    assert found is not None
    assert found.weekday() == 0


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"start": "close", "stop": "open+5m"}, "its stop is not after its start"),
        ({"start": "open", "stop": "close"}, None),
        ({"start": "close", "stop": "open+5m", "weekdays": ["sun"]}, None),
    ],
)
def test_what_never_runs_says_why(fields: dict[str, Any], why: str | None) -> None:
    market = SCHEDULE.validate_python({"kind": "market", "exchange": "NSE", **fields})
    known = Known(sessions(SUNDAY.date(), (SUNDAY + timedelta(days=21)).date()))
    assert why_never(market, known, SUNDAY) == why


def test_a_session_that_overlaps_the_next_is_over_when_that_opens() -> None:
    monday, tuesday = date(2026, 11, 23), date(2026, 11, 24)
    long = special(monday, time(15), time(9))
    known = Known(sessions(monday, tuesday, specials=[long], opens=time(8)))
    every = SCHEDULE.validate_python({"kind": "interval", "every": "7h", "exchange": "NSE"})
    starts = [window.start for window in windows_of(every, SUNDAY, known).upcoming(SUNDAY)]
    opens = known.opens
    assert starts == [
        *(opens[0] + n * timedelta(hours=7) for n in range(3)),
        *(opens[1] + n * timedelta(hours=7) for n in range(2)),
    ]
