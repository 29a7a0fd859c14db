"""Everything at once: all of a user's strategies, or everybody's, stopped and confirmed gone."""

import asyncio
from collections.abc import Sequence
from typing import Annotated

from fastapi import Query
from pydantic import BaseModel, Field

from openbell.contracts.commands import StopStrategies
from openbell.contracts.errors import OpenbellError, UnknownStrategy
from openbell.contracts.model import Intent, RunState
from services.api.acts import Act
from services.api.audit import DONE, REQUESTED, entry
from services.api.context import Context
from services.api.view import Status, StrategyView

TOGETHER = 200
"""Strategies that one command stops, in one transaction."""
COMMAND_S = 30

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


def has_ended(view: StrategyView) -> bool:
    return view.run is None or view.run.state is RunState.EXITED


async def stop_all(
    api: Context, act: Act, owner: str | None, wait_s: float, *, hold: bool
) -> Stopped:
    """Those of an owner, or of everybody. They stay stopped until started or resumed.

    Raises ServiceUnavailable.
    """
    views = [view for view in await api.board.of(owner) if _concerned(view, hold=hold)]
    await api.audit.write([entry(act, REQUESTED, on=_on(view)) for view in views])
    try:
        for start in range(0, len(views), TOGETHER):
            ids = tuple(view.id for view in views[start : start + TOGETHER])
            await api.bus.request(StopStrategies(strategy_ids=ids), timeout_s=COMMAND_S)
    except OpenbellError as error:
        refused = [entry(act, error.code(), on=_on(view), detail=error.detail) for view in views]
        await api.audit.write(refused)
        raise
    for view in views:
        api.board.mark(view.id)
    results = await _gone(api, views, wait_s)
    await api.audit.write(
        [
            entry(act, DONE, on=_on(view), before={"status": view.status}, after={"gone": r.gone})
            for view, r in zip(views, results, strict=True)
        ]
    )
    return Stopped(all_gone=all(result.gone for result in results), strategies=results)


async def _gone(api: Context, views: Sequence[StrategyView], wait_s: float) -> list[StoppedView]:
    return await asyncio.gather(*(_one_gone(api, view, wait_s) for view in views))


async def _one_gone(api: Context, before: StrategyView, wait_s: float) -> StoppedView:
    """A strategy that is deleted meanwhile was gone before it was deleted."""
    try:
        after = await api.board.wait_for(before.id, has_ended, wait_s)
    except UnknownStrategy:
        after = before.model_copy(update={"run": None, "status": Status.STOPPED})
    gone = has_ended(after)
    return StoppedView(
        id=before.id,
        name=before.name,
        owner=before.owner.name,
        status=after.status,
        was_running=not has_ended(before),
        gone=gone,
        note=None if gone else after.reason,
    )


def _concerned(view: StrategyView, *, hold: bool) -> bool:
    if not has_ended(view) or view.intent is Intent.RUN:
        return True
    return hold and view.schedule is not None and view.intent is not Intent.STOP


def _on(view: StrategyView) -> tuple[str, str]:
    return view.owner.id, view.id
