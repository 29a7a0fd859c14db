"""GET /python/events: server-sent events, as plain ASGI for the sake of many clients."""

import asyncio
import contextlib
import json
import re
from collections.abc import Iterable
from typing import Any

import structlog

from openbell.bus import EVENTS, Bus
from openbell.contracts.base import Event
from openbell.contracts.errors import MethodNotAllowed
from openbell.front_door import Incoming, Outgoing, Scope, send_problem
from openbell.identity import caller
from openbell.settings import StatusSettings
from services.status.fanout import Client, Fanout, Frame

HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]
HEARTBEAT = b": still here\n\n"
REPLAY_MOST = 5000
NUMBER = re.compile(r"[0-9]{1,18}")
LET_GO_S = 5.0
"""How long a client that has fallen behind may take to hear that it has."""

log = structlog.get_logger()


class EventStream:
    """The ASGI app."""

    def __init__(self, bus: Bus, fanout: Fanout, settings: StatusSettings) -> None:
        self._bus = bus
        self._fanout = fanout
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Incoming, send: Outgoing) -> None:
        if scope["method"] != "GET":
            await send_problem(send, MethodNotAllowed("use GET"))
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        owner = caller(headers).owner
        client = self._fanout.join(owner, self._settings.queue_size)
        try:
            await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
            last_id = headers.get(b"last-event-id", b"").decode("latin-1")
            writing = asyncio.create_task(self._write(client, last_id, send))
            leaving = asyncio.create_task(_disconnected(receive))
            hopeless = asyncio.create_task(_hopeless(client))
            tasks = {writing, leaving, hopeless}
            try:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            if writing in done and writing.exception() is not None:
                log.error("an event stream failed", exc_info=writing.exception())
            if hopeless in done:
                return  # it would not read a farewell either
            with contextlib.suppress(OSError):
                await send({"type": "http.response.body", "body": b""})
        finally:
            self._fanout.leave(client)

    async def _write(self, client: Client, last_id: str, send: Outgoing) -> None:
        """Whatever was missed, then whatever comes. `client` is queueing from before the replay."""
        seen = self._fanout.sequence
        missed = await self._missed(client.owner, last_id, seen)
        if missed is None:
            await _send(send, [_control(self._fanout, seen, "reset", "events were missed")])
        else:
            await _send(send, [_control(self._fanout, seen, "hello", "connected"), *missed])
        while True:
            frames = await self._next_frames(client)
            if client.overflowed.is_set():
                last, reason = self._fanout.sequence, "this client is too slow"
                await _send(send, [_control(self._fanout, last, "reset", reason)])
                return
            await _send(send, [f.data for f in frames if f.sequence > seen] or [HEARTBEAT])

    async def _next_frames(self, client: Client) -> list[Frame]:
        """What is queued, waiting for the first; nothing when it is time for a heartbeat."""
        frames: list[Frame] = []
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.heartbeat_s):
                frames.append(await client.queue.get())
        while frames and not client.queue.empty():
            frames.append(client.queue.get_nowait())
        return frames

    async def _missed(self, owner: str, last_id: str, until: int) -> list[bytes] | None:
        """What `owner` missed since `last_id`, up to `until`; None when that cannot be told."""
        if not last_id:
            return []
        incarnation, _, number = last_id.rpartition("-")
        if incarnation != self._fanout.incarnation or not NUMBER.fullmatch(number):
            return None
        after = int(number)
        if after >= until:
            return [] if after == until else None
        recent = self._fanout.recent(owner, after)
        if recent is not None:
            return [frame.data for frame in recent if frame.sequence <= until]
        return await self._stored(owner, after, until)

    async def _stored(self, owner: str, after: int, until: int) -> list[bytes] | None:
        if after + 1 < (await self._bus.stream_state(EVENTS)).first:
            return None
        frames: list[bytes] = []
        while len(frames) < REPLAY_MOST:
            event = await self._bus.next_stored(EVENTS, after, Event.subjects(owner))
            if event is None or event.sequence > until:
                return frames
            frames.append(self._fanout.encode(event).data)
            after = event.sequence
        return None


def _control(fanout: Fanout, sequence: int, kind: str, reason: str) -> bytes:
    """An event of the stream itself: `hello`, or `reset`: load the state afresh, then go on."""
    data = json.dumps({"reason": reason})
    return f"id: {fanout.incarnation}-{sequence}\nevent: {kind}\ndata: {data}\n\n".encode()


async def _send(send: Outgoing, frames: Iterable[bytes]) -> None:
    body: dict[str, Any] = {"type": "http.response.body", "more_body": True}
    await send(body | {"body": b"".join(frames)})


async def _hopeless(client: Client) -> None:
    """It has fallen behind, and does not even read that it has."""
    await client.overflowed.wait()
    await asyncio.sleep(LET_GO_S)


async def _disconnected(receive: Incoming) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
