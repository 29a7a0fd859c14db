"""Finds lines of a log, newest first, in a bounded time.

What is searched is what would be read: a secret is stars there, and finds nothing. An expression
is matched by a process of its own (`matcher.py`), which can be killed, and nothing else can: a
library's own time limit does not hold while it compiles, or when it breaks.
"""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from openbell.contracts.errors import InvalidRequest
from openbell.contracts.logs import (
    MOST_READ,
    SEARCH_WAIT_S,
    LogChunk,
    LogHit,
    LogHits,
    ReadLog,
    SearchLog,
)
from services.runner.logs.matcher import lines_backwards
from services.runner.logs.reading import Reader
from services.runner.logs.secrets import Hidden, Secrets

LONGEST_LINE = 1000
"""Characters that are told of a line."""
MOST_TOLD = 384 * 1024
"""Bytes that are told of all lines: what a message holds."""
MATCHER = Path(__file__).with_name("matcher.py")

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Found:
    """Lines of a block, newest first; what lies before `left` was not looked at."""

    spans: Sequence[Span]
    left: int
    passed_over: int = 0


Find = Callable[[bytes, int], Awaitable[Found]]
"""Of the lines of a block, so many."""


@dataclass(slots=True)
class Scan:
    """How far a search has come: good at any moment at which it may be cut short."""

    room: int
    before: int | None
    """What lies before it was not looked at yet; None: all was."""
    generation: int | None = None
    first: int = 0
    hits: list[LogHit] = field(default_factory=list[LogHit])
    passed_over: int = 0
    _told: int = 0

    def take(self, data: bytes, offset: int, found: Found) -> None:
        """What was found in a block that lies at this offset."""
        self.passed_over += found.passed_over
        left = found.left
        for begin, end in found.spans:
            line = data[begin:end].decode(errors="replace").rstrip("\r")[:LONGEST_LINE]
            self.hits.append(LogHit(offset=offset + begin, line=line))
            self.room -= 1
            self._told += len(json.dumps(line))
            if self._told >= MOST_TOLD:
                self.room = 0
            if not self.room:
                left = begin
                break
        self.before = offset + left if offset + left > self.first else None


class Searches:
    def __init__(self, reader: Reader, secrets: Secrets) -> None:
        self._reader = reader
        self._secrets = secrets
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """Of each user who searches by an expression: one keeps no other waiting."""

    async def search(self, command: SearchLog) -> LogHits:
        """Raises UnknownRun, LogWithheld, InvalidRequest."""
        loop = asyncio.get_running_loop()
        hidden = await self._secrets.of(command.run_id, command.secrets)
        scan = Scan(room=command.limit, before=command.before)
        end = await asyncio.to_thread(self._block, command, hidden, scan)
        scan.before = min(scan.before or end.next_offset, end.next_offset)
        scan.generation, scan.first = end.generation, end.first
        cut_short, latest = True, loop.time() + SEARCH_WAIT_S
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(latest) as limit, self._finder(command) as find:
                until = loop.time() + command.budget_s
                limit.reschedule(max(until, latest))
                async for _ in self._turns_of(command, hidden, scan, find):
                    # Only now: on the busiest host, who goes on from `before` comes to an end.
                    limit.reschedule(until)
                cut_short = False
        return LogHits(
            hits=tuple(scan.hits),
            before=scan.before,
            cut_short=cut_short,
            passed_over=scan.passed_over,
            first=scan.first,
            generation=end.generation,
            secrets=hidden.version,
        )

    async def _turns_of(
        self, command: SearchLog, hidden: Hidden, scan: Scan, find: Find
    ) -> AsyncGenerator[None]:
        """Yields whenever something was looked at."""
        while scan.before is not None and scan.room:
            chunk = await asyncio.to_thread(self._block, command, hidden, scan)
            scan.first = chunk.first
            end = scan.before - chunk.offset  # it goes further, if its beginning was just dropped
            if chunk.reset or end <= 0 or not chunk.data:
                scan.before = None  # it was cut by its script, or dropped, meanwhile
                return
            cut = _first_whole_line(chunk)
            data, offset = chunk.data[cut:end], chunk.offset + cut
            left = len(data)
            while left and scan.room:
                found = await find(data[:left], scan.room)
                scan.take(data, offset, found)
                left = found.left
                yield

    def _block(self, command: SearchLog, hidden: Hidden, scan: Scan) -> LogChunk:
        """What lies just before where the search has come."""
        offset = -MOST_READ if scan.before is None else max(scan.first, scan.before - MOST_READ)
        limit = MOST_READ if scan.before is None else max(1, scan.before - offset)
        read = ReadLog(
            strategy_id=command.strategy_id,
            run_id=command.run_id,
            offset=offset,
            generation=scan.generation,
            limit=limit,
            live=command.live,
        )
        return self._reader.read_now(read, hidden)

    @contextlib.asynccontextmanager
    async def _finder(self, command: SearchLog) -> AsyncGenerator[Find]:
        """Raises InvalidRequest."""
        if not command.regex:
            sought = Sought(command.text, ignore_case=command.ignore_case)

            async def find(block: bytes, most: int) -> Found:
                return await asyncio.to_thread(sought.find, block, most)

            yield find
            return
        turn = self._turns.setdefault(command.user, asyncio.Lock())
        async with turn, _matching(command) as find_by_expression:
            yield find_by_expression


