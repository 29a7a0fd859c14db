"""A run's log as server-sent events: what there is, then each line as it comes, until it ends.

`id` is where to go on: the generation, and the offset behind what was sent. Events: `lines`;
`reset`, when the script cut its log: what was shown is of an earlier generation; `ended`, when
nothing will follow; `closed`, when the reader may read it no longer; `trouble`, while it cannot
be read.
"""

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass

import structlog
from fastapi import Response

from openbell.contracts.errors import (
    NotAllowed,
    NotSignedIn,
    OpenbellError,
    UnknownRun,
    UnknownStrategy,
)
from openbell.db.models import Run
from openbell.front_door import Incoming, Outgoing, Scope
from services.api.log_relay import Frame, Relay, Relays, Viewer, control, framed
from services.api.logs import Logs

SLICE_S = 1.0
"""How often it is asked whether the reader still may, when nothing comes."""
HEARTBEAT_S = 15.0
HEARTBEAT = b": still here\n\n"
RETRY_S = 1.0
RESET = "the script has cut its log"
LET_GO_S = 5.0
"""How long one who has fallen behind may take to hear it."""
PIECE = 131_072
LAST_ID = re.compile(r"([0-9]{1,9})-([0-9]{1,18})")
HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"x-accel-buffering", b"no"),
]

log = structlog.get_logger()


@dataclass(slots=True)
class Cursor:
    """How far somebody has read."""

    offset: int
    generation: int | None = None

    def move(self, frame: Frame) -> None:
        self.offset, self.generation = frame.next_offset, frame.chunk.generation

    def meets(self, frame: Frame) -> bool:
        """Whether the frame is just what follows."""
        return (self.offset, self.generation) == (frame.chunk.offset, frame.chunk.generation)

    def is_behind(self, frame: Frame) -> bool:
        """Whether something in the frame, or before it, was not read."""
        return self.generation != frame.chunk.generation or self.offset < frame.next_offset


def cursor_of(last_id: str, offset: int) -> Cursor:
    match = LAST_ID.fullmatch(last_id)
    return Cursor(int(match[2]), int(match[1])) if match else Cursor(offset)


class LogStream(Response):
    """Holds the connection until it ends, or its reader has fallen too far behind."""

    def __init__(
        self,
        logs: Logs,
        relays: Relays,
        run: Run,
        user: str,
        cursor: Cursor,
        may: Callable[[], Awaitable[object]],
    ) -> None:
        super().__init__()
        self._logs = logs
        self._relays = relays
        self._run = run
        self._user = user
        self._cursor = cursor
        self._may = may
        self._begun = False

    async def __call__(self, _scope: Scope, receive: Incoming, send: Outgoing) -> None:
        async with self._relays.following(self._run, self._user) as (relay, viewer):
            await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
            tasks = [
                asyncio.create_task(work)
                for work in (
                    self._write(relay, viewer, send),
                    _disconnected(receive),
                    _hopeless(viewer),
                )
            ]
            writing, _, hopeless = tasks
            try:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            if writing in done and (error := writing.exception()) is not None:
                log.error("a followed log failed", run=self._run.id, exc_info=error)
            if hopeless in done:
                return
            with contextlib.suppress(OSError):
                await send({"type": "http.response.body", "body": b""})

    async def _write(self, relay: Relay, viewer: Viewer, send: Outgoing) -> None:
        async with contextlib.aclosing(self._frames(relay, viewer)) as frames:
            async for frame in frames:
                await send({"type": "http.response.body", "body": frame, "more_body": True})

    async def _frames(self, relay: Relay, viewer: Viewer) -> AsyncGenerator[bytes]:
        """Each is sent only after it was asked whether its reader still may."""
        sent_at = time.monotonic()
        try:
            while not viewer.dropped.is_set():
                if viewer.missed:
                    piece = await self._read_on(relay, viewer)
                else:
                    piece = self._taken(await viewer.next(SLICE_S), viewer)
                await self._may()
                if piece:
                    yield piece
                elif viewer.ended and not viewer.missed:
                    yield control("ended", "the run has ended")
                    return
                elif time.monotonic() - sent_at >= HEARTBEAT_S:
                    yield HEARTBEAT
                else:
                    continue
                sent_at = time.monotonic()
        except (NotSignedIn, NotAllowed, UnknownStrategy) as error:
            yield control("closed", error.detail)

    async def _read_on(self, relay: Relay, viewer: Viewer) -> bytes:
        """The next piece of what was missed, the first one also if it is empty: it tells where the
        reader stands. Nothing when all was read: then lines are told.

        What is told while we read is kept, so that nothing falls between the two.
        """
        viewer.reading, viewer.missed = True, False
        cursor, run = self._cursor, relay.run
        try:
            chunk = await self._logs.read(
                run, offset=cursor.offset, generation=cursor.generation, limit=PIECE
            )
        except UnknownRun:
            return b""  # it has ended without a log, or what it had is gone
        except OpenbellError as error:
            viewer.must_read()
            await asyncio.sleep(RETRY_S)
            return control("trouble", error.detail)
        frame = framed(run, chunk)
        cursor.move(frame)
        begun, self._begun = self._begun, True
        if not begun or frame.next_offset > chunk.offset or chunk.reset:
            viewer.must_read()
            return (control("reset", RESET) if chunk.reset else b"") + frame.encoded
        viewer.reading = False
        return b""

    def _taken(self, frame: Frame | None, viewer: Viewer) -> bytes:
        """What of a frame was not sent yet. With a gap before it, it is read instead."""
        if frame is None:
            return b""
        if self._cursor.meets(frame):
            self._cursor.move(frame)
            return frame.encoded
        if self._cursor.is_behind(frame):
            viewer.must_read()
        return b""


async def _hopeless(viewer: Viewer) -> None:
    """It has fallen behind, and does not even read that it has."""
    await viewer.dropped.wait()
    await asyncio.sleep(LET_GO_S)


async def _disconnected(receive: Incoming) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
