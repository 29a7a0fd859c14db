"""The logs of runs: read, followed, searched, downloaded, cleared."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from openbell.contracts.commands import ForgetOutput
from openbell.contracts.logs import LONGEST_SOUGHT, MOST_HITS, MOST_READ, ClearLog, SearchLog
from openbell.contracts.model import Scope
from services.api.access import Editing, Reading, on_strategy
from services.api.acts import StrategyAct
from services.api.audit import entry
from services.api.context import Api, Context
from services.api.log_stream import LogStream, cursor_of
from services.api.logs import LogView, SearchView, log_view, search_view

router = APIRouter(prefix="/python", tags=["logs"])

SLICE_S = 1.0
"""While a log is followed, how often it is asked whether the run still lives, and its reader still
may."""
CLEAR_S = 20.0

WhichRun = Annotated[str | None, Query(alias="run", description="By default, the latest.")]
Offset = Annotated[
    int, Query(description="In bytes, from the beginning; a negative one counts from the end.")
]


@router.get(
    "/logs/{strategy_id}",
    summary="Read a run's log",
    response_model=LogView,
    responses={200: {"content": {"text/plain": {}}}},
)
async def logs(
    request: Request,
    act: Reading,
    api: Api,
    run: WhichRun = None,
    offset: Offset = -65_536,
    generation: Annotated[
        int | None, Query(description="Of which the offset is; by default, of the present one.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=MOST_READ, description="Bytes at most.")] = 65_536,
    wait: Annotated[
        float, Query(ge=0, le=20, description="Seconds to wait while there is nothing new.")
    ] = 0,
    format_: Annotated[Literal["json", "text"], Query(alias="format")] = "json",
) -> Response:
    """To follow, ask again from `next_offset`, or open the stream. With `format=text`, the text
    alone.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + wait
    may = _may_read(act, request, api)
    while True:
        row = await api.store.run(act.id, run)
        left = deadline - loop.time()
        chunk = await api.logs.read(
            row,
            offset=offset,
            limit=limit,
            generation=generation,
            wait_s=max(0, min(left, SLICE_S)),
        )
        view = log_view(row, chunk)
        await may()  # it may have been revoked meanwhile
        if view.content or view.ended or view.reset or left <= 0:
            break
    if format_ == "text":
        return Response(view.content, media_type="text/plain")
    return Response(view.model_dump_json(), media_type="application/json")


@router.get(
    "/logs/{strategy_id}/stream",
    summary="Follow a run's log",
    response_class=Response,
    responses={200: {"content": {"text/event-stream": {}}}},
)
async def follow_log(
    request: Request,
    act: Reading,
    api: Api,
    run: WhichRun = None,
    offset: Offset = -65_536,
    after: Annotated[str, Query(description="The id behind which a stream is to go on.")] = "",
    last_event_id: Annotated[str, Header(description="The same; it wins.")] = "",
) -> Response:
    """Server-sent events: what there is from `offset` on, then each line as it comes, until the run
    ends.
    """
    row = await api.store.run(act.id, run)
    may = _may_read(act, request, api)
    cursor = cursor_of(last_event_id or after, offset)
    return LogStream(api.logs, api.relays, row, act.caller.user, cursor, may)


@router.get("/logs/{strategy_id}/search", summary="Search a run's log")
async def search_log(
    act: Reading,
    api: Api,
    text: Annotated[str, Query(min_length=1, max_length=LONGEST_SOUGHT)],
    run: WhichRun = None,
    regex: Annotated[bool, Query(description="It is a regular expression of Python's.")] = False,
    ignore_case: bool = False,
    before: Annotated[
        int | None, Query(ge=0, description="Only what lies before this offset.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=MOST_HITS)] = 100,
    seconds: Annotated[float, Query(gt=0, le=10, description="How long it may take.")] = 3,
) -> SearchView:
    """Newest first. What is searched is what would be read: a secret finds nothing."""
    row = await api.store.run(act.id, run)
    command = SearchLog(
        strategy_id=row.strategy_id,
        run_id=row.id,
        user=act.caller.user,
        text=text,
        regex=regex,
        ignore_case=ignore_case,
        before=before,
        limit=limit,
        budget_s=seconds,
        live=row.live,
    )
    return search_view(row, await api.logs.search(row, command))


@router.get(
    "/logs/{strategy_id}/download",
    summary="Download a run's log",
    response_class=Response,
    responses={200: {"content": {"application/gzip": {}}}},
)
async def download_log(
    request: Request, act: Reading, api: Api, run: WhichRun = None
) -> StreamingResponse:
    """All of it that is still there, gzipped. `Openbell-Log-First` tells where that begins."""
    row = await api.store.run(act.id, run)
    begin = await api.logs.read(row, offset=0, limit=1)
    headers = {
        "content-disposition": f'attachment; filename="{row.id}.log.gz"',
        "openbell-log-first": str(begin.first),
    }
    body = api.logs.download(row, _may_read(act, request, api))
    return StreamingResponse(body, media_type="application/gzip", headers=headers)


class Cleared(BaseModel):
    run_id: str
    note: str | None = None


@router.delete("/logs/{strategy_id}", summary="Clear a run's log")
async def clear_log(
    act: Editing,
    api: Api,
    run: Annotated[str, Query(description="A run's id.")],
) -> Cleared:
    """All that it holds until now is gone for good, and what the run's record tells of it. A run
    that lives goes on writing.
    """
    row = await api.store.run(act.id, run)
    async with api.requesting(act):
        command = ClearLog(strategy_id=row.strategy_id, run_id=row.id)
        await api.bus.request(ForgetOutput(run_id=row.id))  # also if its log is gone by now
        await api.bus.request(command, row.runner, timeout_s=CLEAR_S)
    api.board.mark(act.id)
    await api.audit.write([entry(act, on=act.on, before={"run": row.id})])
    note = "it goes on: what it writes from now on is kept" if row.live else None
    return Cleared(run_id=row.id, note=note)


def _may_read(act: StrategyAct, request: Request, api: Context) -> Callable[[], Awaitable[object]]:
    """Asks anew whether the caller may read this strategy's logs, and raises what refuses it."""
    check = on_strategy(Scope.READ)
    return lambda: check(act.id, request, api)
