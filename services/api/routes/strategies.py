"""The strategies of the caller: upload, watch, start, stop, schedule, delete."""

import asyncio
from collections.abc import Callable
from typing import Annotated, Literal

from fastapi import APIRouter, File, Form, Query, Request, Response, UploadFile
from fastapi.responses import FileResponse
from pydantic import BaseModel

from openbell.contracts.base import utc_now
from openbell.contracts.commands import (
    ListSessions,
    LogChunk,
    PlanStrategy,
    ReadLog,
    RestartStrategy,
    ResumeStrategy,
    RetireStrategy,
    Standing,
    StartStrategy,
    StopStrategy,
)
from openbell.contracts.errors import (
    InvalidRequest,
    ServiceUnavailable,
    StrategyIsRunning,
    UnknownExchange,
    UnknownRun,
)
from openbell.contracts.model import RestartPolicy, RunState
from openbell.contracts.schedules import Market, Schedule, stored
from openbell.db.models import Run
from services.api import uploads
from services.api.context import Api, Owner
from services.api.logs import LogView, log_view
from services.api.page import PAGE
from services.api.view import RunView, StrategyView, run_view

router = APIRouter(prefix="/python", tags=["strategies"])

GONE_S = 60
SLICE_S = 1.0
"""While a log is followed, how often it is asked whether the run still lives."""

Wait = Annotated[
    float,
    Query(ge=0, le=60, description="Answer only once it is done, after at most so many seconds."),
]


class Outcome(BaseModel):
    """The strategy after what was asked for, and what its user should know."""

    note: str | None = None
    strategy: StrategyView


class StrategyList(BaseModel):
    strategies: list[StrategyView]


@router.get("/", summary="List your strategies", response_model=StrategyList)
async def list_strategies() -> FileResponse:
    """In a browser, this is the page. The list itself is answered by `services/api/listing.py`."""
    return FileResponse(PAGE / "index.html")


@router.get("/status/{strategy_id}", summary="Tell where a strategy stands")
async def status(strategy_id: str, api: Api, owner: Owner) -> StrategyView:
    return await api.board.get(owner, strategy_id)


