"""What is done about one strategy, from the facts alone."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from openbell.contracts.model import Cause, ExitReason, Intent, Outlook, RestartPolicy, RunState
from openbell.contracts.schedules import Overlap
from openbell.settings import SchedulerSettings
from services.scheduler.decisions import (
    NOTHING,
    Decision,
    EndedRun,
    Facts,
    LiveRun,
    Start,
    StartState,
    Stop,
    after_exit,
    decide,
)
from services.scheduler.planner import NO_SCHEDULE, Plan
from services.scheduler.windows import Window

NINE = datetime(2026, 11, 19, 9, tzinfo=UTC)
NOW = NINE + timedelta(hours=1)
WINDOW = Window(NINE, NINE + timedelta(hours=6), NINE + timedelta(hours=6))
OPEN = Plan(Outlook.OPEN, "inside", window=WINDOW, ends=True, next_stop=WINDOW.stop)
CLOSED = Plan(Outlook.SCHEDULED, "outside", ends=True, last_stop=NINE - timedelta(hours=18))
UNKNOWN = Plan(Outlook.UNKNOWN, "no data")
SETTINGS = SchedulerSettings()

FRESH = Facts(
    intent=Intent.AUTO,
    intent_at=None,
    run=None,
    retry_at=None,
    gave_up=False,
    schedule_at=NINE - timedelta(days=7),
    start=None,
)
RUNNING = LiveRun(RunState.RUNNING, NINE, None)


def test_a_due_window_starts_it_however_late() -> None:
    assert decide(FRESH, OPEN, NOW) == Decision(act=Start(Cause.SCHEDULE, WINDOW))


def test_a_window_is_served_once() -> None:
    done = replace(FRESH, start=StartState.DONE, run=EndedRun(ExitReason.COMPLETED))
    assert decide(done, OPEN, NOW) == NOTHING


def test_outside_the_window_nothing_starts() -> None:
    assert decide(FRESH, CLOSED, NOW) == NOTHING
    assert decide(FRESH, UNKNOWN, NOW) == NOTHING
    assert decide(FRESH, NO_SCHEDULE, NOW) == NOTHING


def test_what_the_user_stopped_stays_stopped_through_every_restart_of_ours() -> None:
    stopped = replace(FRESH, intent=Intent.STOP, run=EndedRun(ExitReason.STOPPED_BY_USER))
    assert decide(stopped, OPEN, NOW) == NOTHING
    running = replace(stopped, run=RUNNING)
    assert decide(running, OPEN, NOW).act == Stop(ExitReason.STOPPED_BY_USER)


def test_a_missed_stop_is_made_up_for() -> None:
    overdue = replace(FRESH, run=RUNNING, start=StartState.DONE)
    assert decide(overdue, CLOSED, NOW).act == Stop(ExitReason.STOPPED_BY_SCHEDULE)


def test_a_schedule_without_a_stop_stops_nothing() -> None:
    endless = replace(CLOSED, ends=False, last_stop=None)
    assert decide(replace(FRESH, run=RUNNING), endless, NOW).act is None


def test_an_unknown_calendar_or_a_removed_schedule_stops_nothing() -> None:
    running = replace(FRESH, run=RUNNING)
    assert decide(running, UNKNOWN, NOW).act is None
    assert decide(running, NO_SCHEDULE, NOW).act is None


def test_a_run_that_is_stopping_is_left_to_stop() -> None:
    stopping = LiveRun(RunState.STOPPING, NINE, ExitReason.STOPPED_BY_USER)
    assert decide(replace(FRESH, intent=Intent.STOP, run=stopping), CLOSED, NOW) == NOTHING


def test_a_run_started_by_hand_serves_the_window_that_opens_over_it() -> None:
    by_hand = replace(FRESH, intent=Intent.RUN, intent_at=NINE - timedelta(hours=1), run=RUNNING)
    assert decide(by_hand, OPEN, NOW) == Decision(serve=WINDOW)


def test_a_run_started_by_hand_outside_the_window_goes_on_until_the_next_stop() -> None:
    by_hand = replace(FRESH, intent=Intent.RUN, intent_at=NINE, run=RUNNING)
    assert decide(by_hand, CLOSED, NOW).act is None
    after_stop = replace(CLOSED, last_stop=NOW)
    assert decide(by_hand, after_stop, NOW) == Decision(
        act=Stop(ExitReason.STOPPED_BY_SCHEDULE), release_intent=True
    )


def test_a_new_schedule_does_not_stop_by_its_own_past() -> None:
    by_hand = replace(FRESH, intent=Intent.RUN, intent_at=NINE - timedelta(hours=3), run=RUNNING)
    set_now = replace(by_hand, schedule_at=NOW)
    passed = replace(CLOSED, last_stop=NINE)
    assert decide(set_now, passed, NOW).act is None


@pytest.mark.parametrize(
    "reason", [r for r in ExitReason if r.interrupted and r is not ExitReason.STOPPED_BY_USER]
)
def test_an_interrupted_run_is_resumed_while_it_should_run(reason: ExitReason) -> None:
    scheduled = replace(FRESH, start=StartState.DONE, run=EndedRun(reason))
    assert decide(scheduled, OPEN, NOW).act == Start(Cause.RESUME)
    assert decide(scheduled, CLOSED, NOW) == NOTHING
    by_hand = replace(scheduled, intent=Intent.RUN, intent_at=NINE)
    assert decide(by_hand, NO_SCHEDULE, NOW).act == Start(Cause.RESUME)


def test_a_start_by_hand_is_told_from_a_restart_and_a_resumption() -> None:
    ended = EndedRun(ExitReason.STOPPED_BY_USER, NINE)
    asked_before = replace(FRESH, intent=Intent.RUN, intent_at=NINE - timedelta(1), run=ended)
    assert decide(asked_before, NO_SCHEDULE, NOW).act == Start(Cause.RESTART)
    asked_after = replace(asked_before, intent_at=NOW)
    assert decide(asked_after, NO_SCHEDULE, NOW).act == Start(Cause.MANUAL)


def test_a_crash_is_retried_when_its_pause_is_over_and_not_before() -> None:
    crashed = replace(FRESH, start=StartState.DONE, run=EndedRun(ExitReason.CRASHED))
    later = replace(crashed, retry_at=NOW + timedelta(seconds=1))
    assert decide(later, OPEN, NOW) == NOTHING
    assert decide(replace(later, retry_at=NOW), OPEN, NOW).act == Start(Cause.RESTART)
    assert decide(replace(later, retry_at=NOW), CLOSED, NOW) == NOTHING


def test_a_new_window_forgives_giving_up() -> None:
    gave_up = replace(FRESH, gave_up=True, run=EndedRun(ExitReason.CRASHED))
    assert decide(replace(gave_up, start=StartState.DONE), OPEN, NOW) == NOTHING
    assert decide(gave_up, OPEN, NOW).act == Start(Cause.SCHEDULE, WINDOW)


def test_a_deleted_strategy_is_stopped_and_never_started() -> None:
    deleted = replace(FRESH, deleted=True)
    assert decide(deleted, OPEN, NOW) == NOTHING
    assert decide(replace(deleted, run=RUNNING), OPEN, NOW).act == Stop(ExitReason.STOPPED_BY_USER)


def test_the_pause_doubles_up_to_five_minutes_and_then_it_gives_up() -> None:
    pauses: list[float] = []
    failures = 0
    for _ in range(SETTINGS.max_failures - 1):
        after = after_exit(
            RestartPolicy.ON_FAILURE, ExitReason.CRASHED, failures, timedelta(), NOW, SETTINGS
        )
        assert after.retry_at is not None
        pauses.append((after.retry_at - NOW).total_seconds())
        failures = after.failures
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256]
    last = after_exit(
        RestartPolicy.ON_FAILURE, ExitReason.CRASHED, failures, timedelta(), NOW, SETTINGS
    )
    assert (last.retry_at, last.gave_up, last.failures) == (None, True, 10)


def test_a_healthy_run_clears_the_count() -> None:
    after = after_exit(
        RestartPolicy.ON_FAILURE, ExitReason.CRASHED, 9, timedelta(hours=2), NOW, SETTINGS
    )
    assert (after.failures, after.gave_up) == (1, False)


@pytest.mark.parametrize(
    ("policy", "reason", "again"),
    [
        (RestartPolicy.NEVER, ExitReason.CRASHED, False),
        (RestartPolicy.NEVER, ExitReason.COMPLETED, False),
        (RestartPolicy.ON_FAILURE, ExitReason.COMPLETED, False),
        (RestartPolicy.ON_FAILURE, ExitReason.KILLED, True),
        (RestartPolicy.ON_FAILURE, ExitReason.START_FAILED, True),
        (RestartPolicy.ALWAYS, ExitReason.COMPLETED, True),
        (RestartPolicy.ALWAYS, ExitReason.STOPPED_BY_USER, False),
    ],
)
def test_the_restart_policy(policy: RestartPolicy, reason: ExitReason, again: bool) -> None:
    after = after_exit(policy, reason, 0, timedelta(seconds=5), NOW, SETTINGS)
    assert (after.retry_at is not None) is again


# ---- starts that are prepared, and runs that last

LEAD = timedelta(seconds=10)
SOON = NINE - timedelta(seconds=8)
BEFORE = Plan(Outlook.SCHEDULED, "outside", upcoming=WINDOW, ends=True)
PREPARED = LiveRun(RunState.PARKED, SOON, None, due_at=NINE)
CLOSED_TODAY = replace(BEFORE, upcoming=Window(NINE + timedelta(days=1)))


def test_a_start_is_prepared_just_before_its_instant() -> None:
    prepared = Decision(act=Start(Cause.SCHEDULE, WINDOW, at=NINE))
    assert decide(FRESH, BEFORE, SOON, LEAD) == prepared
    assert decide(FRESH, BEFORE, NINE - LEAD - timedelta(seconds=1), LEAD) == NOTHING


def test_what_is_prepared_waits_for_its_instant() -> None:
    facts = replace(FRESH, run=PREPARED, start=StartState.DONE)
    assert decide(facts, BEFORE, SOON, LEAD) == NOTHING


@pytest.mark.parametrize("plan", [CLOSED_TODAY, NO_SCHEDULE])
def test_what_is_prepared_is_taken_back_when_its_day_is_closed(plan: Plan) -> None:
    facts = replace(FRESH, run=PREPARED, start=StartState.DONE)
    assert decide(facts, plan, SOON, LEAD).act == Stop(ExitReason.STOPPED_BY_SCHEDULE)


def test_what_is_prepared_is_stopped_by_its_user() -> None:
    facts = replace(FRESH, run=PREPARED, intent=Intent.STOP)
    assert decide(facts, BEFORE, SOON, LEAD).act == Stop(ExitReason.STOPPED_BY_USER)


def test_an_unknown_calendar_takes_nothing_back() -> None:
    facts = replace(FRESH, run=PREPARED, start=StartState.DONE)
    assert decide(facts, UNKNOWN, SOON, LEAD) == NOTHING


def test_a_preparation_that_failed_is_tried_again_for_the_same_instant() -> None:
    failed = EndedRun(ExitReason.START_FAILED, SOON)
    facts = replace(FRESH, run=failed, next_start=StartState.GRANTED, retry_at=SOON)
    assert decide(facts, BEFORE, SOON, LEAD).act == Start(Cause.RESTART, at=NINE)


AN_HOUR_EARLIER = LiveRun(RunState.RUNNING, NINE - timedelta(hours=1), None)


@pytest.mark.parametrize(
    ("overlap", "decision"),
    [
        (None, Decision(serve=WINDOW)),
        (Overlap.SKIP, Decision(skip=WINDOW)),
        (Overlap.QUEUE, NOTHING),
        (Overlap.REPLACE, Decision(act=Stop(ExitReason.STOPPED_BY_SCHEDULE))),
    ],
)
def test_a_start_that_finds_a_run(overlap: Overlap | None, decision: Decision) -> None:
    facts = replace(FRESH, run=AN_HOUR_EARLIER)
    assert decide(facts, replace(OPEN, overlap=overlap), NOW) == decision


def test_a_queued_start_follows_the_run_before() -> None:
    facts = replace(FRESH, run=EndedRun(ExitReason.COMPLETED, NOW))
    queue = replace(OPEN, overlap=Overlap.QUEUE)
    assert decide(facts, queue, NOW).act == Start(Cause.SCHEDULE, WINDOW)


def test_a_run_that_was_started_by_hand_is_not_replaced() -> None:
    facts = replace(FRESH, run=AN_HOUR_EARLIER, intent=Intent.RUN)
    assert decide(facts, replace(OPEN, overlap=Overlap.REPLACE), NOW) == Decision(skip=WINDOW)


def test_a_run_ends_at_its_time_limit_whoever_started_it() -> None:
    limited = replace(NO_SCHEDULE, max_runtime=timedelta(hours=1))
    for intent in (Intent.AUTO, Intent.RUN):
        run = replace(RUNNING, started_at=NINE)
        facts = replace(FRESH, run=run, intent=intent)
        assert decide(facts, limited, NOW - timedelta(seconds=1)) == NOTHING
        assert decide(facts, limited, NOW).act == Stop(ExitReason.TIME_LIMIT)


def test_starts_that_failed_bring_no_script_closer_to_being_given_up() -> None:
    nine_of_them = after_exit(
        RestartPolicy.ON_FAILURE, ExitReason.START_FAILED, 0, timedelta(), NOW, SETTINGS, 9
    )
    assert (nine_of_them.failures, nine_of_them.start_failures) == (0, 10)
    crashed = after_exit(
        RestartPolicy.ON_FAILURE, ExitReason.CRASHED, 0, timedelta(), NOW, SETTINGS, 10
    )
    assert (crashed.failures, crashed.gave_up) == (1, False)


def test_a_start_that_never_happened_is_not_retried_when_it_would_be_too_late() -> None:
    """It skips late starts, and the preparation failed until it would have been late."""
    strict = replace(OPEN, window=replace(WINDOW, start_until=NINE + timedelta(minutes=1)))
    failed = replace(FRESH, run=EndedRun(ExitReason.START_FAILED, NOW), retry_at=NOW)
    for state in (StartState.GRANTED, StartState.MISSED):
        assert decide(replace(failed, start=state), strict, NOW) == NOTHING
    ran = replace(failed, start=StartState.DONE)
    assert decide(ran, strict, NOW).act == Start(Cause.RESTART)


def test_the_next_window_keeps_no_run_of_the_one_before_alive() -> None:
    """Cron windows that follow each other without a gap, or overlap."""
    run = replace(RUNNING, granted_at=NINE - timedelta(hours=1), stop_at=NINE)
    hourly = replace(OPEN, overlap=Overlap.SKIP)
    facts = replace(FRESH, run=run)
    assert decide(facts, hourly, NINE).act == Stop(ExitReason.STOPPED_BY_SCHEDULE)
    stopped = EndedRun(ExitReason.STOPPED_BY_SCHEDULE, NINE)
    assert decide(replace(facts, run=stopped), hourly, NINE).act == Start(Cause.SCHEDULE, WINDOW)


def test_a_time_limit_holds_while_the_calendar_is_away() -> None:
    away = replace(UNKNOWN, max_runtime=timedelta(hours=1))
    facts = replace(FRESH, run=replace(RUNNING, started_at=NINE), stop_at=NOW)
    assert decide(facts, away, NOW).act == Stop(ExitReason.TIME_LIMIT)


def test_a_run_by_hand_meets_its_stop_while_the_calendar_is_away() -> None:
    facts = replace(FRESH, run=RUNNING, intent=Intent.RUN, intent_at=NINE, stop_at=NOW)
    assert decide(facts, UNKNOWN, NOW) == Decision(
        act=Stop(ExitReason.STOPPED_BY_SCHEDULE), release_intent=True
    )


def test_what_is_next_is_prepared_while_its_window_before_still_holds() -> None:
    """Intervals: each window ends where the next begins."""
    upcoming = Window(NOW + timedelta(seconds=5))
    joined = replace(OPEN, upcoming=upcoming, overlap=Overlap.SKIP)
    ended = EndedRun(ExitReason.COMPLETED, NOW)
    facts = replace(FRESH, run=ended, start=StartState.DONE)
    assert decide(facts, joined, NOW, LEAD).act == Start(Cause.SCHEDULE, upcoming, upcoming.start)
    crashed = replace(facts, run=EndedRun(ExitReason.CRASHED, NOW), retry_at=NOW)
    assert decide(crashed, joined, NOW, LEAD).act == Start(Cause.RESTART)


def test_a_time_limit_is_no_failure() -> None:
    after = after_exit(
        RestartPolicy.ON_FAILURE, ExitReason.TIME_LIMIT, 3, timedelta(), NOW, SETTINGS
    )
    assert (after.failures, after.retry_at, after.gave_up) == (0, None, False)
    again = after_exit(RestartPolicy.ALWAYS, ExitReason.TIME_LIMIT, 0, timedelta(), NOW, SETTINGS)
    assert again.retry_at is not None


def test_a_start_that_would_be_too_late_is_not_made_up_for() -> None:
    strict = replace(WINDOW, start_until=NINE + timedelta(minutes=1))
    assert decide(FRESH, replace(OPEN, window=strict), NOW) == NOTHING


def test_a_run_that_is_up_before_its_instant_by_our_clock_goes_on() -> None:
    """The clock was set back by seconds, or the host of the run is ahead of us."""
    up = LiveRun(RunState.RUNNING, SOON, None, due_at=NINE, started_at=NINE)
    facts = replace(FRESH, run=up, start=StartState.DONE)
    assert decide(facts, BEFORE, NINE - timedelta(seconds=3), LEAD) == NOTHING
    long_before = NINE - timedelta(hours=1)
    assert decide(facts, BEFORE, long_before, LEAD).act == Stop(ExitReason.STOPPED_BY_SCHEDULE)
