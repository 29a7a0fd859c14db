"""Schedules, previews and the calendar on the command line."""

import json
import re
import shlex
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from openbell.cli import app
from tests.e2e.test_cli import openbell
from tests.fixtures.stack import Stack

PAGE = Path(__file__).parents[2] / "docs/how-to/schedules.md"


@pytest.fixture(scope="module")
def strategy(stack: Stack) -> Generator[str]:
    strategy_id = stack.upload("print('hi')\n", "planned")
    yield strategy_id
    stack.http.delete(f"/python/delete/{strategy_id}", params={"stop": True}).raise_for_status()


def wrong_usage(*arguments: str) -> str:
    """What is said of it, without its frame."""
    done = CliRunner().invoke(app, [*arguments, "--url", "http://127.0.0.1:9"])
    assert done.exit_code == 2, done.output
    return " ".join(done.output.replace("│", " ").split())


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        ("--exchange nse", {"kind": "market", "exchange": "NSE", "start": "open", "stop": None}),
        (
            "--exchange NSE --start open+5m --stop close-10m --days fri,Mon --no-special"
            " --skip 2026-12-24,2026-12-23 --skip 2026-12-22 --open 2026-12-26,2026-12-27",
            {
                "start": "open+5m",
                "stop": "close-10m",
                "weekdays": ["mon", "fri"],
                "special_sessions": False,
                "skip_dates": ["2026-12-22", "2026-12-23", "2026-12-24"],
                "open_dates": ["2026-12-26", "2026-12-27"],
            },
        ),
        (
            "--cron 15_9_*_*_1-5 --zone Asia/Kolkata --for 2h --overlap replace --catch-up skip",
            {
                "kind": "cron",
                "cron": "15 9 * * 1-5",
                "timezone": "Asia/Kolkata",
                "duration": "2h",
                "overlap": "replace",
                "catch_up": "skip",
            },
        ),
        ("--cron 0_10_*_*_* --exchange NSE --stop 15:30", {"kind": "cron", "stop": "15:30"}),
        (
            "--every 15m --exchange NSE --overlap queue --days mon",
            {"kind": "interval", "every": "15m", "overlap": "queue", "weekdays": ["mon"]},
        ),
        (
            "--at 2099-12-01T09:15 --until 2099-12-01T15:30 --zone Asia/Kolkata",
            {"kind": "once", "at": "2099-12-01T09:15:00", "stop": "2099-12-01T15:30:00"},
        ),
        ("--manual --max-runtime 6h", {"kind": "manual", "max_runtime": "6h"}),
    ],
)
def test_every_kind(stack: Stack, strategy: str, words: str, kept: dict[str, Any]) -> None:
    options = [word.replace("_", " ") for word in words.split()]
    answer = json.loads(openbell(stack, "schedule", "planned", *options, "--json"))
    assert answer["strategy"]["schedule"].items() >= kept.items()
    shown = json.loads(openbell(stack, "schedule", "planned", *options, "--preview", "--json"))
    assert set(shown) == {"timezone", "days", "truncated", "warning"}
    assert "planned" in openbell(stack, "schedule", "planned", "--none")
    assert stack.status(strategy)["schedule"] is None


@pytest.mark.parametrize(
    "words",
    [
        words
        for words in re.findall(r"^openbell schedule \w+ (.*)$", PAGE.read_text(), re.MULTILINE)
        if words != "--none"
    ],
)
def test_each_example_of_the_docs(stack: Stack, strategy: str, words: str) -> None:
    openbell(stack, "schedule", "planned", *shlex.split(words), "--preview")
    assert stack.status(strategy)["schedule"] is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "give one of --exchange"),
        ("--start 09:15", "give one of --exchange"),
        ("--always --none", "give one of --always and --none"),
        ("--cron x --every 15m", "give one of --cron and --every"),
        ("--always --exchange NSE", "--exchange does not go with --always"),
        ("--none --zone UTC", "--zone does not go with --none"),
        ("--manual --stop 15:30", "--stop does not go with --manual"),
        ("--at 2026-12-01T09:15 --stop 15:30", "--stop does not go with --at"),
        ("--every 15m --start 09:15", "--start does not go with --every"),
        ("--exchange NSE --overlap skip", "--overlap does not go with --exchange"),
        ("--exchange NSE --for 2h", "--for does not go with --exchange"),
        ("--cron x --days mon", "--days does not go with --cron"),
        ("--exchange NSE --skip 2026-12-01,x", "--skip: write a date like 2026-12-01"),
        ("--exchange NSE --open 1.12.", "--open: write a date like 2026-12-01"),
        ("--none --preview", "--none has nothing to preview"),
    ],
)
def test_what_does_not_go_together(words: str, said: str) -> None:
    """Found before anybody is asked."""
    assert said in wrong_usage("schedule", "planned", *words.split())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--exchange XYZ", "XYZ"),
        ("--exchange NSE --stop 25:00", "stop: write a time of day"),
        ("--every 1s", "every: between 5 s and 7 days"),
        ("--at 2026-12-01T09:15", "name a timezone"),
        ("--exchange NSE --catch-up never", "catch_up"),
    ],
)
def test_what_openbell_refuses(stack: Stack, strategy: str, words: str, said: str) -> None:
    for more in ([], ["--preview"]):
        assert said in openbell(stack, "schedule", "planned", *words.split(), *more, code=1)
    assert stack.status(strategy)["schedule"] is None


