"""Who has a connection to the front door, when there is room for a few only: a real server."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

import pytest
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from openbell.connections import MOST, backlog, bounded, room
from openbell.front_door import Incoming, Outgoing, Scope

ROOM = 3
LAST = b"0\r\n\r\n"
"""What ends an answer."""
WHOLE = b"GET /%s HTTP/1.1\r\nHost: localhost\r\n\r\n"
HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"
PARTS = {
    "nothing": b"",
    "half of a head": b"GET / HTTP/1.1\r\nHost:",
    "half of a body": HEAD + b"abc",
}
BOTH = pytest.mark.parametrize("protocol", [HttpToolsProtocol, H11Protocol])


@dataclass
class Client:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def asks(self, path: str) -> bytes:
        """The answer, as far as it goes; none, if it was closed instead."""
        self.writer.write(WHOLE % path.encode())
        answer = b""
        while not answer.endswith(LAST) and b"begun" not in answer:
            more = await self.reads()
            if not more:
                return b""
            answer += more
        return answer

    async def reads(self) -> bytes:
        try:
            return await self.reader.read(65536)
        except ConnectionResetError:
            return b""


@dataclass
class Server:
    port: int
    clients: list[Client] = field(default_factory=list[Client])

    async def client(self, sends: bytes = b"") -> Client:
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port))
        self.clients.append(client)
        client.writer.write(sends)
        await client.writer.drain()
        return client

    async def endless(self) -> Client:
        client = await self.client()
        assert b"200" in await client.asks("endless")
        return client


@contextlib.asynccontextmanager
async def serving(protocol: type[asyncio.Protocol], most: int = ROOM) -> AsyncGenerator[Server]:
    leave = asyncio.Event()

    async def app(scope: Scope, receive: Incoming, send: Outgoing) -> None:
        if scope["method"] == "POST":
            while (await receive()).get("more_body"):
                pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if scope["path"] == "/endless":
            await send({"type": "http.response.body", "body": b"begun", "more_body": True})
            await leave.wait()
        await send({"type": "http.response.body", "body": b"done"})

    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app, http=bounded(protocol, most), ws="none", lifespan="off", log_config=None
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
        await asyncio.sleep(0.001)
    ours = Server(listener.getsockname()[1])
    try:
        yield ours
    finally:
        leave.set()
        for client in ours.clients:
            client.writer.close()
            with contextlib.suppress(OSError):
                await client.writer.wait_closed()
        server.should_exit = True
        await serving


@BOTH
@pytest.mark.parametrize("part", PARTS)
def test_who_is_silent_for_the_longest_makes_room(
    protocol: type[asyncio.Protocol], part: str
) -> None:
    async def scenario() -> None:
        async with serving(protocol) as server:
            first = await server.client(PARTS[part])
            others = [await server.client(PARTS[part]) for _ in range(10)]
            assert b"200" in await (await server.client()).asks("")
            assert await first.reads() == b""
            assert sum([await one.reads() == b"" for one in others[:-2]]) == 8

    asyncio.run(scenario())


@BOTH
def test_who_is_being_answered_stays(protocol: type[asyncio.Protocol]) -> None:
    async def scenario() -> None:
        async with serving(protocol) as server:
            streams = [await server.endless() for _ in range(ROOM - 1)]
            for _ in range(5):
                assert b"200" in await (await server.client()).asks("")
            streams.append(await server.endless())
            late = await server.client()
            assert await late.asks("") == b""  # there is nobody to make room
            assert all(not stream.reader.at_eof() for stream in streams)
            streams[0].writer.close()
            while b"200" not in await (await server.client()).asks(""):
                await asyncio.sleep(0.001)  # until the server has heard of it

    asyncio.run(scenario())


@BOTH
def test_a_connection_is_kept_alive_between_requests(protocol: type[asyncio.Protocol]) -> None:
    """And whoever has just asked is not the one to go."""

    async def scenario() -> None:
        async with serving(protocol) as server:
            kept = await server.client()
            silent = [await server.client() for _ in range(ROOM - 1)]
            for _ in range(3):
                assert b"200" in await kept.asks("")
            await server.client()
            assert await silent[0].reads() == b""
            assert b"200" in await kept.asks("")

    asyncio.run(scenario())


@pytest.mark.parametrize("limit", [64, 256, 1024, 4096, 65_536])
def test_some_of_the_descriptors_are_for_all_else(limit: int) -> None:
    assert room(limit) == min(MOST, limit // 2)
    assert room(limit) + backlog(limit) <= 3 * limit // 4
    assert room(1) == backlog(1) == 1
