"""GET /python/events: server-sent events, as plain ASGI for the sake of many clients."""

import asyncio
import contextlib
import json
import re
import time
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import parse_qs

import structlog

from openbell.bus import EVENTS, Bus
from openbell.contracts.base import Event
from openbell.contracts.commands import RecordLook
from openbell.contracts.errors import (
    InvalidRequest,
    MethodNotAllowed,
    NotSignedIn,
    OpenbellError,
)
from openbell.contracts.model import Scope as Granted
from openbell.front_door import Incoming, Outgoing, Scope, send_problem
from openbell.identity import Identities, require, require_admin
from openbell.settings import StatusSettings
from services.status.fanout import Client, Fanout, Frame

HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]
HEARTBEAT = b": still here\n\n"
REPLAY_MOST = 5000
"""Events that a client may have missed, each read from the stream by itself."""
SEARCH_MOST = 500
"""The same, of which only some are theirs."""
SHARED_S = 1.0
"""How old what is known of a client may be when it is handed an event of somebody else. That it
may not see it any more is told by another event, which comes out of another outbox: it may come
later than that of a change that was made later.
"""
NUMBER = re.compile(r"[0-9]{1,18}")
LET_GO_S = 5.0
"""How long a client that has fallen behind may take to hear that it has."""

log = structlog.get_logger()


class EventStream:
    """The ASGI app."""

    def __init__(
        self, bus: Bus, fanout: Fanout, identities: Identities, settings: StatusSettings
    ) -> None:
        self._bus = bus
        self._fanout = fanout
        self._identities = identities
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Incoming, send: Outgoing) -> None:
        if scope["method"] != "GET":
            await send_problem(send, MethodNotAllowed("use GET"))
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        try:
            client = await self._join(scope, headers)
        except OpenbellError as error:
            await send_problem(send, error)
            return
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

    async def _join(self, scope: Scope, headers: dict[bytes, bytes]) -> Client:
        """Raises InvalidRequest, NotSignedIn, NotAllowed, TooManyStreams; ServiceUnavailable, if a
        look cannot be audited.
        """
        everybody = _asks_for_everybody(scope["query_string"])
        caller = await self._identities.caller(headers, SHARED_S)
        require(caller, Granted.READ)
        if everybody:
            require_admin(caller, Granted.READ)
            await self._bus.request(
                RecordLook(
                    user=caller.user,
                    name=caller.name,
                    credential=caller.credential,
                    address=(scope.get("client") or ("",))[0],
                    action="events",
                )
            )
        client = Client(caller, everybody, headers, time.monotonic(), self._settings.queue_size)
        self._fanout.join(client)
        return client

    async def _write(self, client: Client, last_id: str, send: Outgoing) -> None:
        """It ends when the credential that opened it has been revoked, or has expired."""
        try:
            await self._tell(client, last_id, send)
        except NotSignedIn as error:
            last = self._fanout.sequence
            await _send(send, [_control(self._fanout, last, "signed_out", error.detail)])

    async def _tell(self, client: Client, last_id: str, send: Outgoing) -> None:
        """Whatever was missed, then whatever comes. `client` is queueing from before the replay.

        Raises NotSignedIn.
        """
        seen = self._fanout.sequence
        missed = await self._missed(client, last_id, seen)
        if missed is None:
            await _send(send, [_control(self._fanout, seen, "reset", "events were missed")])
        else:
            await self._look_again(client, missed)
            hello = _control(self._fanout, seen, "hello", "connected")
            await _send(send, [hello, *(f.data for f in missed if client.sees(f))])
        while True:
            frames = await self._next_frames(client)
            if client.overflowed.is_set():
                last, reason = self._fanout.sequence, "this client is too slow"
                await _send(send, [_control(self._fanout, last, "reset", reason)])
                return
            await self._look_again(client, frames)
            fresh = [f.data for f in frames if f.sequence > seen and client.sees(f)]
            await _send(send, fresh or [HEARTBEAT])

    async def _look_again(self, client: Client, frames: Sequence[Frame]) -> None:
        """When its account is said to have changed; before it is handed an event of somebody else;
        and now and then. Raises NotSignedIn.
        """
        now = time.monotonic()
        due = now - client.known_at >= self._settings.heartbeat_s
        if due or any(f.of_account or f.owner != client.caller.user for f in frames):
            client.caller = await self._identities.caller(client.headers, SHARED_S)
            client.everybody &= client.caller.administers
            client.known_at = now

    async def _next_frames(self, client: Client) -> list[Frame]:
        """What is queued, waiting for the first; nothing when it is time for a heartbeat."""
        frames: list[Frame] = []
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.heartbeat_s):
                frames.append(await client.queue.get())
        while frames and not client.queue.empty():
            frames.append(client.queue.get_nowait())
        return frames

    async def _missed(self, client: Client, last_id: str, until: int) -> list[Frame] | None:
        """What `client` missed since `last_id`, up to `until`; None when that cannot be told."""
        if not last_id:
            return []
        incarnation, _, number = last_id.rpartition("-")
        if incarnation != self._fanout.incarnation or not NUMBER.fullmatch(number):
            return None
        after = int(number)
        if after >= until:
            return [] if after == until else None
        recent = self._fanout.recent(client, after)
        if recent is not None:
            return [frame for frame in recent if frame.sequence <= until]
        return await self._stored(client, after, until)

    async def _stored(self, client: Client, after: int, until: int) -> list[Frame] | None:
        """From the stream itself. Of others' events some may be theirs: all are looked at."""
        alone = not client.everybody and not client.caller.shared
        subjects = Event.subjects(client.caller.user if alone else None)
        if after + 1 < (await self._bus.stream_state(EVENTS)).first:
            return None
        frames: list[Frame] = []
        for _ in range(REPLAY_MOST if alone else SEARCH_MOST):
            event = await self._bus.next_stored(EVENTS, after, subjects)
            if event is None or event.sequence > until:
                return frames
            frame = self._fanout.encode(event)
            if client.sees(frame):
                frames.append(frame)
            after = event.sequence
        return None


def _asks_for_everybody(query: bytes) -> bool:
    """Raises InvalidRequest."""
    given = parse_qs(query.decode("latin-1"), keep_blank_values=True).get("everybody", ["false"])
    if given not in (["true"], ["false"]):
        raise InvalidRequest.of("everybody", "write true or false")
    return given == ["true"]


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
