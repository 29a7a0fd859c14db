"""Bounds the connections to the front door, so that strangers cannot take all descriptors.

Whoever can reach the port can open connections and leave them open. There is room for so many;
who comes then takes the place of the one that has been silent for the longest, of those from
which a whole request has yet to come; if there are none, of those that do not read their answers.
A request that is being answered, such as an endless stream, and that is read, loses its connection
to nobody: if there are no others, who comes is turned away. So nothing waits for a time to pass,
and as long as there is room nobody is sent away for being slow.
"""

import asyncio
from typing import Any, cast

import structlog

MOST = 4096
"""Some 100 MB of memory."""
MOST_WAITING = 2048

log = structlog.get_logger()


def room(limit: int) -> int:
    """For how many connections there is room in a process that may have `limit` descriptors."""
    return max(1, min(MOST, limit // 2))


def backlog(limit: int) -> int:
    """How many may wait to be let in: that many may come at once, before one is looked at. With
    those that are there, they leave a quarter of the descriptors for all else.
    """
    return max(1, min(MOST_WAITING, limit // 4))


class Connections:
    """Those that are open, who has been silent for the longest first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: dict[asyncio.BaseProtocol, asyncio.Transport] = {}
        self._full = False

    def add(self, connection: asyncio.BaseProtocol, transport: asyncio.Transport) -> None:
        """It may be closed at once."""
        if len(self._open) >= self._most:
            self._tell_full()
            leaving = self._who_leaves()
            if leaving is None:
                transport.abort()
                return
            # Aborted, since what waits to be written to it may never be read.
            self._open.pop(leaving).abort()
        self._open[connection] = transport

    def _who_leaves(self) -> asyncio.BaseProtocol | None:
        for may_leave in (awaits_request, reads_nothing):
            for connection in self._open:
                if may_leave(connection):
                    return connection
        return None

    def heard(self, connection: asyncio.BaseProtocol) -> None:
        if transport := self._open.pop(connection, None):
            self._open[connection] = transport

    def remove(self, connection: asyncio.BaseProtocol) -> None:
        self._open.pop(connection, None)
        if len(self._open) < self._most // 2:
            self._full = False

    def _tell_full(self) -> None:
        """Once, until there is room again."""
        if not self._full:
            log.warning("the front door is full: silent connections are closed", most=self._most)
        self._full = True


def awaits_request(connection: asyncio.BaseProtocol) -> bool:
    """Whether nothing is being done for it: it has sent nothing, or not all of a request yet, or
    has been answered. Of uvicorn's protocols, both of which have `cycle`.
    """
    cycle: Any = getattr(connection, "cycle", None)
    return cycle is None or cycle.response_complete or cycle.more_body


def reads_nothing(connection: asyncio.BaseProtocol) -> bool:
    """Whether what is written to it waits, and so does who writes it: else requests whose answers
    nobody reads would keep their places for ever. Of uvicorn's protocols, which have `flow`.
    """
    flow: Any = getattr(connection, "flow", None)
    return flow is not None and flow.write_paused


def bounded(protocol: type[asyncio.Protocol], most: int) -> type[asyncio.Protocol]:
    """One of uvicorn's protocols, for a server that has `most` connections at the most."""
    connections = Connections(most)

    class Bounded(protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            connections.add(self, cast("asyncio.Transport", transport))

        def data_received(self, data: bytes) -> None:
            connections.heard(self)
            super().data_received(data)

        def connection_lost(self, exc: Exception | None) -> None:
            connections.remove(self)
            super().connection_lost(exc)

    return Bounded
