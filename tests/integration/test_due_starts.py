"""Due starts, before a real database: prepared ahead, waited for, missed, skipped, taken back."""

from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from openbell.contracts.model import ExitReason, RunState
from openbell.db.models import Occurrence, Run, ScheduleRow, Slot, Strategy
from services.scheduler import agenda
from services.scheduler.slots import Slots
from tests.integration import test_slots
from tests.integration.test_slots import (
    EVENING_BEFORE,
    HALF_PAST_THREE,
    LEAD,
    MARKET,
    NINE_FIFTEEN,
    Desk,
    add_strategy,
    desk,
    scenario,
)

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)


async def started(scheduler: Desk, epoch: int = 1, at: Any = NINE_FIFTEEN) -> None:
    await scheduler.report(at, epoch, RunState.RUNNING)


async def ended(scheduler: Desk, epoch: int, at: Any, reason: ExitReason) -> None:
    await scheduler.report(at, epoch, RunState.EXITED, reason=reason, exit_code=0)


async def look(scheduler: Desk, now: datetime) -> None:
    """Because the calendar or the clock has changed, which shows in no row."""
    await scheduler.at(now, lambda slots: slots.settle(["s"]))


async def occurrences(scheduler: Desk) -> list[tuple[str, str]]:
    rows = sorted(await scheduler.rows(Occurrence), key=lambda row: (row.instant, row.action))
    return [(row.action, row.state) for row in rows]


# ---- prepared ahead


