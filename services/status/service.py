"""Fans events out to browsers."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator

import structlog

from openbell.bus import EVENTS, Bus
from openbell.db.migrate import require_current
from openbell.db.session import Database
from openbell.feed import Feed
from openbell.front_door import Asgi
from openbell.identity import Identities
from openbell.settings import Settings
from services.status.fanout import Fanout
from services.status.stream import EventStream

RETRY_S = 1.0

log = structlog.get_logger()


@contextlib.asynccontextmanager
async def serve(settings: Settings, bus: Bus) -> AsyncGenerator[Asgi]:
    await require_current(settings.database_url)
    database = Database(settings.database_url)
    identities = Identities(database)
    fanout = Fanout(await bus.stream_state(EVENTS))
    following = asyncio.create_task(_follow(bus, fanout, identities))
    try:
        yield EventStream(bus, fanout, identities, settings.status)
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await database.close()


async def _follow(bus: Bus, fanout: Fanout, identities: Identities) -> None:
    while True:
        try:
            async for batch in Feed(bus, EVENTS, fanout.sequence).batches():
                for event in batch:
                    identities.told(event)  # before the clients, who are looked up anew by it
                    fanout.publish(event)
        except Exception:
            log.exception("the event stream could not be followed; it goes on where it was")
            await asyncio.sleep(RETRY_S)
