"""Tells the lines of a run as they come, while somebody wants them: one tailer a run."""

import asyncio
import contextlib
from collections.abc import Callable

import structlog

from openbell.bus import Bus
from openbell.contracts.errors import OpenbellError, UnknownRun
from openbell.contracts.logs import FollowLog, LogChunk, LogFollowed, LogLines, ReadLog
from services.runner.logs.files import log_file
from services.runner.logs.reading import HOLD_S, Reader
from services.runner.logs.runlog import LogBook
from services.runner.logs.secrets import Secrets
from services.runner.logs.tailer import Watches

PIECE = 131_072
"""Bytes of one message."""
TAIL = 4096

log = structlog.get_logger()


class Follow:
    """A run that is followed, until nobody asks any more."""

    def __init__(self, command: FollowLog, until: float) -> None:
        self.command = command
        """As it was asked last."""
        self.until = until
        self.offset = 0
        self.generation = 0
        self.task: asyncio.Task[None] | None = None


class Following:
    def __init__(
        self,
        bus: Bus,
        runner: str,
        book: LogBook,
        reader: Reader,
        secrets: Secrets,
        live: Callable[[str], bool],
    ) -> None:
        self._bus = bus
        self._runner = runner
        self._book = book
        self._reader = reader
        self._secrets = secrets
        self._live = live
        self._watches = Watches()
        self._follows: dict[str, Follow] = {}

    async def follow(self, command: FollowLog) -> LogFollowed:
        """Begin, or go on for so much longer. Raises UnknownRun, LogWithheld."""
        until = asyncio.get_running_loop().time() + command.for_s
        follow = self._follows.get(command.run_id)
        if follow is None:
            end = await self._end(command)
            follow = self._follows.get(command.run_id)  # another may have begun it meanwhile
            if follow is None:
                follow = Follow(command, until)
                follow.offset, follow.generation = end.next_offset, end.generation
                follow.task = asyncio.create_task(self._tell(follow))
                self._follows[command.run_id] = follow
        follow.command, follow.until = command, max(until, follow.until)
        return LogFollowed(offset=follow.offset, generation=follow.generation)

    async def close(self) -> None:
        tasks = [follow.task for follow in self._follows.values() if follow.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._watches.close()

    async def _end(self, command: FollowLog) -> LogChunk:
        """Where telling begins: before what is held back. A run may not have written yet."""
        hidden = await self._secrets.of(command.run_id, command.secrets)
        offset = -max(TAIL, hidden.mask.reach)
        try:
            read = self._read(command, offset=offset, generation=None, limit=-offset)
            return await self._reader.read(read)
        except UnknownRun:
            if not self._live(command.run_id):
                raise
            return LogChunk(offset=0, next_offset=0, size=0, data=b"")

    async def _tell(self, follow: Follow) -> None:
        run_id, loop = follow.command.run_id, asyncio.get_running_loop()
        path = log_file(self._book.folder, follow.command.strategy_id, run_id)
        try:
            async with self._watches.watching(path) as watched:
                while (left := follow.until - loop.time()) > 0:
                    more = await self._tell_once(follow)
                    if not more:
                        await watched.change(min(left, HOLD_S / 4))
        except OpenbellError as error:
            log.info("a log is followed no longer", run=run_id, reason=error.detail)
        except Exception:
            log.exception("a log is followed no longer", run=run_id)
        finally:
            self._follows.pop(run_id, None)

    async def _tell_once(self, follow: Follow) -> bool:
        """One message, if there is something. Whether there may be more.

        Cut between characters. Of a log that is not there yet, nothing.
        """
        command = follow.command
        read = self._read(command, offset=follow.offset, generation=follow.generation, limit=PIECE)
        chunk = None
        with contextlib.suppress(UnknownRun):
            chunk = await self._reader.read(read)
        if chunk is None:
            return False
        data = chunk.data[: len(chunk.data) - cut_character(chunk.data)]
        if not data and not chunk.reset:
            return False
        lines = LogLines.model_construct(
            runner=self._runner,
            owner=command.owner,
            strategy_id=command.strategy_id,
            run_id=command.run_id,
            offset=chunk.offset,
            next_offset=chunk.offset + len(data),
            generation=chunk.generation,
            first=chunk.first,
            data=data,
            secrets=chunk.secrets,
        )
        follow.offset, follow.generation = lines.next_offset, lines.generation
        await self._bus.tell_lines(lines)
        return chunk.next_offset < chunk.size

    def _read(
        self, command: FollowLog, *, offset: int, generation: int | None, limit: int
    ) -> ReadLog:
        return ReadLog(
            strategy_id=command.strategy_id,
            run_id=command.run_id,
            secrets=command.secrets,
            offset=offset,
            generation=generation,
            limit=limit,
            live=self._live(command.run_id),
        )


def cut_character(data: bytes) -> int:
    """How many bytes at the end are the beginning of a character of UTF-8 that is cut in two."""
    for count in range(1, min(3, len(data)) + 1):
        byte = data[-count]
        if byte & 0xC0 == 0x80:
            continue
        length = 2 if byte & 0xE0 == 0xC0 else 3 if byte & 0xF0 == 0xE0 else 4
        return count if byte >= 0xC0 and count < length else 0
    return 0