def test_a_preview_is_a_table_in_its_zone(stack: Stack, strategy: str) -> None:
    assert "it has no schedule" in openbell(stack, "preview", "planned")
    daily = ("--cron", "15 9 * * *", "--zone", "Asia/Kolkata", "--for", "2h")
    openbell(stack, "schedule", "planned", *daily)
    table = openbell(stack, "preview", "planned", "--days", "3")
    assert "Times are of Asia/Kolkata." in table
    assert table.count("09:15") >= 3
    assert table.count("11:15") >= 3
    market = openbell(stack, "schedule", "planned", "--exchange", "NSE", "--preview")
    assert "weekend" in market
    assert stack.status(strategy)["schedule"]["kind"] == "cron"
    openbell(stack, "schedule", "planned", "--none")
    assert wrong_usage("preview", "planned", "--days", "367")
    assert "there is no strategy 'x'" in openbell(stack, "preview", "x", code=1)


def test_a_preview_of_nothing_yet_and_of_what_is_stopped_by_hand(
    stack: Stack, strategy: str
) -> None:
    openbell(stack, "schedule", "planned", "--at", "2099-12-01T09:15+05:30")
    later = openbell(stack, "preview", "planned", "--days", "3")
    assert later.strip() == "Nothing within 3 days."
    over = openbell(stack, "schedule", "planned", "--at", "2020-12-01T09:15Z", "--preview")
    assert over.split("\n")[0] == "Nothing within 30 days."
    assert "note: its one time is over" in over
    said = openbell(stack, "schedule", "planned", "--at", "2020-12-01T09:15Z", code=1)
    assert "it is over already" in said
    stack.post(f"/python/stop/{strategy}")
    stopped = openbell(stack, "preview", "planned").strip().split("\n")
    assert stopped == [
        "planned is stopped by hand: none of this happens until you resume it",
        "Nothing within 30 days.",
    ]
    shown = json.loads(openbell(stack, "preview", "planned", "--json"))
    assert shown["warning"].startswith(stopped[0])
    openbell(stack, "schedule", "planned", "--none")
    stack.post(f"/python/resume/{strategy}")


def test_what_exchanges_do(stack: Stack) -> None:
    assert "CRYPTO" in openbell(stack, "calendar", "now")
    assert "CRYPTO" not in openbell(stack, "calendar", "now", "NSE", "MCX")
    days = ("--from", "2026-01-23", "--to", "2026-02-02")
    sessions = openbell(stack, "calendar", "sessions", "nse", *days)
    assert "NSE; times are of Asia/Kolkata." in sessions
    lines = [" ".join(line.split()) for line in sessions.splitlines()]
    assert any(line.startswith("Fri 2026-01-23 09:15 15:30 open") for line in lines)
    assert any(line.startswith("Mon 2026-01-26 closed") for line in lines)
    assert any(line.startswith("Sun 2026-02-01 09:15 15:30 special") for line in lines)
    holidays = openbell(stack, "calendar", "holidays", "NSE", "--year", "2026")
    assert "2026-01-26" in holidays
    assert "2026-01-24" not in holidays
    some = openbell(stack, "calendar", "holidays", "NSE", *days)
    assert "2026-01-26" in some
    assert "2026-03" not in some
    assert "MCX" in openbell(stack, "calendar", "exchanges", "mcx")
    assert "no such exchange" in openbell(stack, "calendar", "exchanges", "no-such")
    listed = json.loads(openbell(stack, "calendar", "exchanges", "--json"))
    assert "NSE" in [one["code"] for one in listed["exchanges"]]


def test_an_admin_says_what_a_day_is(stack: Stack) -> None:
    day = ("NSE", "2026-12-23")
    said = ("--open", "18:00-19:15", "--reason", "Muhurat trading")
    assert "NSE Wed 2026-12-23: 18:00-19:15" in openbell(stack, "calendar", "set", *day, *said)
    closed = openbell(stack, "calendar", "set", *day, "--closed", "--reason", "a flood")
    assert "closed (before: 18:00-19:15, Muhurat trading)" in closed
    assert "a flood" in openbell(stack, "calendar", "overrides", "nse")
    assert "as the calendar knows it" in openbell(stack, "calendar", "unset", *day)
    assert "Nobody has said anything." in openbell(stack, "calendar", "overrides")
    openbell(stack, "calendar", "unset", *day, code=1)


@pytest.mark.parametrize(
    "words",
    [
        "set NSE 2026-12-23 --reason x",
        "set NSE 2026-12-23 --reason x --closed --open 18:00-19:15",
        "set NSE 2026-12-23 --reason x --open 6pm",
        "set NSE 2026-12-23 --closed",
        "set NSE 2026-02-30 --reason x --closed",
        "unset NSE today",
        "sessions NSE --from today",
        "holidays NSE --year 1",
        "holidays NSE --year 2026 --from 2026-01-01",
        "holidays NSE --to today",
        "holidays",
    ],
)
def test_wrong_usage_of_the_calendar(words: str) -> None:
    assert wrong_usage("calendar", *words.split())


def test_what_the_calendar_refuses(stack: Stack) -> None:
    for words in (
        "sessions XYZ",
        "now XYZ",
        "sessions NSE --to 9999-12-31",
        "unset XYZ 2026-12-23",
    ):
        openbell(stack, "calendar", *words.split(), code=1)