@scenario
async def test_the_more_are_due_at_one_instant_the_earlier_they_are_prepared(
    tmp_path: Path,
) -> None:
    """A thousand would not be ready within the lead that is enough for some."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(agenda, "PREPARING_ONE", MINUTE)
        await leads_grow_with_number(tmp_path)


@scenario
async def test_a_preparation_that_fails_early_is_tried_again_though_the_lead_has_shrunk(
    tmp_path: Path,
) -> None:
    """Of a thousand at one instant: as soon as all are granted, some seconds are lead enough."""
    async with desk(tmp_path, MARKET) as scheduler:
        scheduler.runner_appears()
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(test_slots, "LEAD", MINUTE)
            await scheduler.settle(NINE_FIFTEEN - MINUTE)
        assert (await scheduler.one(Run)).epoch == 1
        await ended(scheduler, 1, NINE_FIFTEEN - 40 * SECOND, ExitReason.START_FAILED)
        await look(scheduler, NINE_FIFTEEN - 30 * SECOND)
        assert len(await scheduler.rows(Run)) == 1
        await look(scheduler, NINE_FIFTEEN - LEAD)
        first, second = sorted(await scheduler.rows(Run), key=lambda run: run.epoch)
        assert (first.due_at, second.due_at) == (NINE_FIFTEEN, NINE_FIFTEEN)


async def leads_grow_with_number(folder: Path) -> None:
    async with desk(folder, MARKET) as scheduler:
        for other in ("t", "u"):
            await add_strategy(scheduler.database, other, MARKET)
        await add_strategy(scheduler.database, "v", {**MARKET, "start": "09:17"})

        async def lead(now: datetime, least: timedelta = LEAD) -> timedelta:
            async with scheduler.database.read() as session:
                return await agenda.lead_now(session, now, least)

        assert await lead(NINE_FIFTEEN - 4 * MINUTE) == LEAD
        early = NINE_FIFTEEN - 10 * MINUTE
        await scheduler.at(early, lambda slots: slots.settle(["s", "t", "u", "v"]))
        assert await lead(early) == LEAD
        assert await lead(NINE_FIFTEEN - 4 * MINUTE) == 3 * MINUTE
        assert await lead(NINE_FIFTEEN - 4 * MINUTE, timedelta()) == timedelta()
        assert await lead(NINE_FIFTEEN) == MINUTE
        scheduler.runner_appears()
        for strategy in ("s", "t"):
            ready = NINE_FIFTEEN - LEAD
            await scheduler.at(ready, lambda slots, one=strategy: slots.settle([one]))
        assert await lead(NINE_FIFTEEN - LEAD) == MINUTE


@scenario
async def test_a_start_is_granted_ahead_and_only_once(tmp_path: Path) -> None:
    async with desk(tmp_path, MARKET) as scheduler:
        scheduler.runner_appears()
        early = await scheduler.settle(NINE_FIFTEEN - LEAD - SECOND)
        assert early.wake_at[0] == NINE_FIFTEEN - LEAD
        assert await scheduler.rows(Run) == []
        settled = await scheduler.settle(NINE_FIFTEEN - LEAD)
        assert settled.dispatch is not None
        assert getattr(settled.dispatch.command, "start_at", None) == NINE_FIFTEEN
        for seconds in range(1, 12):
            await scheduler.settle(NINE_FIFTEEN - LEAD + seconds * SECOND)
        run = await scheduler.one(Run)
        assert (run.due_at, run.granted_at) == (NINE_FIFTEEN, NINE_FIFTEEN - LEAD)
        slot = await scheduler.one(Slot)
        assert slot.next_start == NINE_FIFTEEN + timedelta(days=1)
        assert slot.next_stop == HALF_PAST_THREE
        await started(scheduler, at=NINE_FIFTEEN + timedelta(milliseconds=20))
        assert (await scheduler.one(Occurrence)).late_s == pytest.approx(0.02)
        assert (await scheduler.events()).count("run_granted") == 1


@scenario
async def test_a_day_that_is_closed_at_the_last_moment_takes_the_start_back(
    tmp_path: Path,
) -> None:
    async with desk(tmp_path, MARKET) as scheduler:
        scheduler.runner_appears()
        await scheduler.settle(NINE_FIFTEEN - 5 * SECOND)
        scheduler.book.holidays = {date(2026, 11, 19): "closed by an admin"}
        await look(scheduler, NINE_FIFTEEN - 4 * SECOND)
        run = await scheduler.one(Run)
        assert run.stop_reason == ExitReason.STOPPED_BY_SCHEDULE
        await ended(scheduler, 1, NINE_FIFTEEN - 3 * SECOND, ExitReason.STOPPED_BY_SCHEDULE)
        slot = await scheduler.one(Slot)
        assert slot.outlook_reason == "NSE is closed: closed by an admin"
        assert await occurrences(scheduler) == [("start", "skipped")]
        scheduler.book.holidays = {}  # and it was a mistake
        await look(scheduler, NINE_FIFTEEN + SECOND)
        assert (await scheduler.one(Slot)).epoch == 2


@scenario
async def test_a_manual_stop_in_the_last_second_wins(tmp_path: Path) -> None:
    async with desk(tmp_path, MARKET) as scheduler:
        scheduler.runner_appears()
        await scheduler.settle(NINE_FIFTEEN - 5 * SECOND)
        await scheduler.at(NINE_FIFTEEN - SECOND, lambda slots: slots.stop("s"))
        await ended(scheduler, 1, NINE_FIFTEEN - SECOND, ExitReason.STOPPED_BY_USER)
        for moment in (NINE_FIFTEEN, NINE_FIFTEEN + MINUTE, HALF_PAST_THREE + timedelta(days=3)):
            await scheduler.settle(moment)
        assert (await scheduler.one(Slot)).epoch == 1
        assert "start_missed" not in await scheduler.events()


@scenario
async def test_a_preparation_that_fails_is_retried_for_the_same_instant(tmp_path: Path) -> None:
    async with desk(tmp_path, MARKET) as scheduler:
        scheduler.runner_appears()
        await scheduler.settle(NINE_FIFTEEN - 9 * SECOND)
        await ended(scheduler, 1, NINE_FIFTEEN - 8 * SECOND, ExitReason.START_FAILED)
        await scheduler.settle(NINE_FIFTEEN - 6 * SECOND)
        latest = max(await scheduler.rows(Run), key=lambda run: run.epoch)
        assert (latest.epoch, latest.due_at, latest.cause) == (2, NINE_FIFTEEN, "schedule")
        await started(scheduler, 2)
        assert await occurrences(scheduler) == [("start", "done")]


# ---- failures are loud


@scenario
async def test_a_start_that_fails_until_its_window_ends_was_missed(tmp_path: Path) -> None:
    async with desk(tmp_path, MARKET) as scheduler:
        scheduler.runner_appears()
        await scheduler.settle(NINE_FIFTEEN)
        await scheduler.report(
            NINE_FIFTEEN + SECOND,
            1,
            RunState.EXITED,
            reason=ExitReason.START_FAILED,
            detail="the environment could not be built: no such package",
        )
        assert (await scheduler.one(Slot)).retry_at is not None
        await scheduler.settle(HALF_PAST_THREE)
        assert "start_missed" in await scheduler.events()
        occurrence = await scheduler.one(Occurrence)
        assert (occurrence.state, occurrence.detail) == (
            "missed",
            "the environment could not be built: no such package",
        )


@scenario
async def test_an_unknown_calendar_is_said_at_once_and_when_it_is_over(tmp_path: Path) -> None:
    async with desk(tmp_path, MARKET) as scheduler:
        scheduler.runner_appears()
        await scheduler.settle(NINE_FIFTEEN - MINUTE)
        scheduler.book.away = True
        await look(scheduler, NINE_FIFTEEN - 30 * SECOND)
        assert "start_delayed" not in await scheduler.events()
        await scheduler.settle(NINE_FIFTEEN)
        slot = await scheduler.one(Slot)
        assert (slot.outlook, slot.outlook_reason) == ("unknown", "the calendar does not answer")
        await scheduler.settle(NINE_FIFTEEN + 15 * SECOND)
        assert (await scheduler.events()).count("start_delayed") == 1
        scheduler.book.away = False
        await scheduler.settle(NINE_FIFTEEN + 30 * SECOND)
        run = await scheduler.one(Run)
        assert run.due_at == NINE_FIFTEEN
        assert (await scheduler.events())[-2:] == ["run_granted", "plan_changed"]


@scenario
async def test_each_start_of_a_long_outage_was_missed(tmp_path: Path) -> None:
    """Openbell was off from Wednesday evening until Monday evening."""
    async with desk(tmp_path, MARKET) as scheduler:
        scheduler.runner_appears()
        await scheduler.settle(EVENING_BEFORE + MINUTE)
        await scheduler.settle(HALF_PAST_THREE + timedelta(days=4))
        missed = await scheduler.rows(Occurrence)
        assert sorted((row.instant - NINE_FIFTEEN).days for row in missed) == [0, 1, 4]
        assert {(row.state, row.detail) for row in missed} == {
            ("missed", "Openbell was not running")
        }
        assert (await scheduler.events()).count("start_missed") == 3
        await scheduler.settle(HALF_PAST_THREE + timedelta(days=4, minutes=1))
        assert (await scheduler.events()).count("start_missed") == 3


@scenario
async def test_a_late_start_that_is_unwanted_is_missed_and_says_why(tmp_path: Path) -> None:
    async with desk(tmp_path, {**MARKET, "catch_up": "skip"}) as scheduler:
        await scheduler.settle(NINE_FIFTEEN + 10 * SECOND)
        assert (await scheduler.one(Slot)).waiting == "no runner is connected"
        scheduler.runner_appears()
        await scheduler.settle(NINE_FIFTEEN + 2 * MINUTE)
        assert await scheduler.rows(Run) == []
        assert await occurrences(scheduler) == [("start", "missed")]
        slot = await scheduler.one(Slot)
        assert slot.outlook == "paused"
        assert "its start was missed (no runner is connected)" in slot.outlook_reason
        await scheduler.settle(NINE_FIFTEEN + timedelta(days=1))
        assert (await scheduler.one(Slot)).epoch == 1


@scenario
async def test_a_schedule_that_cannot_be_read_forbids_no_stop(tmp_path: Path) -> None:
    async with desk(tmp_path, MARKET) as scheduler:
        scheduler.runner_appears()
        await scheduler.settle(NINE_FIFTEEN)
        await started(scheduler)
        async with scheduler.database.write() as session:
            row = await session.get_one(ScheduleRow, "s")
            row.spec = {"kind": "of another release"}
            session.add(row)
        await scheduler.settle(NINE_FIFTEEN + MINUTE)
        assert "cannot be read" in (await scheduler.one(Slot)).outlook_reason
        assert (await scheduler.one(Run)).stop_reason is None
        await scheduler.at(NINE_FIFTEEN + 2 * MINUTE, lambda slots: slots.stop("s"))
        assert (await scheduler.one(Run)).stop_reason == ExitReason.STOPPED_BY_USER


# ---- intervals, and how long a run may last

EVERY_10_MIN = {"kind": "interval", "every": "10m", "exchange": "NSE"}
TEN = timedelta(minutes=10)


@scenario
async def test_a_start_that_finds_the_run_before_is_skipped_and_says_so(tmp_path: Path) -> None:
    async with desk(tmp_path, EVERY_10_MIN) as scheduler:
        scheduler.runner_appears()
        await scheduler.settle(NINE_FIFTEEN)
        await started(scheduler)
        await scheduler.settle(NINE_FIFTEEN + TEN)
        assert (await scheduler.events()).count("start_skipped") == 1
        await ended(scheduler, 1, NINE_FIFTEEN + TEN + MINUTE, ExitReason.COMPLETED)
        await scheduler.settle(NINE_FIFTEEN + TEN + MINUTE)
        assert (await scheduler.one(Slot)).epoch == 1
        await scheduler.settle(NINE_FIFTEEN + 2 * TEN)
        assert (await scheduler.one(Slot)).epoch == 2
        assert await occurrences(scheduler) == [
            ("start", "done"),
            ("start", "skipped"),
            ("start", "granted"),
        ]


@scenario
async def test_a_queued_start_begins_when_the_run_before_has_ended(tmp_path: Path) -> None:
    async with desk(tmp_path, {**EVERY_10_MIN, "overlap": "queue"}) as scheduler:
        scheduler.runner_appears()
        await scheduler.settle(NINE_FIFTEEN)
        await started(scheduler)
        await scheduler.settle(NINE_FIFTEEN + TEN)
        await scheduler.settle(NINE_FIFTEEN + 2 * TEN)  # the first in the queue gives way
        assert (await scheduler.events()).count("start_skipped") == 1
        await ended(scheduler, 1, NINE_FIFTEEN + 2 * TEN + MINUTE, ExitReason.COMPLETED)
        latest = max(await scheduler.rows(Run), key=lambda run: run.epoch)
        assert (latest.epoch, latest.due_at) == (2, NINE_FIFTEEN + 2 * TEN)


@scenario
async def test_a_start_may_replace_the_run_before(tmp_path: Path) -> None:
    async with desk(tmp_path, {**EVERY_10_MIN, "overlap": "replace"}) as scheduler:
        scheduler.runner_appears()
        await scheduler.settle(NINE_FIFTEEN)
        await started(scheduler)
        await scheduler.settle(NINE_FIFTEEN + TEN)
        assert (await scheduler.one(Run)).stop_reason == ExitReason.STOPPED_BY_SCHEDULE
        await ended(scheduler, 1, NINE_FIFTEEN + TEN + SECOND, ExitReason.STOPPED_BY_SCHEDULE)
        latest = max(await scheduler.rows(Run), key=lambda run: run.epoch)
        assert (latest.epoch, latest.due_at) == (2, NINE_FIFTEEN + TEN)


@scenario
async def test_a_run_ends_at_its_time_limit(tmp_path: Path) -> None:
    async with desk(tmp_path, {"kind": "manual", "max_runtime": "1h"}) as scheduler:
        scheduler.runner_appears()
        await scheduler.at(NINE_FIFTEEN, lambda slots: slots.start("s"))
        await started(scheduler)
        hour = NINE_FIFTEEN + timedelta(hours=1)
        settled = await scheduler.settle(hour - SECOND)
        assert settled.wake_at == (hour,)
        await scheduler.settle(hour)
        assert (await scheduler.one(Run)).stop_reason == ExitReason.TIME_LIMIT
        await ended(scheduler, 1, hour + SECOND, ExitReason.TIME_LIMIT)
        slot = await scheduler.one(Slot)
        assert (slot.intent, slot.retry_at, slot.failures) == ("auto", None, 0)


# ---- by hand


@scenario
async def test_a_manual_stop_holds_through_every_window_until_it_is_resumed(
    tmp_path: Path,
) -> None:
    async with desk(tmp_path, MARKET) as scheduler:
        scheduler.runner_appears()
        await scheduler.at(NINE_FIFTEEN - MINUTE, lambda slots: slots.stop("s"))
        again = Desk(scheduler.database)  # another scheduler, that remembers nothing
        again.runner_appears()
        for days in (0, 1, 4):
            await again.settle(NINE_FIFTEEN + timedelta(days=days))
        assert await again.rows(Run) == []
        resumed = await again.at(
            NINE_FIFTEEN + timedelta(days=4, minutes=1), lambda slots: slots.resume("s")
        )
        assert resumed.standing.run_id == "s-1"


@scenario
async def test_a_start_outside_the_window_runs_and_says_so(tmp_path: Path) -> None:
    async with desk(tmp_path, MARKET) as scheduler:
        scheduler.runner_appears()

        async def start(slots: Slots) -> Any:
            return await slots.start("s")

        settled = await scheduler.at(EVENING_BEFORE, start)
        assert settled.standing.run_id == "s-1"
        assert "outside its window" in settled.standing.note
        assert settled.dispatch.command.start_at is None
        await started(scheduler, at=EVENING_BEFORE)
        await scheduler.settle(NINE_FIFTEEN)
        assert (await scheduler.one(Slot)).epoch == 1  # it serves the window too
        assert await occurrences(scheduler) == [("start", "done")]


# ---- clocks


@scenario
async def test_a_clock_that_is_set_back_doubles_nothing(tmp_path: Path) -> None:
    async with desk(tmp_path, MARKET) as scheduler:
        scheduler.runner_appears()
        await scheduler.settle(NINE_FIFTEEN)
        await started(scheduler)
        back = NINE_FIFTEEN + MINUTE - timedelta(hours=1)
        await look(scheduler, back)
        run = await scheduler.one(Run)
        assert run.stop_reason == ExitReason.STOPPED_BY_SCHEDULE  # it is before its window
        await ended(scheduler, 1, back + SECOND, ExitReason.STOPPED_BY_SCHEDULE)
        await scheduler.settle(NINE_FIFTEEN)
        assert (await scheduler.one(Slot)).epoch == 2  # it runs again, at its time by this clock
        assert (await scheduler.events()).count("start_missed") == 0


@scenario
async def test_a_clock_that_is_set_forward_catches_up(tmp_path: Path) -> None:
    async with desk(tmp_path, MARKET) as scheduler:
        scheduler.runner_appears()
        await scheduler.settle(NINE_FIFTEEN - timedelta(minutes=30))
        await scheduler.settle(NINE_FIFTEEN + timedelta(minutes=30))
        run = await scheduler.one(Run)
        assert (run.due_at, run.cause) == (NINE_FIFTEEN, "schedule")


# ---- what a review found


@scenario
async def test_what_began_long_ago_is_still_wanted(tmp_path: Path) -> None:
    """Around the clock, for 15 days; then its host is restarted."""
    async with desk(tmp_path, {"kind": "always"}) as scheduler:
        scheduler.runner_appears()
        await scheduler.settle(NINE_FIFTEEN)
        await started(scheduler)
        later = NINE_FIFTEEN + timedelta(days=15)
        await scheduler.settle(later)
        assert (await scheduler.one(Run)).stop_reason is None
        await ended(scheduler, 1, later, ExitReason.HOST_SHUTDOWN)
        assert (await scheduler.one(Slot)).epoch == 2


@scenario
async def test_a_long_once_is_not_over_before_its_stop(tmp_path: Path) -> None:
    spec = {"kind": "once", "at": "2026-11-19T09:15:00+05:30", "stop": "2026-12-31T09:15:00+05:30"}
    async with desk(tmp_path, spec) as scheduler:
        scheduler.runner_appears()
        await scheduler.settle(NINE_FIFTEEN)
        await started(scheduler)
        await scheduler.settle(NINE_FIFTEEN + timedelta(days=20))
        assert (await scheduler.one(Run)).stop_reason is None
        await scheduler.settle(NINE_FIFTEEN + timedelta(days=42))
        assert (await scheduler.one(Run)).stop_reason == ExitReason.STOPPED_BY_SCHEDULE


@scenario
async def test_windows_without_a_gap_end_each_run_and_begin_the_next(tmp_path: Path) -> None:
    hourly = {"kind": "cron", "cron": "15 * * * *", "timezone": "Asia/Kolkata", "duration": "1h"}
    async with desk(tmp_path, hourly) as scheduler:
        scheduler.runner_appears()
        await scheduler.settle(NINE_FIFTEEN)
        await started(scheduler)
        hour = NINE_FIFTEEN + timedelta(hours=1)
        assert (await scheduler.one(Slot)).next_stop == hour
        await scheduler.settle(hour)
        assert (await scheduler.one(Run)).stop_reason == ExitReason.STOPPED_BY_SCHEDULE
        await ended(scheduler, 1, hour + SECOND, ExitReason.STOPPED_BY_SCHEDULE)
        latest = max(await scheduler.rows(Run), key=lambda run: run.epoch)
        assert (latest.epoch, latest.due_at) == (2, hour)
        assert "start_skipped" not in await scheduler.events()


@scenario
async def test_a_retry_outlives_a_moment_without_a_calendar(tmp_path: Path) -> None:
    async with desk(tmp_path, MARKET) as scheduler:
        scheduler.runner_appears()
        await scheduler.settle(NINE_FIFTEEN)
        await started(scheduler)
        await scheduler.report(
            NINE_FIFTEEN + MINUTE, 1, RunState.EXITED, exit_code=1, reason=ExitReason.CRASHED
        )
        scheduler.book.away = True
        await look(scheduler, NINE_FIFTEEN + MINUTE + SECOND / 2)
        scheduler.book.away = False
        await look(scheduler, NINE_FIFTEEN + 2 * MINUTE)
        assert (await scheduler.one(Slot)).epoch == 2


@scenario
async def test_a_start_that_skips_lateness_is_missed_once_and_for_all(tmp_path: Path) -> None:
    async with desk(tmp_path, {**MARKET, "catch_up": "skip"}) as scheduler:
        scheduler.runner_appears()
        await scheduler.settle(NINE_FIFTEEN)
        moment = NINE_FIFTEEN
        for epoch in range(1, 12):
            moment += 20 * SECOND
            if (await scheduler.one(Slot)).epoch < epoch:
                break
            await ended(scheduler, epoch, moment, ExitReason.START_FAILED)
            await scheduler.settle(moment + 15 * SECOND)
        epochs = (await scheduler.one(Slot)).epoch
        await scheduler.settle(NINE_FIFTEEN + 10 * MINUTE)
        assert (await scheduler.one(Slot)).epoch == epochs
        assert (await scheduler.events()).count("start_missed") == 1
        assert await occurrences(scheduler) == [("start", "missed")]


@scenario
async def test_a_clock_that_was_wrong_for_a_moment_costs_no_start(tmp_path: Path) -> None:
    cron = {"kind": "cron", "cron": "15 9 * * *", "timezone": "Asia/Kolkata"}
    async with desk(tmp_path, cron) as scheduler:
        scheduler.runner_appears()
        await scheduler.settle(EVENING_BEFORE + MINUTE)
        await look(scheduler, NINE_FIFTEEN + timedelta(hours=5))  # set wrong, and right again
        assert await occurrences(scheduler) == [("start", "missed")]
        await look(scheduler, EVENING_BEFORE + 2 * MINUTE)
        await look(scheduler, NINE_FIFTEEN)
        assert (await scheduler.one(Slot)).epoch == 1


@scenario
async def test_a_dead_runner_makes_its_start_missed(tmp_path: Path) -> None:
    """Granted ahead, and its runner was gone until after the stop."""
    async with desk(tmp_path, MARKET) as scheduler:
        scheduler.runner_appears()
        await scheduler.settle(NINE_FIFTEEN - 5 * SECOND)
        await scheduler.settle(HALF_PAST_THREE)
        assert "start_missed" in await scheduler.events()
        assert await occurrences(scheduler) == [("start", "missed"), ("stop", "done")]


@scenario
async def test_a_start_that_was_heard_of_late_was_not_missed(tmp_path: Path) -> None:
    async with desk(tmp_path, MARKET) as scheduler:
        scheduler.runner_appears()
        await scheduler.settle(NINE_FIFTEEN - 5 * SECOND)
        await scheduler.settle(HALF_PAST_THREE)
        await started(scheduler, at=NINE_FIFTEEN)  # its host could not reach the bus all day
        assert await occurrences(scheduler) == [("start", "done"), ("stop", "done")]


@pytest.mark.parametrize("act", [Slots.resume, Slots.start])
def test_a_word_of_its_user_hides_no_miss(tmp_path: Path, act: Any) -> None:
    @scenario
    async def scene(tmp_path: Path) -> None:
        async with desk(tmp_path, MARKET) as scheduler:
            await scheduler.settle(NINE_FIFTEEN)
            await scheduler.at(NINE_FIFTEEN + 5 * MINUTE, lambda slots: act(slots, "s"))
            await scheduler.settle(HALF_PAST_THREE)
            assert (await scheduler.events()).count("start_missed") == 1

    scene(tmp_path)


@scenario
async def test_a_calendar_that_was_away_is_the_reason(tmp_path: Path) -> None:
    async with desk(tmp_path, MARKET) as scheduler:
        scheduler.up_since = EVENING_BEFORE
        scheduler.runner_appears()
        await scheduler.settle(EVENING_BEFORE + MINUTE)
        scheduler.book.away = True
        await look(scheduler, NINE_FIFTEEN)
        scheduler.book.away = False
        await look(scheduler, HALF_PAST_THREE)
        missed = await scheduler.one(Occurrence)
        assert (missed.state, missed.detail) == ("missed", "the calendar does not answer")


@scenario
async def test_of_many_missed_starts_all_are_counted(tmp_path: Path) -> None:
    async with desk(tmp_path, {"kind": "interval", "every": "5m", "exchange": "NSE"}) as scheduler:
        scheduler.runner_appears()
        await scheduler.settle(EVENING_BEFORE + MINUTE)
        await scheduler.settle(HALF_PAST_THREE)
        missed = sorted(await scheduler.rows(Occurrence), key=lambda row: row.instant)
        assert len(missed) == 20
        assert missed[0].detail == "Openbell was not running; and 55 before it"
        assert missed[1].detail == "Openbell was not running"


@scenario
async def test_a_run_that_outlives_many_starts_says_so_once(tmp_path: Path) -> None:
    async with desk(tmp_path, EVERY_10_MIN) as scheduler:
        scheduler.runner_appears()
        await scheduler.settle(NINE_FIFTEEN)
        await started(scheduler)
        for number in range(1, 5):
            await scheduler.settle(NINE_FIFTEEN + number * TEN)
        assert (await scheduler.events()).count("start_skipped") == 1
        assert (await scheduler.one(Run)).skipped == 4


@scenario
async def test_late_starts_may_be_allowed_after_one_was_missed(tmp_path: Path) -> None:
    async with desk(tmp_path, {**MARKET, "catch_up": "skip"}) as scheduler:
        await scheduler.settle(NINE_FIFTEEN)
        scheduler.runner_appears()
        await scheduler.settle(NINE_FIFTEEN + 2 * MINUTE)
        async with scheduler.database.write() as session:
            row = await session.get_one(ScheduleRow, "s")
            row.spec, row.revision = MARKET, 2
            row.updated_at = NINE_FIFTEEN + 5 * MINUTE
            session.add(row)
        await scheduler.settle(NINE_FIFTEEN + 5 * MINUTE)
        assert (await scheduler.one(Slot)).epoch == 1


@scenario
async def test_an_interval_is_prepared_ahead_too(tmp_path: Path) -> None:
    async with desk(tmp_path, EVERY_10_MIN) as scheduler:
        scheduler.runner_appears()
        await scheduler.settle(NINE_FIFTEEN)
        await started(scheduler)
        await ended(scheduler, 1, NINE_FIFTEEN + MINUTE, ExitReason.COMPLETED)
        await scheduler.settle(NINE_FIFTEEN + TEN - 5 * SECOND)
        latest = max(await scheduler.rows(Run), key=lambda run: run.epoch)
        assert (latest.epoch, latest.due_at) == (2, NINE_FIFTEEN + TEN)


@scenario
async def test_a_start_by_hand_just_before_its_instant_is_no_mistake(tmp_path: Path) -> None:
    async with desk(tmp_path, MARKET) as scheduler:
        scheduler.runner_appears()
        await scheduler.settle(NINE_FIFTEEN - 5 * SECOND)
        settled = await scheduler.at(NINE_FIFTEEN - SECOND, lambda slots: slots.start("s"))
        assert settled.standing.note == "it is prepared, and starts at its instant"
        assert (await scheduler.one(Run)).stop_reason is None


# ---- what another scheduler left undone


@scenario
async def test_what_a_scheduler_left_undone_is_overdue_within_a_second(tmp_path: Path) -> None:
    async with desk(tmp_path, MARKET) as scheduler:
        scheduler.runner_appears()
        await scheduler.settle(NINE_FIFTEEN - MINUTE)
        assert await scheduler.overdue(NINE_FIFTEEN - LEAD - SECOND) == []
        assert await scheduler.overdue(NINE_FIFTEEN - LEAD) == ["s"]
        await scheduler.settle(NINE_FIFTEEN - LEAD)  # granted, and killed before it told the runner
        assert await scheduler.overdue(NINE_FIFTEEN - LEAD + SECOND) == ["s"]
        await scheduler.report(NINE_FIFTEEN, 1, RunState.RUNNING)
        assert await scheduler.overdue(NINE_FIFTEEN + MINUTE) == []
        assert await scheduler.overdue(HALF_PAST_THREE + SECOND) == ["s"]
        await scheduler.settle(HALF_PAST_THREE)  # told to stop, and killed likewise
        assert await scheduler.overdue(HALF_PAST_THREE + SECOND) == ["s"]


@scenario
async def test_nothing_is_overdue_for_ever(tmp_path: Path) -> None:
    async with desk(tmp_path, MARKET) as scheduler:
        scheduler.runner_appears()
        await scheduler.settle(NINE_FIFTEEN)
        await started(scheduler)
        await scheduler.settle(HALF_PAST_THREE)  # its host is dead: nobody confirms the stop
        assert await scheduler.overdue(HALF_PAST_THREE + MINUTE) == []
        await ended(scheduler, 1, HALF_PAST_THREE + MINUTE, ExitReason.STOPPED_BY_SCHEDULE)
        scheduler.book.away = True  # and then there is no calendar any more
        await look(scheduler, NINE_FIFTEEN + timedelta(days=1))
        await look(scheduler, HALF_PAST_THREE + timedelta(days=1))
        assert await scheduler.overdue(HALF_PAST_THREE + timedelta(days=40)) == []
        async with scheduler.database.write() as session:
            strategy = await session.get_one(Strategy, "s")
            strategy.deleted_at = HALF_PAST_THREE
            slot = await session.get_one(Slot, "s")
            slot.next_start = NINE_FIFTEEN
            session.add_all([strategy, slot])
        assert await scheduler.overdue(HALF_PAST_THREE + timedelta(days=1)) == []
