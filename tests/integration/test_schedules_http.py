"""Schedules of every kind over HTTP, and what they will do."""

import asyncio
import re
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from openbell.contracts.schedules import SCHEDULE, stored
from openbell.db.models import ScheduleRow
from openbell.db.session import Database
from tests.fixtures import databases
from tests.fixtures.people import join
from tests.fixtures.stack import Stack

PAGE = Path(__file__).parents[2] / "docs/how-to/schedules.md"
NSE = {"kind": "market", "exchange": "NSE", "start": "09:15", "stop": "15:30"}


@pytest.fixture(scope="module")
def strategy(stack: Stack) -> Generator[str]:
    strategy_id = stack.upload("print('hi')\n", "Scheduled")
    yield strategy_id
    stack.http.delete(f"/python/delete/{strategy_id}", params={"stop": True}).raise_for_status()


@pytest.fixture(autouse=True)
def _has_none(stack: Stack, strategy: str) -> Generator[None]:
    yield
    stack.http.delete(f"/python/schedule/{strategy}").raise_for_status()


def kept(stack: Stack, strategy: str, schedule: dict[str, Any]) -> dict[str, Any]:
    answer = stack.post(f"/python/schedule/{strategy}", json=schedule)
    assert stack.status(strategy)["schedule"] == answer["strategy"]["schedule"]
    assert "takes effect later" not in (answer["note"] or "")
    return answer["strategy"]["schedule"]


@pytest.mark.parametrize(
    "schedule",
    [
        {"kind": "manual", "max_runtime": "6h"},
        {"kind": "once", "at": "2099-12-01T09:15:00+05:30", "stop": "2099-12-01T15:30:00+05:30"},
        {"kind": "once", "at": "2099-12-01T09:15:00", "timezone": "Asia/Kolkata"},
        {"kind": "interval", "every": "15m", "exchange": "NSE", "overlap": "queue"},
        {"kind": "cron", "cron": "15 9 * * 1-5", "timezone": "Asia/Kolkata", "duration": "1h30m"},
        {"kind": "cron", "cron": "0 10 * * *", "exchange": "MCX", "stop": "23:00"},
        {"kind": "market", "exchange": "NSE", "start": "open+5m", "stop": "close-10m"},
        {**NSE, "weekdays": ["mon", "fri"], "skip_dates": ["2026-12-23"], "catch_up": "skip"},
        {**NSE, "open_dates": ["2026-12-26"], "special_sessions": False},
    ],
    ids=lambda schedule: schedule["kind"],
)
def test_every_kind_is_kept_as_it_was_written(
    stack: Stack, strategy: str, schedule: dict[str, Any]
) -> None:
    assert kept(stack, strategy, schedule).items() >= schedule.items()


def test_all_the_time(stack: Stack, strategy: str) -> None:
    """Set on what was stopped by hand, it starts nothing."""
    stack.post(f"/python/stop/{strategy}")
    assert kept(stack, strategy, {"kind": "always"})["kind"] == "always"


@pytest.mark.parametrize(
    "schedule",
    [
        {"kind": "market"},
        {"kind": "cron", "cron": "0 10 * * *"},
        {"kind": "interval", "every": "15m"},
    ],
    ids=lambda schedule: schedule["kind"],
)
def test_an_exchange_is_kept_by_its_code(
    stack: Stack, strategy: str, schedule: dict[str, Any]
) -> None:
    code = stack.http.get("/calendar/sessions", params={"exchange": "NYSE"}).json()["segment"]
    for name in ("xnys", "NYSE", " nyse "):
        assert kept(stack, strategy, {**schedule, "exchange": name})["exchange"] == code


