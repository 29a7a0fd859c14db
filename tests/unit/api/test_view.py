"""What a user sees of a run that is prepared ahead of its instant."""

from datetime import timedelta
from typing import Any

import pytest

from openbell.contracts.base import utc_now
from openbell.contracts.model import Cause, RunState
from openbell.db.models import Run, Slot
from services.api.view import Status, derive


def seen(state: RunState, due_s: float | None, **fields: Any) -> tuple[Status, str]:
    now = utc_now()
    due_at = now + timedelta(seconds=due_s) if due_s is not None else None
    run = Run(
        id="r1",
        strategy_id="s1",
        owner="u1",
        epoch=1,
        runner="here",
        state=state,
        cause=Cause.SCHEDULE,
        version=1,
        granted_at=now,
        due_at=due_at,
        **fields,
    )
    return derive(Slot(strategy_id="s1", owner="u1"), run, scheduled=True)


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
