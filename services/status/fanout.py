"""Events, encoded once and handed to every client that may see them."""

import asyncio
from collections import deque
from dataclasses import dataclass, field

from openbell.bus import Stored, StreamState
from openbell.contracts.base import Event

RECENT = 2048


@dataclass(frozen=True, slots=True)
class Frame:
    """One event as the bytes that go to the browser."""

    sequence: int
    owner: str
    data: bytes


@dataclass(slots=True, eq=False)
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
    """What clients have been given so far, and the clients."""

    def __init__(self, state: StreamState) -> None:
        self.incarnation = state.incarnation
        self.sequence = state.last
        """The number of the last event that clients were given."""
        self._clients: set[Client] = set()
        self._recent: deque[Frame] = deque(maxlen=RECENT)

    def publish(self, event: Stored) -> None:
        self.sequence = event.sequence
        frame = self.encode(event)
        self._recent.append(frame)
        for client in self._clients:
            if client.owner == frame.owner:
                client.offer(frame)

    def encode(self, event: Stored) -> Frame:
        owner, _, kind = Event.parts(event.subject)
        head = f"id: {self.incarnation}-{event.sequence}\nevent: {kind}\ndata: "
        return Frame(event.sequence, owner, head.encode() + event.payload + b"\n\n")

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
