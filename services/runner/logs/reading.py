"""Reads a log as it may be seen outside of this host: without its secrets."""

import asyncio
import time
from collections.abc import Callable

from openbell.contracts.errors import UnknownRun
from openbell.contracts.logs import MOST_READ, LogChunk, ReadLog
from openbell.redaction import SHORTEST, STAR
from services.runner.logs.ranges import Window, window
from services.runner.logs.runlog import LogBook
from services.runner.logs.secrets import Hidden, Secrets

POLL_S = 0.05
HOLD_S = 10.0
"""How long the beginning of what may become a secret is held back from those who follow a log."""


class Reader:
    def __init__(
        self, book: LogBook, secrets: Secrets, clock: Callable[[], float] = time.time
    ) -> None:
        self._book = book
        self._secrets = secrets
        self._clock = clock

    async def read(self, command: ReadLog) -> LogChunk:
        """Waits for more as it is told to. Raises UnknownRun, LogWithheld."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + command.wait_s
        hidden = await self._secrets.of(command.run_id, command.secrets)
        while True:
            late = loop.time() >= deadline
            try:
                chunk = await asyncio.to_thread(self.read_now, command, hidden)
            except UnknownRun:
                if late:
                    raise
            else:
                if chunk.data or chunk.reset or late:
                    return chunk
            await asyncio.sleep(POLL_S)

    def read_now(self, command: ReadLog, hidden: Hidden) -> LogChunk:
        """Off the event loop. Raises UnknownRun."""
        limit = min(command.limit, MOST_READ)
        try:
            log = self._book.of(command.strategy_id, command.run_id)
            found = window(
                log, command.offset, limit, hidden.mask.reach, generation=command.generation
            )
        except FileNotFoundError:
            raise UnknownRun(f"{command.run_id} has no log on this runner") from None
        quiet_s = max(0.0, self._clock() - found.written_at)
        return masked(found, hidden, limit=limit, live=command.live, quiet_s=quiet_s)


def masked(found: Window, hidden: Hidden, *, limit: int, live: bool, quiet_s: float) -> LogChunk:
    """What was asked for, of what was read around it.

    The end of a log may be half of a secret. While the run is live, it is held back until more is
    written, or masked once nothing was written for a while; when the run has ended, it is masked,
    unless it is so little that any line may end so. What was dropped may have cut one in two as
    well: the rest of it is masked.
    """
    start, end = found.start, min(found.start + limit, found.end)
    data = bytearray(hidden.mask.masked(found.data))
    if found.end >= found.size:
        half = hidden.mask.unfinished(found.data)
        if live and quiet_s < HOLD_S:
            end = max(start, min(end, found.end - half))
        elif live or half >= SHORTEST:
            data[len(data) - half :] = STAR * half
    if found.first and found.begin == found.first:
        cut = hidden.mask.beheaded(found.data)
        data[:cut] = STAR * cut
    return LogChunk.model_construct(
        offset=start,
        next_offset=end,
        size=found.size,
        data=bytes(data[start - found.begin : end - found.begin]),
        first=found.first,
        generation=found.generation,
        reset=found.reset,
        secrets=hidden.version,
    )
