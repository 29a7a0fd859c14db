"""When a strategy runs: set it, remove it, see what it will do."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import ValidationError

from openbell.contracts.base import utc_now
from openbell.contracts.commands import PlanStrategy, Preview, PreviewSchedule
from openbell.contracts.errors import InvalidRequest, OpenbellError
from openbell.contracts.model import Intent
from openbell.contracts.schedules import SCHEDULE, AnySchedule, Once, Schedule, stored
from services.api.access import Editing, Own, Reading
from services.api.acts import StrategyAct
from services.api.context import Api, Context
from services.api.errors import message
from services.api.exchanges import ANSWER_S, with_code
from services.api.outcomes import Outcome, outcome

router = APIRouter(prefix="/python", tags=["schedules"])

Days = Annotated[int, Query(ge=1, le=366, description="From today on, so many.")]


@router.post("/schedule/{strategy_id}", summary="Set when a strategy runs")
async def set_schedule(schedule: Schedule, act: Editing, api: Api) -> Outcome:
    """Checked as a whole first: on any error the old schedule stays as it was."""
    _require_future(schedule)
    await api.store.set_schedule(act, stored(await with_code(api.bus, schedule)))
    return await _replanned(api, act)


@router.delete("/schedule/{strategy_id}", summary="Remove a strategy's schedule")
async def remove_schedule(act: Editing, api: Api) -> Outcome:
    """What runs goes on; nothing starts or stops it any more but you."""
    if not await api.store.remove_schedule(act):
        return Outcome(note="it had no schedule", strategy=act.strategy)
    return await _replanned(api, act)


@router.get("/preview/{strategy_id}", summary="Tell what a strategy's schedule will do")
async def preview(act: Reading, api: Api, days: Days = 30) -> Preview:
    """Day by day, each start and stop with its reason, each day left out with its own."""
    row = await api.store.schedule(act.id)
    if row is None:
        return _nothing("it has no schedule")
    try:
        schedule = SCHEDULE.validate_python(row.spec)
    except ValidationError as error:  # another release has kept it
        why = message(error.errors(include_url=False)[0])
        return _nothing(f"its schedule cannot be read: {why}; set it anew")
    found = await _previewed(api, schedule, row.updated_at, utc_now(), days)
    if act.strategy.intent is not Intent.STOP:
        return found
    stopped = f"{act.strategy.name} is stopped by hand: none of this happens until you resume it"
    return found.model_copy(update={"warning": "; ".join(filter(None, (stopped, found.warning)))})


@router.post("/preview", summary="Tell what a schedule would do")
async def preview_unsaved(schedule: Schedule, act: Own, api: Api, days: Days = 30) -> Preview:  # noqa: ARG001 - whoever may read may ask
    """If it was set now. Nothing is kept."""
    now = utc_now()
    return await _previewed(api, await with_code(api.bus, schedule), now, now, days)


def _require_future(schedule: AnySchedule) -> None:
    """That it does not only tell of what is over. Raises InvalidRequest."""
    if isinstance(schedule, Once) and (schedule.stops_at or schedule.starts_at) <= utc_now():
        raise InvalidRequest.of("at", "it is over already")


def _nothing(why: str) -> Preview:
    return Preview(timezone="UTC", days=(), warning=why)


async def _previewed(
    api: Context, schedule: AnySchedule, since: datetime, now: datetime, days: int
) -> Preview:
    asked = PreviewSchedule(schedule=schedule, since=since, first=now, days=days)
    return await api.bus.request(asked, timeout_s=ANSWER_S)


async def _replanned(api: Context, act: StrategyAct) -> Outcome:
    """The schedule is kept already, whatever comes of telling the scheduler, which looks anyway."""
    try:
        standing = await api.bus.request(PlanStrategy(strategy_id=act.id))
    except OpenbellError as error:
        return await outcome(api, act, f"kept; it takes effect later: {error.detail}")
    return await outcome(api, act, standing.note)
