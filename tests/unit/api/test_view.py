"""What a user sees of a run: prepared ahead of its instant, and how it ended."""

from datetime import timedelta
from typing import Any

import pytest

from openbell.contracts.base import utc_now
from openbell.contracts.model import Cause, ExitReason, RunState
from openbell.db.models import Run, Slot
from services.api.view import Status, derive


def seen(
    state: RunState,
    due_s: float | None,
    *,
    cause: Cause = Cause.SCHEDULE,
    failures: int = 0,
    **fields: Any,
) -> tuple[Status, str]:
    now = utc_now()
    due_at = now + timedelta(seconds=due_s) if due_s is not None else None
    run = Run(
        id="r1",
        strategy_id="s1",
        owner="u1",
        epoch=1,
        runner="here",
        state=state,
        cause=cause,
        version=1,
        granted_at=now,
        due_at=due_at,
        **fields,
    )
    return derive(Slot(strategy_id="s1", owner="u1", failures=failures), run, scheduled=True)


@pytest.mark.parametrize("state", [RunState.GRANTED, RunState.PREPARING, RunState.PARKED])
def test_it_waits_for_its_instant(state: RunState) -> None:
    status, reason = seen(state, 60)
    assert status is Status.STARTING
    assert reason.endswith("prepared; it starts at its instant")
    assert seen(state, -1) == seen(state, None) == (Status.STARTING, "started by its schedule")


def test_what_else_is_known_of_it_goes_first() -> None:
    assert seen(RunState.PREPARING, 60, detail="installing")[1] == "installing"
    assert seen(RunState.PARKED, 60, stop_reason="stopped_by_user")[0] is Status.STOPPING
    assert seen(RunState.RUNNING, 60)[0] is Status.RUNNING


@pytest.mark.parametrize("state", [RunState.RUNNING, RunState.GRANTED])
def test_only_what_has_failed_is_said_to_have(state: RunState) -> None:
    """A person may have restarted it."""
    assert seen(state, None, cause=Cause.RESTART)[1] == "restarted"
    words = seen(state, None, cause=Cause.RESTART, failures=1)[1]
    assert words == "restarted after it had failed"
    assert seen(state, None, cause=Cause.MANUAL, failures=1)[1] == "started by hand"


def ending(reason: ExitReason, **fields: Any) -> tuple[Status, str]:
    return seen(RunState.EXITED, None, reason=reason, **fields)


@pytest.mark.parametrize("reason", ExitReason)
def test_each_end_has_words(reason: ExitReason) -> None:
    status, words = ending(reason)
    assert words
    assert (status is Status.CRASHED) == reason.failed


def test_a_crash_is_told_by_its_headline() -> None:
    error = "ZeroDivisionError: division by zero"
    crashed = ExitReason.CRASHED
    assert ending(crashed, exit_code=1, headline=error) == (
        Status.CRASHED,
        f"crashed with exit code 1: {error}",
    )
    told = ending(crashed, exit_code=1, headline=error, detail="the last line")[1]
    assert told.endswith(f": {error}")
    assert ending(crashed, exit_code=1, detail="the last line")[1].endswith(": the last line")


@pytest.mark.parametrize(
    ("reason", "fields", "words"),
    [
        (ExitReason.MEMORY_LIMIT, {}, "ended at its memory limit: used 612 MB of 512 MB"),
        (ExitReason.PROCESS_LIMIT, {}, "ended at its limit of processes: used 612 MB of 512 MB"),
        (ExitReason.DISK_LIMIT, {}, "ended at its disk limit: used 612 MB of 512 MB"),
        (
            ExitReason.STALLED,
            {"stop_reason": "stalled"},
            "ended since it stalled, killed since it would not end: used 612 MB of 512 MB",
        ),
    ],
)
def test_an_end_at_a_limit_is_told_by_what_was_seen(
    reason: ExitReason, fields: dict[str, str], words: str
) -> None:
    seen = {"signal": "SIGKILL", "detail": "used 612 MB of 512 MB", "headline": "MemoryError"}
    assert ending(reason, **seen, **fields) == (Status.CRASHED, words)


def test_a_limit_of_which_nothing_was_seen_is_told_by_the_headline() -> None:
    told = ending(ExitReason.PROCESS_LIMIT, headline="BlockingIOError: [Errno 11]")[1]
    assert told == "ended at its limit of processes: BlockingIOError: [Errno 11]"


def test_while_it_is_stopped_for_a_stall_it_says_so() -> None:
    told = seen(RunState.RUNNING, None, stop_reason="stalled")
    assert told == (Status.STOPPING, "being ended since it stalled")
