"""Follows a stream: in order, without gaps, from any number on."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator

import structlog

from openbell.bus import Bus, Stored
from openbell.contracts.errors import ServiceUnavailable

MOST = 256
LOOK_S = 5.0
"""How often the stream itself is asked, whether or not the live feed says anything."""
RETRY_S = 0.5

log = structlog.get_logger()


class Feed:
    """Everything that a stream keeps after a number, then all that comes, in batches.

    The live feed carries the stream's consecutive numbers. Where one is missing (a lost
    connection, a slow moment), the stream is asked for it, by number, before going on.
    """

    def __init__(
        self, bus: Bus, stream: str, after: int, caught_up: asyncio.Event | None = None
    ) -> None:
        """`caught_up` is set once everything was yielded, and taken, that the stream keeps."""
        self._caught_up = caught_up or asyncio.Event()
        self._bus = bus
        self._stream = stream
        self._after = after
        self._live: deque[Stored] = deque()
        self._behind = True
        self._wake = asyncio.Event()

    async def batches(self) -> AsyncIterator[list[Stored]]:
        async with self._bus.listening(self._stream, self._told):
            while True:
                try:
                    batch = await self._read() if self._behind else self._take()
                except ServiceUnavailable as error:
                    log.warning("a stream cannot be read", stream=self._stream, why=error.detail)
                    await asyncio.sleep(RETRY_S)
                    continue
                if batch:
                    self._after = batch[-1].sequence
                    yield batch
                elif not self._behind:
                    self._caught_up.set()
                    await self._rest()

    def _told(self, message: Stored | None) -> None:
        if message is None:
            self._behind = True
        else:
            self._live.append(message)
        self._wake.set()

    async def _rest(self) -> None:
        try:
            async with asyncio.timeout(LOOK_S):
                await self._wake.wait()
        except TimeoutError:
            self._behind = True
        self._wake.clear()

    def _take(self) -> list[Stored]:
        """What the live feed has brought, up to the first gap."""
        batch: list[Stored] = []
        expected = self._after + 1
        while self._live and len(batch) < MOST:
            message = self._live.popleft()
            if message.sequence > expected:
                self._behind = True
                break
            if message.sequence == expected:
                batch.append(message)
                expected += 1
        return batch

    async def _read(self) -> list[Stored]:
        """What the stream keeps; once that is all, the live feed is trusted again."""
        self._behind = False  # a gap that is told of while we read counts again
        batch: list[Stored] = []
        after = self._after
        try:
            last = (await self._bus.stream_state(self._stream)).last
            while after < last and len(batch) < MOST:
                message = await self._bus.next_stored(self._stream, after)
                if message is None:
                    after = last
                    break
                batch.append(message)
                after = message.sequence
        except ServiceUnavailable:
            self._behind = True
            raise
        self._behind |= len(batch) == MOST
        self._after = max(self._after, after) if not batch else self._after
        return batch
