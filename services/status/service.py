"""Fans events out to browsers."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator

from openbell.bus import Bus
from openbell.front_door import Asgi
from openbell.settings import Settings
from services.status.fanout import Fanout
from services.status.stream import EventStream


@contextlib.asynccontextmanager
async def serve(settings: Settings, bus: Bus) -> AsyncGenerator[Asgi]:
    fanout = Fanout(bus, await bus.incarnation(), await bus.last_sequence())
    await bus.on_stored(fanout.told)
    fanout.told(None)  # what was stored between the count and the subscription
    following = asyncio.create_task(fanout.follow())
    try:
        yield EventStream(bus, fanout, settings.status)
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