@router.get("/runs/{strategy_id}", summary="List the latest runs, newest first")
async def runs(
    strategy_id: str,
    api: Api,
    owner: Owner,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> list[RunView]:
    return [run_view(run) for run in await api.store.runs(owner, strategy_id, limit)]


@router.post("/upload", status_code=201, summary="Upload a strategy")
async def upload(
    request: Request,
    api: Api,
    owner: Owner,
    file: Annotated[UploadFile, File(description="One .py file, UTF-8.")],
    name: Annotated[str | None, Form(description="By default, the file's.")] = None,
    exchange: Annotated[
        str | None, Form(description="Handed to the script as OPENALGO_STRATEGY_EXCHANGE.")
    ] = None,
    parameters: Annotated[
        str | None, Form(description='Environment variables: {"SYMBOL": "SBIN"}')
    ] = None,
    restart: Annotated[RestartPolicy, Form()] = RestartPolicy.ON_FAILURE,
    stop_grace_s: Annotated[
        float, Form(ge=0, le=600, description="Seconds to clean up in, before it is killed.")
    ] = 15,
) -> Outcome:
    """The script is compiled first: a syntax error is told with its line and column."""
    uploads.check_fields(await request.form())
    source = uploads.check_source(file.filename, await file.read(), api.settings.max_source_bytes)
    chosen = uploads.check_name(name, source.filename)
    variables = uploads.check_parameters(parameters)
    segment = await _known_exchange(api, exchange) if exchange else None
    strategy_id = await api.store.create(
        owner,
        chosen,
        source,
        exchange=segment,
        parameters=variables,
        restart=restart,
        stop_grace_s=stop_grace_s,
    )
    api.board.mark(strategy_id)
    return Outcome(strategy=await api.board.get(owner, strategy_id))


@router.post("/start/{strategy_id}", status_code=202, summary="Start a strategy now")
async def start(strategy_id: str, api: Api, owner: Owner, wait: Wait = 0) -> Outcome:
    """At any time, whatever its schedule says. With `wait`, until it runs or has failed to."""
    standing = await api.command(owner, StartStrategy(strategy_id=strategy_id))
    return await _outcome(
        api,
        owner,
        standing,
        lambda view: (
            view.run is not None
            and view.run.epoch >= standing.epoch
            and view.run.state in {RunState.RUNNING, RunState.EXITED}
        ),
        wait if standing.run_id else 0,
    )


@router.post("/stop/{strategy_id}", status_code=202, summary="Stop a strategy now")
async def stop(strategy_id: str, api: Api, owner: Owner, wait: Wait = 0) -> Outcome:
    """It stays stopped until it is started or resumed. With `wait`, until all of it is gone."""
    standing = await api.command(owner, StopStrategy(strategy_id=strategy_id))
    return await _outcome(api, owner, standing, _has_ended, wait)


@router.post("/restart/{strategy_id}", status_code=202, summary="Stop and start a strategy")
async def restart(strategy_id: str, api: Api, owner: Owner, wait: Wait = 0) -> Outcome:
    """The new run begins when the old one is gone. With `wait`, until the new one runs."""
    before = await api.board.get(owner, strategy_id)
    epoch = before.run.epoch if before.run else 0
    standing = await api.command(owner, RestartStrategy(strategy_id=strategy_id))
    return await _outcome(
        api,
        owner,
        standing,
        lambda view: (
            view.run is not None
            and view.run.epoch > epoch
            and view.run.state in {RunState.RUNNING, RunState.EXITED}
        ),
        wait,
    )


@router.post("/resume/{strategy_id}", status_code=202, summary="Let the schedule decide again")
async def resume(strategy_id: str, api: Api, owner: Owner) -> Outcome:
    standing = await api.command(owner, ResumeStrategy(strategy_id=strategy_id))
    return await _outcome(api, owner, standing)


@router.post("/schedule/{strategy_id}", summary="Set when a strategy runs")
async def set_schedule(strategy_id: str, schedule: Schedule, api: Api, owner: Owner) -> Outcome:
    """Checked as a whole first: on any error the old schedule stays as it was."""
    await api.board.get(owner, strategy_id)
    if isinstance(schedule, Market):
        segment = await _known_exchange(api, schedule.exchange)
        schedule = schedule.model_copy(update={"exchange": segment})
    await api.store.set_schedule(owner, strategy_id, stored(schedule))
    return await _replanned(api, owner, strategy_id)


@router.delete("/schedule/{strategy_id}", summary="Remove a strategy's schedule")
async def remove_schedule(strategy_id: str, api: Api, owner: Owner) -> Outcome:
    """What runs goes on; nothing starts or stops it any more but you."""
    if not await api.store.remove_schedule(owner, strategy_id):
        return Outcome(note="it had no schedule", strategy=await api.board.get(owner, strategy_id))
    return await _replanned(api, owner, strategy_id)


class Deleted(BaseModel):
    id: str
    note: str | None = None


@router.delete("/delete/{strategy_id}", summary="Delete a strategy")
async def delete(
    strategy_id: str,
    api: Api,
    owner: Owner,
    stop: Annotated[bool, Query(description="Stop it first, if it runs.")] = False,
) -> Deleted:
    """Refused while it runs, unless `stop` is asked for. Its logs stay.

    Deleted only when all of its run is gone: until then it is shown, and holds its name.
    """
    standing = await api.command(owner, RetireStrategy(strategy_id=strategy_id, stop=stop))
    api.board.mark(strategy_id)
    view = await api.board.wait_for(owner, strategy_id, _has_ended, GONE_S)
    if not _has_ended(view):
        raise StrategyIsRunning(f"{view.name} is told to stop and still cleans up: delete it later")
    await api.store.delete(owner, strategy_id)
    api.board.mark(strategy_id)
    return Deleted(id=strategy_id, note="it was stopped first" if standing.run_id else None)


@router.get(
    "/logs/{strategy_id}",
    summary="Read a run's log",
    response_model=LogView,
    responses={200: {"content": {"text/plain": {}}}},
)
async def logs(
    strategy_id: str,
    api: Api,
    owner: Owner,
    run: Annotated[str | None, Query(description="By default, the latest.")] = None,
    offset: Annotated[
        int, Query(description="In bytes, from the beginning; a negative one counts from the end.")
    ] = -65_536,
    limit: Annotated[int, Query(ge=1, le=524_288, description="Bytes at most.")] = 65_536,
    wait: Annotated[
        float, Query(ge=0, le=20, description="Seconds to wait while there is nothing new.")
    ] = 0,
    format_: Annotated[Literal["json", "text"], Query(alias="format")] = "json",
) -> Response:
    """To follow, ask again from `next_offset`. With `format=text`, the text alone."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + wait
    while True:
        row = await api.store.run(owner, strategy_id, run)
        left = deadline - loop.time()
        view = await _read_log(api, row, offset, limit, min(left, SLICE_S))
        if view.content or view.ended or left <= 0:
            break
    if format_ == "text":
        return Response(view.content, media_type="text/plain")
    return Response(view.model_dump_json(), media_type="application/json")


async def _read_log(api: Api, run: Run, offset: int, limit: int, wait_s: float) -> LogView:
    """What the log holds from there. Waits for more only while the run may write it."""
    command = ReadLog(
        strategy_id=run.strategy_id,
        run_id=run.id,
        offset=offset,
        limit=limit,
        wait_s=max(0, wait_s) if run.live else 0,
    )
    try:
        return log_view(run, await api.bus.request(command, run.runner))
    except UnknownRun:
        if not run.live:
            raise
        return log_view(run, LogChunk(offset=0, next_offset=0, size=0, data=b""))


def _has_ended(view: StrategyView) -> bool:
    return view.run is None or view.run.state is RunState.EXITED


async def _outcome(
    api: Api,
    owner: str,
    standing: Standing,
    so: Callable[[StrategyView], bool] = lambda _: True,
    wait: float = 0,
) -> Outcome:
    api.board.mark(standing.strategy_id)
    view = await api.board.wait_for(owner, standing.strategy_id, so, wait)
    return Outcome(note=standing.note, strategy=view)


async def _replanned(api: Api, owner: str, strategy_id: str) -> Outcome:
    """The schedule is kept already; a scheduler that is away reads it when it is back."""
    try:
        standing = await api.command(owner, PlanStrategy(strategy_id=strategy_id))
    except ServiceUnavailable as error:
        api.board.mark(strategy_id)
        note = f"kept; it takes effect later: {error.detail}"
        return Outcome(note=note, strategy=await api.board.get(owner, strategy_id))
    return await _outcome(api, owner, standing)


async def _known_exchange(api: Api, exchange: str) -> str:
    """The exchange's code. Raises UnknownExchange, naming the field."""
    today = utc_now().date()
    code = exchange.strip().upper()
    if not code.isascii() or len(code) > 32 or "\0" in code:
        raise InvalidRequest("exchange: write a code like NSE")
    try:
        await api.bus.request(ListSessions(segment=code, first=today, last=today))
    except UnknownExchange as error:
        field = {"field": "exchange", "message": error.detail}
        raise UnknownExchange(error.detail, errors=[field]) from None
    return code
