"""Events, encoded once and handed to every client that may see them."""

import asyncio
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import InitVar, dataclass, field

from openbell.bus import Stored, StreamState
from openbell.contracts.base import ACCOUNT, Event
from openbell.contracts.errors import TooManyStreams
from openbell.identity import Caller

RECENT = 2048
MOST_STREAMS = 100
"""Of one user, at once, of this replica."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One event as the bytes that go to the browser."""

    sequence: int
    owner: str
    topic: str
    data: bytes

    @property
    def of_account(self) -> bool:
        """Whether it says that what its owner may do has changed."""
        return self.topic == ACCOUNT


@dataclass(slots=True, eq=False)
class Client:
    """A bounded queue. A client that cannot keep up is told to start afresh, and let go."""

    caller: Caller
    everybody: bool
    """An admin who watches all."""
    headers: Mapping[bytes, bytes]
    """With what it was let in."""
    known_at: float
    """When it was last looked up, in seconds of the monotonic clock."""
    queue_size: InitVar[int]
    queue: asyncio.Queue[Frame] = field(init=False)
    overflowed: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self, queue_size: int) -> None:
        self.queue = asyncio.Queue(queue_size)

    def sees(self, frame: Frame) -> bool:
        """What somebody's account is told is for them alone."""
        if frame.of_account:
            return frame.owner == self.caller.user
        return self.everybody or self.caller.sees(frame.owner, frame.topic)

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
        self._streams = Counter[str]()
        """How many each user has."""
        self._recent: deque[Frame] = deque(maxlen=RECENT)

    def publish(self, event: Stored) -> None:
        self.sequence = event.sequence
        frame = self.encode(event)
        self._recent.append(frame)
        for client in self._clients:
            if client.sees(frame):
                client.offer(frame)

    def encode(self, event: Stored) -> Frame:
        owner, topic, kind = Event.parts(event.subject)
        head = f"id: {self.incarnation}-{event.sequence}\nevent: {kind}\ndata: "
        return Frame(event.sequence, owner, topic, head.encode() + event.payload + b"\n\n")

    def join(self, client: Client) -> None:
        """Raises TooManyStreams."""
        if self._streams[client.caller.user] >= MOST_STREAMS:
            raise TooManyStreams(f"{MOST_STREAMS} are open already")
        self._streams[client.caller.user] += 1
        self._clients.add(client)

    def leave(self, client: Client) -> None:
        if client in self._clients:
            self._clients.remove(client)
            self._streams[client.caller.user] -= 1

    def recent(self, client: Client, after: int) -> list[Frame] | None:
        """A client's frames after a number, or None when memory does not reach back to it."""
        if not self._recent or self._recent[0].sequence > after + 1:
            return None
        return [f for f in self._recent if f.sequence > after and client.sees(f)]