@pytest.mark.parametrize(
    ("schedule", "field"),
    [
        ({**NSE, "stop": "25:00"}, "stop"),
        ({**NSE, "stop": "09:15"}, "stop"),
        ({**NSE, "stop": "close+25h"}, "stop"),
        ({**NSE, "weekdays": ["monday"]}, "weekdays.0"),
        ({**NSE, "skip_dates": ["2026-02-30"]}, "skip_dates.0"),
        ({**NSE, "max_runtime": "0s"}, "max_runtime"),
        ({**NSE, "timezone": "Mars/Olympus"}, "timezone"),
        ({**NSE, "stopp": "15:30"}, "stopp"),
        ({"kind": "market"}, "exchange"),
        ({"kind": "market", "exchange": "XYZ"}, "exchange"),
        ({"kind": "once"}, "at"),
        ({"kind": "once", "at": "2026-12-01T09:15"}, "at"),
        ({"kind": "once", "at": "0001-01-01T00:00:00+14:00"}, "at"),
        ({"kind": "once", "at": "9999-12-31T23:59:59-12:00"}, "at"),
        ({"kind": "once", "at": "2026-12-02T00:00Z", "stop": "2026-12-01T00:00Z"}, "stop"),
        ({"kind": "cron", "cron": "61 9 * * *", "timezone": "UTC"}, "cron"),
        ({"kind": "cron", "cron": "0 0 30 2 *", "timezone": "UTC"}, "cron"),
        ({"kind": "cron", "cron": "15 9 * * *"}, "timezone"),
        ({"kind": "cron", "cron": "15 9 * * *", "exchange": "XYZ"}, "exchange"),
        ({"kind": "interval", "every": "1s"}, "every"),
        ({"kind": "interval", "every": "15m", "exchange": "XYZ"}, "exchange"),
        ({"kind": "interval", "every": "15m", "overlap": "both"}, "overlap"),
        ({"kind": "always", "exchange": "NSE"}, "exchange"),
        ({**NSE, "timezone": "localtime"}, "timezone"),
        ({**NSE, "timezone": "posix/Asia/Kolkata"}, "timezone"),
        ({"kind": "weekly"}, "kind"),
        ({}, "kind"),
    ],
)
def test_a_wrong_field_is_named_and_the_old_schedule_stays(
    stack: Stack, strategy: str, schedule: dict[str, Any], field: str
) -> None:
    before = kept(stack, strategy, NSE)
    for path in (f"/python/schedule/{strategy}", "/python/preview"):
        answer = stack.http.post(path, json=schedule)
        assert answer.status_code == 422, answer.text
        unknown = schedule.get("exchange") == "XYZ"
        code = "unknown_exchange" if unknown else "invalid_request"
        assert answer.json()["code"] == code
        assert [one["field"] for one in answer.json()["errors"]] == [field]
    assert stack.status(strategy)["schedule"] == before


DATES = [f"20{year}-01-{day:02}" for year in range(10, 40) for day in range(1, 21)]
KINDS = "say which kind: manual, always, once, interval, cron or market"


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ({}, KINDS),
        ({"kind": "weekly"}, KINDS),
        ([], "write a JSON object"),
        ({**NSE, "weekdays": "mon"}, "write a list"),
        ({**NSE, "skip_dates": "2026-12-01"}, "write a list"),
        ({**NSE, "skip_dates": ["tomorrow"]}, "write a date like 2026-12-01"),
        ({**NSE, "skip_dates": DATES}, "at most 400 dates"),
        ({**NSE, "max_runtime": "long"}, "write a duration like 90s, 15m, 1h30m or 7d"),
        ({"kind": "interval", "every": "10000h"}, "between 5 s and 7 days"),
        ({"kind": "interval", "every": "7d1s"}, "between 5 s and 7 days"),
        ({"kind": "interval", "every": f"{'9' * 9000}d"}, "between 5 s and 7 days"),
    ],
    ids=str,
)
def test_what_is_wrong_is_said_in_plain_words(stack: Stack, schedule: Any, message: str) -> None:
    answer = stack.http.post("/python/preview", json=schedule)
    assert answer.status_code == 422, answer.text
    assert [one["message"] for one in answer.json()["errors"]] == [message]


