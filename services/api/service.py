"""The HTTP API."""

import contextlib
import mimetypes
from collections.abc import AsyncGenerator

from fastapi import FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

from openbell import __version__
from openbell.bus import EVENTS, Bus
from openbell.contracts.commands import GetRunEnvironment, PublishArtifact
from openbell.db.migrate import require_current
from openbell.db.models import ApiOutbox
from openbell.db.session import Database
from openbell.front_door import Asgi
from openbell.outbox import Outbox
from openbell.settings import Settings
from services.api import errors
from services.api.board import Board
from services.api.context import Context
from services.api.limits import limited
from services.api.listing import listed
from services.api.page import PAGE, guarded
from services.api.routes import strategies
from services.api.store import Store

FORM_OVERHEAD = 64 * 1024


def create_app(context: Context) -> FastAPI:
    app = FastAPI(
        title="Openbell",
        version=__version__,
        description="Hosts Python trading strategies. Errors are problem+json with a `code`.",
        docs_url=None,  # its scripts come from a third party
        redoc_url=None,
    )
    app.state.context = context
    errors.install(app)
    app.include_router(strategies.router)

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:  # pyright: ignore[reportUnusedFunction]
        return FileResponse(PAGE / "index.html")

    @app.get("/healthz", tags=["operation"], summary="Tell that this process answers")
    async def healthz() -> dict[str, str]:  # pyright: ignore[reportUnusedFunction]
        return {"status": "ok"}

    mimetypes.add_type("text/javascript", ".js")  # a Windows registry may say text/plain
    app.mount("/page", StaticFiles(directory=PAGE), name="page")
    return app


@contextlib.asynccontextmanager
async def serve(settings: Settings, bus: Bus) -> AsyncGenerator[Asgi]:
    await require_current(settings.database_url)
    database = Database(settings.database_url)
    outbox = Outbox(ApiOutbox, database, bus)
    board = Board(database)
    context = Context(bus, board, Store(database, outbox), settings.api)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(database.close)
        await stack.enter_async_context(outbox.publishing())
        await stack.enter_async_context(bus.listening(EVENTS, board.told))
        await bus.answer(PublishArtifact, context.answer_publish)
        await bus.answer(GetRunEnvironment, context.answer_environment)
        app = guarded(create_app(context))
        app = limited(app, settings.api.max_source_bytes + FORM_OVERHEAD)
        yield listed(app, board)
