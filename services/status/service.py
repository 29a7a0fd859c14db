"""Fans events out to browsers."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator

import structlog

from openbell.bus import EVENTS, Bus
from openbell.feed import Feed
from openbell.front_door import Asgi
from openbell.settings import Settings
from services.status.fanout import Fanout
from services.status.stream import EventStream

RETRY_S = 1.0

log = structlog.get_logger()


@contextlib.asynccontextmanager
async def serve(settings: Settings, bus: Bus) -> AsyncGenerator[Asgi]:
    fanout = Fanout(await bus.stream_state(EVENTS))
    following = asyncio.create_task(_follow(bus, fanout))
    try:
        yield EventStream(bus, fanout, settings.status)
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def _follow(bus: Bus, fanout: Fanout) -> None:
    while True:
        try:
            async for batch in Feed(bus, EVENTS, fanout.sequence).batches():
                for event in batch:
                    fanout.publish(event)
        except Exception:
            log.exception("the event stream could not be followed; it goes on where it was")
            await asyncio.sleep(RETRY_S)