@pytest.mark.parametrize("more", [{}, {"stop": "2020-12-01T15:30:00Z"}], ids=["start", "stop"])
def test_what_is_over_is_refused(stack: Stack, strategy: str, more: dict[str, Any]) -> None:
    over = {"kind": "once", "at": "2020-12-01T09:15:00Z", **more}
    before = kept(stack, strategy, NSE)
    answer = stack.http.post(f"/python/schedule/{strategy}", json=over)
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"] == [{"field": "at", "message": "it is over already"}]
    assert stack.status(strategy)["schedule"] == before
    assert "its one time is over" in stack.post("/python/preview", json=over)["warning"]


def test_what_has_begun_is_not_over(stack: Stack, strategy: str) -> None:
    stack.post(f"/python/stop/{strategy}")
    begun = {"kind": "once", "at": "2020-12-01T09:15:00Z", "stop": "2099-12-01T09:15:00Z"}
    assert kept(stack, strategy, begun)["at"] == "2020-12-01T09:15:00Z"
    stopped = "Scheduled is stopped by hand: none of this happens until you resume it"
    found = stack.http.get(f"/python/preview/{strategy}").json()
    assert found["warning"] == stopped
    kept(stack, strategy, {"kind": "once", "at": "2099-12-01T09:15:00Z"})
    later = stack.http.get(f"/python/preview/{strategy}").json()
    assert later["warning"].startswith(f"{stopped}; ")


def test_days_are_a_duration(stack: Stack, strategy: str) -> None:
    for written, told in {"7d": "168h", "1d12h": "36h", "0d5s": "5s"}.items():
        schedule = {"kind": "interval", "every": written}
        stack.post("/python/preview", params={"days": 1}, json=schedule)
        manual = kept(stack, strategy, {"kind": "manual", "max_runtime": written})
        assert manual["max_runtime"] == told


@pytest.mark.parametrize(
    "wrong",
    [
        {**NSE, "weekdays": [f"day{n}" for n in range(50_000)]},
        {**NSE, "x" * 500_000: 1},
        {"kind": "x" * 500_000},
    ],
    ids=["many fields", "a long field", "a long kind"],
)
def test_a_refusal_is_short_whatever_was_sent(
    stack: Stack, strategy: str, wrong: dict[str, Any]
) -> None:
    answer = stack.http.post(f"/python/schedule/{strategy}", json=wrong)
    assert answer.status_code == 422
    assert len(answer.content) < 20_000


def test_without_a_schedule_there_is_nothing_to_preview(stack: Stack, strategy: str) -> None:
    answer = stack.http.get(f"/python/preview/{strategy}").json()
    assert (answer["days"], answer["warning"]) == ([], "it has no schedule")


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"kind": "lunar", "phase": "full"}, "say which kind: manual, always"),
        ({"kind": "market", "exchange": "NSE", "start": "dawn"}, "write a time"),
        ({}, "say which kind: manual, always"),
    ],
    ids=["another kind", "another way to write a time", "nothing"],
)
def test_what_another_release_kept_is_not_previewed_and_can_be_set_anew(
    stack: Stack, strategy: str, spec: dict[str, Any], why: str
) -> None:
    kept(stack, strategy, NSE)
    as_another_release(stack, strategy, spec)
    answer = stack.http.get(f"/python/preview/{strategy}")
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert (found["timezone"], found["days"], found["truncated"]) == ("UTC", [], False)
    assert found["warning"].startswith(f"its schedule cannot be read: {why}")
    assert found["warning"].endswith("; set it anew")
    kept(stack, strategy, NSE)
    again = stack.http.get(f"/python/preview/{strategy}", params={"days": 10}).json()
    assert again["timezone"] == "Asia/Kolkata"
    assert again["days"]


