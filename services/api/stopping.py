"""Everything at once: all of a user's strategies, or everybody's, stopped and confirmed gone."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import Query
from pydantic import BaseModel, Field

from openbell.contracts.commands import StopStrategies
from openbell.contracts.errors import OpenbellError
from openbell.contracts.model import Intent
from openbell.db.models import AuditEntry
from services.api.acts import Act
from services.api.audit import DONE, entry
from services.api.context import Context
from services.api.view import Status, StrategyView, has_ended

TOGETHER = 200
"""Strategies that one command stops."""
COMMAND_S = 30
SOON = {Status.STARTING, Status.WAITING}
"""What does not run, but may at any moment."""

StopWait = Annotated[
    float,
    Query(ge=0, le=1200, description="Seconds after which it answers at the latest."),
]
Hold = Annotated[
    bool,
    Query(description="Stop also what does not run now, but would start by its schedule."),
]


class StoppedView(BaseModel):
    id: str
    name: str
    owner: str
    status: Status
    was_running: bool
    gone: bool = Field(description="Whether all processes of its run are confirmed to be gone.")
    note: str | None = None


class Stopped(BaseModel):
    all_gone: bool
    strategies: list[StoppedView]


async def stop_all(
    api: Context, act: Act, owner: str | None, wait_s: float, *, hold: bool
) -> Stopped:
    """Those of an owner, or of everybody. They stay stopped until started or resumed.

    Whatever goes wrong with some of them is told of these, and does not keep the others running.
    """
    api.board.mark_all()  # another replica may have started some, of which we have not heard yet
    views = [view for view in await api.board.of(owner) if _concerned(view, hold=hold)]
    async with api.audit.requesting(act, [_on(view) for view in views]):
        errors = await _tell(api, [view.id for view in views])
        told = [view.id for view in views if view.id not in errors]
        after = await api.board.wait_for_all(told, has_ended, wait_s)
        after |= await api.board.wait_for_all(errors, has_ended, 0)
    results = [_result(view, after.get(view.id), errors.get(view.id)) for view in views]
    await api.audit.write(
        [
            _outcome(act, view, result, errors.get(view.id))
            for view, result in zip(views, results, strict=True)
        ]
    )
    return Stopped(all_gone=all(result.gone for result in results), strategies=results)


async def _tell(api: Context, ids: Sequence[str]) -> dict[str, OpenbellError]:
    """Have all of them stopped. Returns why some were not."""
    errors: dict[str, OpenbellError] = {}
    for start in range(0, len(ids), TOGETHER):
        chunk = tuple(ids[start : start + TOGETHER])
        try:
            command = StopStrategies(strategy_ids=chunk)
            answer = await api.bus.request(command, timeout_s=COMMAND_S)
        except OpenbellError as error:
            errors |= dict.fromkeys(chunk, error)
        else:
            failed = OpenbellError("the scheduler could not; see its log")
            errors |= dict.fromkeys(answer.strategy_ids, failed)
    for strategy_id in ids:
        api.board.mark(strategy_id)
    return errors


def _result(
    before: StrategyView, after: StrategyView | None, error: OpenbellError | None
) -> StoppedView:
    """A strategy that is deleted meanwhile was gone before it was deleted."""
    after = after or before.model_copy(update={"run": None, "status": Status.STOPPED})
    gone = has_ended(after) and error is None
    why = error.detail if error else after.reason
    return StoppedView(
        id=before.id,
        name=before.name,
        owner=before.owner.name,
        status=after.status,
        was_running=not has_ended(before),
        gone=gone,
        note=None if gone else why,
    )


def _outcome(
    act: Act, before: StrategyView, result: StoppedView, error: OpenbellError | None
) -> AuditEntry:
    if error is not None:
        return entry(act, error.code(), on=_on(before), detail=error.detail)
    was, gone = {"status": before.status}, {"gone": result.gone}
    return entry(act, DONE, on=_on(before), before=was, after=gone)


def _concerned(view: StrategyView, *, hold: bool) -> bool:
    """What runs, or would start by itself: in a moment, or, to `hold`, by its schedule."""
    if not has_ended(view):
        return True
    if view.intent is Intent.STOP:
        return False
    if view.intent is Intent.RUN or view.retry_at is not None or view.status in SOON:
        return True
    return hold and view.schedule is not None


def _on(view: StrategyView) -> tuple[str, str]:
    return view.owner.id, view.id
