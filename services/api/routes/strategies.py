"""The strategies of the caller: upload, watch, start, stop, delete."""

from typing import Annotated

from fastapi import APIRouter, File, Form, Query, Request, Response, UploadFile
from fastapi.responses import FileResponse
from pydantic import BaseModel

from openbell.contracts.commands import (
    RestartStrategy,
    ResumeStrategy,
    RetireStrategy,
    StartStrategy,
    StopStrategy,
)
from openbell.contracts.errors import StrategyIsRunning
from openbell.contracts.model import RestartPolicy, RunState, Scope
from services.api import policies, uploads
from services.api.access import (
    Editing,
    Operating,
    OwnOperating,
    Reading,
    Trading,
    everybodys,
    own,
)
from services.api.audit import entry
from services.api.context import Api
from services.api.environments import locked
from services.api.exchanges import code_of
from services.api.outcomes import Outcome, outcome
from services.api.pages import PAGE
from services.api.requirements import check_environment
from services.api.stopping import Hold, Stopped, StopWait, stop_all
from services.api.view import StrategyView, has_ended

router = APIRouter(prefix="/python", tags=["strategies"])

GONE_S = 60

Wait = Annotated[
    float,
    Query(ge=0, le=60, description="Answer only once it is done, after at most so many seconds."),
]


class StrategyList(BaseModel):
    strategies: list[StrategyView]


@router.get("/", summary="List your strategies", response_model=StrategyList)
async def list_strategies(
    request: Request,
    api: Api,
    everybody: Annotated[bool, Query(description="All there are; for admins.")] = False,
) -> Response:
    """Yours, and what is shared with you. In a browser, this is the page.

    Without `everybody` it is `services/api/listing.py` that answers.
    """
    if "text/html" in request.headers.get("accept", ""):
        return FileResponse(PAGE / "index.html")
    if everybody:
        act = await everybodys(Scope.READ)(request, api)
        await api.audit.write([entry(act)])
        body = await api.board.all(act.caller)
    else:
        act = await own(Scope.READ)(request, api)
        body = await api.board.list(act.caller)
    return Response(b'{"strategies":' + body + b"}", media_type="application/json")


@router.get("/status/{strategy_id}", summary="Tell where a strategy stands")
async def status(act: Reading) -> StrategyView:
    return act.strategy


@router.post("/upload", status_code=201, summary="Upload a strategy")
async def upload(
    request: Request,
    act: Trading,
    api: Api,
    file: Annotated[UploadFile, File(description="One .py file, UTF-8.")],
    name: Annotated[str | None, Form(description="By default, the file's.")] = None,
    exchange: Annotated[
        str | None, Form(description="Handed to the script as OPENALGO_STRATEGY_EXCHANGE.")
    ] = None,
    parameters: Annotated[
        str | None, Form(description='Environment variables: {"SYMBOL": "SBIN"}')
    ] = None,
    secrets: Annotated[str | None, Form(description='Masked in logs: {"PIN": "1234"}')] = None,
    uses: Annotated[
        str | None,
        Form(description='Your own secrets by name: {"OPENALGO_API_KEY": "zerodha-live"}'),
    ] = None,
    limits: Annotated[
        str | None,
        Form(description='What its runs may use: {"limits": {"memory_mb": 512}, "watchdogs": {…}}'),
    ] = None,
    restart: Annotated[RestartPolicy | None, Form()] = None,
    stop_grace_s: Annotated[
        float | None,
        Form(ge=0, le=600, description="Seconds to clean up in, before it is killed: 15."),
    ] = None,
    requirements: Annotated[
        str | None,
        Form(
            description="A requirements.txt: names and versions, no options, paths or links. By"
            " default, what the script's block `# /// script` (PEP 723) names, or else the default"
            " packages."
        ),
    ] = None,
    python: Annotated[
        str | None,
        Form(description="Like 3.12. By default, the newest that satisfies `requires-python`."),
    ] = None,
) -> Outcome:
    """The script is compiled first: a syntax error is told with its line and column.

    What it names of packages is locked to exact versions with hashes, wheels alone. What cannot be
    is refused, with uv's own message, and nothing is kept.
    """
    uploads.check_fields(await request.form())
    source = uploads.check_source(file.filename, await file.read(), api.settings.max_source_bytes)
    chosen = uploads.check_name(name, source.filename)
    variables = uploads.check_form(parameters, secrets, uses)
    policy = policies.of_form(limits, restart, stop_grace_s)
    wanted = check_environment(source.body, requirements, python)
    segment = await code_of(api.bus, exchange) if exchange else None
    environment = await locked(api.bus, api.metrics.runners.alive, wanted)
    strategy_id = await api.store.create(
        act,
        chosen,
        source,
        exchange=segment,
        variables=variables,
        policy=policy,
        environment=environment,
    )
    api.board.mark(strategy_id)
    return Outcome(strategy=await api.board.get(strategy_id))