def as_another_release(stack: Stack, strategy: str, spec: dict[str, Any]) -> None:
    async def write() -> None:
        database = Database(databases.migrated(stack.home / "data" / "openbell.db"))
        async with database.write() as session:
            row = await session.get_one(ScheduleRow, strategy)
            row.spec = spec
            session.add(row)
        await database.close()

    asyncio.run(write())


def test_what_a_kept_schedule_will_do(stack: Stack, strategy: str) -> None:
    kept(stack, strategy, NSE)
    found = stack.http.get(f"/python/preview/{strategy}", params={"days": 10}).json()
    assert found["timezone"] == "Asia/Kolkata"
    assert 10 <= len(found["days"]) <= 11
    windows = [window for day in found["days"] for window in day["windows"]]
    assert {window["starts_at"][11:] for window in windows} <= {"03:45:00Z"}
    assert all(window["start_reason"] and window["stop_reason"] for window in windows)
    assert any(day["skipped"] for day in found["days"])


def test_what_a_schedule_would_do_before_it_is_set(stack: Stack, strategy: str) -> None:
    schedule = {"kind": "cron", "cron": "15 9 * * *", "timezone": "Asia/Kolkata", "duration": "2h"}
    found = stack.post("/python/preview", params={"days": 3}, json=schedule)
    windows = [window for day in found["days"] for window in day["windows"]]
    assert 3 <= len(windows) <= 4
    assert windows[0]["starts_at"].endswith("T03:45:00Z")
    assert windows[0]["stops_at"].endswith("T05:45:00Z")
    assert stack.status(strategy)["schedule"] is None


def test_the_densest_schedule_for_the_longest_time(stack: Stack) -> None:
    schedule = {"kind": "interval", "every": "5s"}
    found = stack.post("/python/preview", params={"days": 366}, json=schedule)
    assert found["truncated"]


@pytest.mark.parametrize("dates", [["0001-01-01"], ["9999-12-31"], ["0001-01-01", "9999-12-31"]])
def test_dates_at_the_end_of_time(stack: Stack, strategy: str, dates: list[str]) -> None:
    for field in ("skip_dates", "open_dates"):
        schedule = {**NSE, field: dates}
        assert kept(stack, strategy, schedule)[field] == dates
        answer = stack.http.get(f"/python/preview/{strategy}", params={"days": 366})
        assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("days", ["0", "367", "-1", "x", "1e9", ""])
def test_previews_have_their_bounds(stack: Stack, strategy: str, days: str) -> None:
    get = stack.http.get(f"/python/preview/{strategy}", params={"days": days})
    post = stack.http.post("/python/preview", params={"days": days}, json=NSE)
    for answer in (get, post):
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
        assert answer.json()["errors"][0]["field"] == "days"


def test_reading_is_enough_to_ask(stack: Stack, strategy: str) -> None:
    made = stack.post("/auth/tokens", json={"name": "reader", "scopes": ["read"]})
    with stack.client(made["value"]) as reader:
        assert reader.get(f"/python/preview/{strategy}").status_code == 200
        assert reader.post("/python/preview", json=NSE).status_code == 200
        refused = reader.post(f"/python/schedule/{strategy}", json=NSE)
        assert refused.json()["code"] == "not_allowed"
    viewer = join(stack, "vic", "viewer")
    assert viewer.http.post("/python/preview", json=NSE).status_code == 200
    assert viewer.http.get(f"/python/preview/{strategy}").status_code == 404
    viewer.close()


def test_a_view_has_what_to_know_of_its_schedule(stack: Stack, strategy: str) -> None:
    assert stack.status(strategy)["warning"] is None


def test_each_example_of_the_docs_is_a_schedule() -> None:
    examples = re.findall(r"^\{.*\}$", PAGE.read_text(), re.MULTILINE)
    kinds = [stored(SCHEDULE.validate_json(example))["kind"] for example in examples]
    assert sorted(kinds) == ["always", "cron", "interval", "manual", "market", "once"]
