"""Events, encoded once and handed to every client that may see them."""

import asyncio
from collections import deque
from dataclasses import dataclass, field

import structlog

from openbell.bus import Bus, StoredEvent
from openbell.contracts.errors import ServiceUnavailable

RECENT = 2048
RETRY_S = 0.5

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Frame:
    """One event as the bytes that go to the browser."""

    sequence: int
    owner: str
    data: bytes


@dataclass(slots=True)
class Client:
    """A bounded queue. A client that cannot keep up is told to start afresh, and let go."""

    owner: str
    queue: asyncio.Queue[Frame]
    overflowed: asyncio.Event = field(default_factory=asyncio.Event)

    def offer(self, frame: Frame) -> None:
        try:
            self.queue.put_nowait(frame)
        except asyncio.QueueFull:
            self.overflowed.set()


class Fanout:
    """Follows the event stream, in order and without gaps.

    The live feed carries the stream's consecutive numbers. Where one is missing (a lost
    connection, a slow moment), the stream itself is asked, by number, before going on.
    """

    def __init__(self, bus: Bus, incarnation: str, sequence: int) -> None:
        self._bus = bus
        self.incarnation = incarnation
        self.sequence = sequence
        """The number of the last event that clients were given."""
        self._clients: set[Client] = set()
        self._recent: deque[Frame] = deque(maxlen=RECENT)
        self._pending: deque[StoredEvent] = deque()
        self._behind = False
        self._wake = asyncio.Event()

    def told(self, event: StoredEvent | None) -> None:
        """An event from the live feed; None: some may have been missed."""
        if event is None:
            self._behind = True
        else:
            self._pending.append(event)
        self._wake.set()

    async def follow(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._take()
            except ServiceUnavailable as error:
                log.warning("events wait for the bus", reason=error.detail)
                self._behind = True
                self._wake.set()
                await asyncio.sleep(RETRY_S)

    async def _take(self) -> None:
        while self._pending:
            event = self._pending.popleft()
            if event.sequence > self.sequence + 1:
                await self._catch_up(event.sequence - 1)
            self._publish(event)
        if self._behind:
            await self._catch_up(await self._bus.last_sequence())
            self._behind = False

    async def _catch_up(self, until: int) -> None:
        while self.sequence < until:
            event = await self._bus.next_event(self.sequence)
            if event is None:
                return
            self._publish(event)

    def _publish(self, event: StoredEvent) -> None:
        if event.sequence <= self.sequence:
            return
        self.sequence = event.sequence
        frame = self.encode(event)
        self._recent.append(frame)
        for client in self._clients:
            if client.owner == frame.owner:
                client.offer(frame)

    def encode(self, event: StoredEvent) -> Frame:
        head = f"id: {self.incarnation}-{event.sequence}\nevent: {event.kind}\ndata: "
        return Frame(event.sequence, event.owner, head.encode() + event.payload + b"\n\n")

    def join(self, owner: str, queue_size: int) -> Client:
        client = Client(owner, asyncio.Queue(queue_size))
        self._clients.add(client)
        return client

    def leave(self, client: Client) -> None:
        self._clients.discard(client)

    def recent(self, owner: str, after: int) -> list[Frame] | None:
        """An owner's frames after a number, or None when memory does not reach back to it."""
        if not self._recent or self._recent[0].sequence > after + 1:
            return None
        return [f for f in self._recent if f.sequence > after and f.owner == owner]