class Sought:
    """A text to find."""

    def __init__(self, text: str, *, ignore_case: bool) -> None:
        self._text = text.casefold() if ignore_case else text
        self._ignore_case = ignore_case

    def find(self, block: bytes, most: int) -> Found:
        """The newest `most` lines that hold it."""
        spans: list[Span] = []
        for begin, end in self._lines(block):
            spans.append((begin, end))
            if len(spans) >= most:
                return Found(spans, begin)
        return Found(spans, 0)

    def _lines(self, block: bytes) -> Iterator[Span]:
        if not self._ignore_case:
            return _lines_with(block, self._text.encode())
        if self._text.isascii():
            return _lines_with(block.lower(), self._text.encode())
        return (
            (begin, end)
            for begin, end in lines_backwards(block)
            if self._text in block[begin:end].decode(errors="replace").casefold()
        )


def _lines_with(block: bytes, text: bytes) -> Iterator[Span]:
    """In the time of a pass over the block, however many lines it has."""
    before = len(block)
    while (at := block.rfind(text, 0, before)) >= 0:
        begin = block.rfind(b"\n", 0, at) + 1
        end = block.find(b"\n", at)
        yield begin, end if end >= 0 else len(block)
        before = begin


def _first_whole_line(chunk: LogChunk) -> int:
    """Where it begins: before it lies the end of a line that the next block holds whole.

    Of a line that is longer than a block, each block is looked at by itself.
    """
    if chunk.offset <= chunk.first:
        return 0
    cut = chunk.data.find(b"\n") + 1
    return cut if cut < len(chunk.data) else 0


@contextlib.asynccontextmanager
async def _matching(command: SearchLog) -> AsyncGenerator[Find]:
    """A process that matches this expression, gone when this is left. Raises InvalidRequest."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", str(MATCHER)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={name: os.environ[name] for name in ("SYSTEMROOT",) if name in os.environ},
        limit=2**20,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    to, answers = process.stdin, process.stdout

    async def ask(question: bytes) -> dict[str, Any]:
        to.write(question)
        await to.drain()
        line = await answers.readline()
        if not line:
            raise InvalidRequest.of("text", "this expression needs too much memory")
        return json.loads(line)

    async def find(block: bytes, most: int) -> Found:
        told = await ask(b"%d %d\n" % (len(block), most) + block)
        return Found(
            [(begin, end) for begin, end in told["hits"]], told["left"], told["passed_over"]
        )

    try:
        asked = {"text": command.text, "ignore_case": command.ignore_case}
        refusal = await ask(json.dumps(asked).encode() + b"\n")
        if refusal:
            raise InvalidRequest.of(
                "text", f"it is no regular expression: {refusal['error'][:200]}"
            )
        yield find
    finally:
        await _ended(process)


async def _ended(process: asyncio.subprocess.Process) -> None:
    """Kills it, and is cancelled, by a time limit or a caller who left, only once it is gone."""
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    assert process.stdin is not None
    process.stdin.close()
    gone = asyncio.ensure_future(process.wait())
    try:
        await asyncio.shield(gone)
    except asyncio.CancelledError:
        await gone
        raise
