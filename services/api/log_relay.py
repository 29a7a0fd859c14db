"""Lines of live runs: heard once of the runner, encoded once, handed to everybody who follows.

There is a relay for each run that is followed. It renews every second the interest without which
the runner falls silent, and looks whether the run still lives. Lines may be lost on their way;
whoever follows is told so, and reads what is missing.
"""

import asyncio
import contextlib
import json
from collections import Counter, deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass

import structlog

from openbell.bus import Bus
from openbell.contracts.errors import OpenbellError, TooManyStreams
from openbell.contracts.logs import FollowLog, LogChunk, LogLines
from openbell.db.models import Run
from services.api.logs import Logs, LogView, log_view
from services.api.store import Store

RENEW_S = 1.0
INTEREST_S = 10.0
"""How long a runner goes on telling lines when it does not hear from us."""
MOST_BEHIND = 1024**2
"""Bytes that may wait for one who follows, before they are let go."""
MOST_HEARD = 64
"""Messages that may wait for us."""
MOST_STREAMS = 100
"""Of one user, at once, of this replica."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Frame:
    """A piece of a log as the bytes that go to a browser."""

    chunk: LogChunk
    next_offset: int
    encoded: bytes


def framed(run: Run, chunk: LogChunk) -> Frame:
    view = log_view(run, chunk)
    return Frame(chunk, view.next_offset, encoded("lines", view))


def encoded(kind: str, view: LogView) -> bytes:
    """Server-sent: the id is where to go on."""
    data = view.model_dump_json(include={"run_id", "offset", "next_offset", "first", "content"})
    head = f"id: {view.generation}-{view.next_offset}\nevent: {kind}\n"
    return f"{head}data: {data}\n\n".encode()


def control(kind: str, reason: str) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'reason': reason})}\n\n".encode()


class Viewer:
    """Somebody who follows a run."""

    def __init__(self) -> None:
        self.missed = True
        """There may be something that was not handed to it: it must read."""
        self.reading = True
        """It reads, and is not told of each line before it is through."""
        self.ended = False
        self.dropped = asyncio.Event()
        """It is too far behind."""
        self._frames: deque[Frame] = deque()
        self._behind = 0
        self._news = asyncio.Event()

    def offer(self, frame: Frame) -> None:
        self._frames.append(frame)
        self._behind += len(frame.encoded)
        self._news.set()
        if self._behind <= MOST_BEHIND:
            return
        self._frames.clear()
        self._behind = 0
        if self.reading:
            self.missed = True
        else:
            self.dropped.set()

    def must_read(self, *, ended: bool = False) -> None:
        self.missed, self.ended = True, self.ended or ended
        self._news.set()

    async def next(self, within_s: float) -> Frame | None:
        """None when nothing came, or it must read."""
        if not self._frames and not self.missed and not self.dropped.is_set():
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    await self._news.wait()
        if self.missed or not self._frames:
            return None
        frame = self._frames.popleft()
        self._behind -= len(frame.encoded)
        return frame


class Relay:
    """Hears one run for all who follow it."""

    def __init__(self, bus: Bus, store: Store, logs: Logs, run: Run) -> None:
        self.run = run
        """As it was a second ago."""
        self.viewers: set[Viewer] = set()
        self._bus = bus
        self._store = store
        self._logs = logs
        self._heard: asyncio.Queue[LogLines] = asyncio.Queue(MOST_HEARD)
        self._until = (0, 0)
        """The generation, and up to where lines were heard."""

    async def serve(self) -> None:
        lines = LogLines(
            runner=self.run.runner,
            owner=self.run.owner,
            strategy_id=self.run.strategy_id,
            run_id=self.run.id,
            offset=0,
            next_offset=0,
            generation=0,
            data=b"",
        )
        loop = asyncio.get_running_loop()
        async with self._bus.hearing_lines(lines.subject, self._hear):
            while True:
                await self._renew()
                renew_at = loop.time() + RENEW_S
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(renew_at):
                        while await self._pass_on(await self._heard.get()):
                            pass

    def _hear(self, lines: LogLines | None) -> None:
        if lines is not None and not self._heard.full():
            self._heard.put_nowait(lines)
        else:
            self._all_must_read()

    async def _renew(self) -> None:
        """A runner that is away is met by those who read."""
        try:
            self.run = await self._store.run(self.run.strategy_id, self.run.id)
            if not self.run.live:
                self._all_must_read(ended=True)
                return
            follow = FollowLog(
                strategy_id=self.run.strategy_id,
                run_id=self.run.id,
                owner=self.run.owner,
                secrets=await self._logs.version(self.run),
                for_s=INTEREST_S,
            )
            told = await self._bus.request(follow, self.run.runner)
        except OpenbellError:
            self._all_must_read()
        else:
            if (told.generation, told.offset) > self._until:
                self._until = told.generation, told.offset
                self._all_must_read()

    async def _pass_on(self, lines: LogLines) -> bool:
        """False when a secret was set that may be in these lines: they are read again."""
        self._until = lines.generation, lines.next_offset
        if lines.secrets != await self._logs.version(self.run):
            self._all_must_read()
            return False
        chunk = LogChunk.model_construct(
            offset=lines.offset,
            next_offset=lines.next_offset,
            size=lines.next_offset + 1,
            data=lines.data,
            first=lines.first,
            generation=lines.generation,
            reset=False,
            secrets=lines.secrets,
        )
        frame = framed(self.run, chunk)
        for viewer in self.viewers:
            viewer.offer(frame)
        return True

    def _all_must_read(self, *, ended: bool = False) -> None:
        for viewer in self.viewers:
            viewer.must_read(ended=ended)


class Relays:
    def __init__(self, bus: Bus, store: Store, logs: Logs) -> None:
        self._bus = bus
        self._store = store
        self._logs = logs
        self._relays: dict[str, tuple[Relay, asyncio.Task[None]]] = {}
        self._streams = Counter[str]()
        """How many each user has."""

    @contextlib.asynccontextmanager
    async def following(self, run: Run, user: str) -> AsyncGenerator[tuple[Relay, Viewer]]:
        """Raises TooManyStreams."""
        if self._streams[user] >= MOST_STREAMS:
            raise TooManyStreams(f"{MOST_STREAMS} logs are followed already")
        viewer = Viewer()
        relay = self._of(run)
        relay.viewers.add(viewer)
        self._streams[user] += 1
        try:
            yield relay, viewer
        finally:
            self._streams[user] -= 1
            relay.viewers.discard(viewer)
            if not relay.viewers:
                self._end(relay)

    async def close(self) -> None:
        tasks = [task for _, task in self._relays.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _of(self, run: Run) -> Relay:
        known, task = self._relays.get(run.id, (None, None))
        if known is None or task is None or task.done():
            known = Relay(self._bus, self._store, self._logs, run)
            self._relays[run.id] = known, asyncio.create_task(self._serve(known))
        return known

    async def _serve(self, relay: Relay) -> None:
        while True:
            try:
                await relay.serve()
            except Exception:
                log.exception("a log could not be followed; it is tried again", run=relay.run.id)
                await asyncio.sleep(RENEW_S)

    def _end(self, relay: Relay) -> None:
        known, task = self._relays.get(relay.run.id, (None, None))
        if known is relay and task is not None:
            task.cancel()
            del self._relays[relay.run.id]
