"""What a schedule will do, told day by day with its reasons."""

import asyncio
import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import pytest

from openbell.contracts.commands import Preview, PreviewedDay, PreviewSchedule
from openbell.contracts.model import SessionKind
from openbell.contracts.schedules import SCHEDULE
from services.scheduler.days import Known
from services.scheduler.fires import Fires
from services.scheduler.preview import MOST_WINDOWS, preview
from tests.fixtures.sessions import sessions, special

NOW = datetime(2026, 11, 5, 12, tzinfo=UTC)  # a Thursday, 17:30 in Mumbai
DIWALI = date(2026, 11, 10)
MUHURAT = special(date(2026, 11, 8), time(18), time(19))
EVENING = special(
    date(2026, 11, 12), time(17), time(20), kind=SessionKind.SHORTENED, reason="evening only"
)


def previewed(days: int = 10, **spec: Any) -> Preview:
    async def ask(segment: str, first: date, last: date) -> Known:
        assert segment == "NSE"
        return Known(
            sessions(first, last, holidays={DIWALI: "Diwali"}, specials=[MUHURAT, EVENING])
        )

    schedule = SCHEDULE.validate_python(spec)
    since = NOW - timedelta(days=30)
    command = PreviewSchedule(schedule=schedule, since=since, first=NOW, days=days)
    return asyncio.run(preview(command, ask))


def told(preview: Preview) -> dict[int, str]:
    """By the day of November: local hours with the start's reason, or why there is none."""
    return {found.day.day: _words(found) for found in preview.days}


def _words(found: PreviewedDay) -> str:
    if found.skipped is not None:
        return found.skipped
    (window,) = found.windows
    local = window.starts_at + timedelta(hours=5, minutes=30)
    return f"{local:%H:%M} {window.start_reason}, {window.stop_reason}"


def test_each_day_of_a_market_schedule_has_its_reason() -> None:
    found = previewed(kind="market", exchange="NSE", start="09:15", stop="close+5m")
    assert found.timezone == "Asia/Kolkata"
    assert told(found) == {
        6: "09:15 at 09:15, the session's close+5m",
        7: "weekend",
        8: "18:00 the session opens (Muhurat trading), the session's close+5m (Muhurat trading)",
        9: "09:15 at 09:15, the session's close+5m",
        10: "NSE is closed: Diwali",
        11: "09:15 at 09:15, the session's close+5m",
        12: "17:00 the session opens (evening only), the session's close+5m (evening only)",
        13: "09:15 at 09:15, the session's close+5m",
        14: "weekend",
        15: "weekend",
    }
    assert found.warning is not None
    assert "2026-12-31" in found.warning


def test_a_session_outside_of_its_times_is_told_of() -> None:
    found = previewed(kind="market", exchange="NSE", start="09:15", stop="15:30", weekdays=["sun"])
    assert told(found)[8] == "its times lie outside this session's hours: Muhurat trading"
    assert told(found)[9] == "not scheduled on Mondays"


def test_cron_tells_only_of_days_on_which_it_would_come() -> None:
    found = previewed(kind="cron", cron="0 10 * * 2,4", exchange="NSE", duration="1h")
    assert told(found) == {
        10: "NSE is closed: Diwali",
        12: "its times lie outside this session's hours: evening only",
    }


def test_what_never_comes_says_so() -> None:
    found = previewed(kind="once", at="2026-01-01T00:00:00Z")
    assert (found.days, found.warning) == ((), "its one time is over")


def test_more_than_can_be_shown_is_cut_and_said() -> None:
    found = previewed(kind="interval", every="1m", days=30)
    assert found.truncated
    assert sum(len(day.windows) for day in found.days) == MOST_WINDOWS


def test_a_year_of_days_without_sessions_is_told_of_day_by_day(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fires: list[datetime] = []
    after = Fires.after

    def seen(self: Fires, at: datetime) -> Iterator[datetime]:
        for fire in after(self, at):
            fires.append(fire)
            yield fire

    monkeypatch.setattr(Fires, "after", seen)
    found = previewed(366, kind="cron", cron="* * * * 0,6", exchange="NSE", special_sessions=False)
    assert {day.skipped for day in found.days} >= {"weekend"}
    assert len(found.days) < 120
    assert 0 < len(fires) < 600


def test_others_are_served_while_a_preview_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []

    def seen(*_: object) -> Preview:
        threads.append(threading.get_ident())
        return Preview(timezone="UTC", days=())

    monkeypatch.setattr("services.scheduler.preview._preview", seen)
    previewed(kind="always")
    assert threads != [threading.get_ident()]


def test_what_holds_now_comes_first() -> None:
    found = previewed(kind="market", exchange="NSE", start="17:00", stop="23:00")
    assert found.days[0].windows[0].starts_at < NOW < found.days[1].windows[0].starts_at


def test_by_hand_there_is_nothing_to_preview() -> None:
    found = previewed(kind="manual")
    assert (found.days, found.warning) == ((), "only when you start it")