@router.post("/start/{strategy_id}", status_code=202, summary="Start a strategy now")
async def start(act: Operating, api: Api, wait: Wait = 0) -> Outcome:
    """At any time, whatever its schedule says. With `wait`, until it runs or has failed to."""
    standing = await api.command(act, StartStrategy(strategy_id=act.id))
    return await outcome(
        api,
        act,
        standing.note,
        lambda view: (
            view.run is not None
            and view.run.epoch >= standing.epoch
            and view.run.state in {RunState.RUNNING, RunState.EXITED}
        ),
        wait if standing.run_id else 0,
    )


@router.post("/stop/{strategy_id}", status_code=202, summary="Stop a strategy now")
async def stop(act: Operating, api: Api, wait: Wait = 0) -> Outcome:
    """It stays stopped until it is started or resumed. With `wait`, until all of it is gone."""
    standing = await api.command(act, StopStrategy(strategy_id=act.id))
    return await outcome(api, act, standing.note, has_ended, wait)


@router.post("/restart/{strategy_id}", status_code=202, summary="Stop and start a strategy")
async def restart(act: Operating, api: Api, wait: Wait = 0) -> Outcome:
    """The new run begins when the old one is gone. With `wait`, until the new one runs."""
    epoch = act.strategy.run.epoch if act.strategy.run else 0
    standing = await api.command(act, RestartStrategy(strategy_id=act.id))
    return await outcome(
        api,
        act,
        standing.note,
        lambda view: (
            view.run is not None
            and view.run.epoch > epoch
            and view.run.state in {RunState.RUNNING, RunState.EXITED}
        ),
        wait,
    )


@router.post("/resume/{strategy_id}", status_code=202, summary="Let the schedule decide again")
async def resume(act: Operating, api: Api) -> Outcome:
    standing = await api.command(act, ResumeStrategy(strategy_id=act.id))
    return await outcome(api, act, standing.note)


@router.post("/stop-all", summary="Stop all your strategies")
async def stop_mine(
    act: OwnOperating, api: Api, wait: StopWait = 600, hold: Hold = True
) -> Stopped:
    """Answers when all of them are gone, with a list. They stay stopped until you start or resume
    them.
    """
    return await stop_all(api, act, act.caller.user, wait, hold=hold)


class Deleted(BaseModel):
    id: str
    note: str | None = None


@router.delete("/delete/{strategy_id}", summary="Delete a strategy")
async def delete(
    act: Editing,
    api: Api,
    stop: Annotated[bool, Query(description="Stop it first, if it runs.")] = False,
) -> Deleted:
    """Refused while it runs, unless `stop` is asked for. Its logs stay.

    Deleted only when all of its run is gone: until then it is shown, and holds its name.
    """
    async with api.requesting(act):
        standing = await api.bus.request(RetireStrategy(strategy_id=act.id, stop=stop))
        api.board.mark(act.id)
        view = await api.board.wait_for(act.id, has_ended, GONE_S)
        if not has_ended(view):
            raise StrategyIsRunning(
                f"{view.name} is told to stop and still cleans up: delete it later"
            )
        await api.store.delete(act)
    api.board.mark(act.id)
    return Deleted(id=act.id, note="it was stopped first" if standing.run_id else None)
