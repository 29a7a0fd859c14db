"""The HTTP API."""

import contextlib
import mimetypes
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import timedelta

from fastapi import FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

from openbell import __version__
from openbell.bus import EVENTS, Bus, Stored
from openbell.contracts.commands import GetRunEnvironment, PublishArtifact, RecordLook
from openbell.contracts.logs import GetLogSecrets
from openbell.db.migrate import require_current
from openbell.db.models import ApiOutbox
from openbell.db.session import Database
from openbell.front_door import Asgi
from openbell.identity import Identities
from openbell.outbox import Outbox
from openbell.settings import Settings
from services.api import errors, requirements
from services.api.audit import Audit
from services.api.auth.changes import Changes
from services.api.auth.home import prepare
from services.api.auth.passwords import Passwords
from services.api.auth.people import People
from services.api.auth.sessions import Sessions
from services.api.auth.tokens import Tokens
from services.api.board import Board
from services.api.context import Context
from services.api.limits import limited
from services.api.listing import listed
from services.api.log_relay import Relays
from services.api.logs import Logs
from services.api.metrics.listener import Metrics
from services.api.pages import PAGE, PAGES, guarded
from services.api.routes import (
    admin,
    auth,
    calendar,
    environments,
    limits,
    logs,
    runners,
    runs,
    schedules,
    sharing,
    strategies,
    variables,
)
from services.api.store import Store
from services.api.variables.delivery import Delivery
from services.api.variables.keyring import Keyring
from services.api.variables.masks import Masks
from services.api.variables.rotation import Rotation
from services.api.variables.vault import Vault

FORM_OVERHEAD = 64 * 1024 + requirements.MOST_BYTES
KEYS = "keys"
"""The file, below `data`, of the keys under which variables are sealed."""


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
    for routes in (
        *(strategies, runs, logs, schedules, limits, environments, sharing, variables),
        *(runners, calendar, auth, admin),
    ):
        app.include_router(routes.router)
    for path, file in PAGES.items():
        app.add_api_route(path, _page(file), include_in_schema=False)

    @app.get("/healthz", tags=["operation"], summary="Tell that this process answers")
    async def healthz() -> dict[str, str]:  # pyright: ignore[reportUnusedFunction]
        return {"status": "ok"}

    mimetypes.add_type("text/javascript", ".js")  # a Windows registry may say text/plain
    app.mount("/page", StaticFiles(directory=PAGE), name="page")
    return app


def _page(file: str) -> Callable[[], Awaitable[FileResponse]]:
    async def page() -> FileResponse:
        return FileResponse(PAGE / file)

    return page


@contextlib.asynccontextmanager
async def serve(settings: Settings, bus: Bus) -> AsyncGenerator[Asgi]:
    await require_current(settings.database_url)
    database = Database(settings.database_url)
    outbox = Outbox(ApiOutbox, database, bus)
    identities = Identities(database)
    keys = settings.api.keys.get_secret_value() if settings.api.keys else None
    keyring = Keyring.of(keys, settings.data / KEYS)
    rotation = Rotation(database, keyring)
    vault = Vault(database, outbox, keyring)
    changes = Changes(database, outbox, identities)
    passwords = Passwords()
    sessions = Sessions(changes, passwords, timedelta(days=settings.api.session_days))
    await prepare(changes, settings.data)
    await rotation.start()
    board = Board(database)
    metrics = Metrics(board)
    masks = Masks(database, keyring)
    store = Store(database, outbox, identities, vault)
    run_logs = Logs(bus, masks)
    relays = Relays(bus, store, run_logs)
    delivery = Delivery(bus, database, keyring, masks)
    context = Context(
        bus=bus,
        board=board,
        store=store,
        settings=settings.api,
        identities=identities,
        people=People(changes, passwords, sessions, settings.data),
        sessions=sessions,
        tokens=Tokens(changes),
        audit=Audit(database),
        vault=vault,
        logs=run_logs,
        relays=relays,
        rotation=rotation,
        metrics=metrics,
    )

    def told(event: Stored | None) -> None:
        identities.told(event)
        context.board.told(event)

    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(database.close)
        await stack.enter_async_context(outbox.publishing())
        await stack.enter_async_context(bus.listening(EVENTS, told))
        await bus.on_presence(metrics.runners.heard)
        await stack.enter_async_context(bus.hearing_metrics(metrics.told))
        await bus.answer(PublishArtifact, context.answer_publish)
        await bus.answer(RecordLook, context.answer_look)
        await bus.answer(GetRunEnvironment, delivery.answer)
        await bus.answer(GetLogSecrets, delivery.answer_log)
        stack.push_async_callback(relays.close)
        app = guarded(create_app(context))
        app = limited(app, settings.api.max_source_bytes + FORM_OVERHEAD)
        yield listed(app, context.board, identities, sessions)
