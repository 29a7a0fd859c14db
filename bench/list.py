"""GET /python/ with many strategies, against a bare asyncio server of the same bytes."""

import asyncio
import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from urllib.parse import urlsplit

from bench.figure import Figure, median, percentile
from tests.fixtures.stack import Stack, end_all, start_one_process

SIZES = (10, 100, 1000)
REQUESTS = 400
CONNECTIONS = 16
EACH = 60
ROUNDS = 3


def measure() -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        try:
            stack = start_one_process(home)
            made = 0
            for size in SIZES:
                _fill(stack, made, size)
                made = size
                yield from _compare(stack, size)
            stack.stop()
        finally:
            end_all(home)


def _fill(stack: Stack, made: int, size: int) -> None:
    for number in range(made, size):
        stack.upload(f"print({number})", f"Strategy {number:04}")


def _compare(stack: Stack, size: int) -> Iterator[Figure]:
    answer = stack.http.get("/python/")
    assert len(answer.json()["strategies"]) == size
    with BareServer(answer.content) as port:
        ours, bare = urlsplit(stack.url).port or 0, port
        rounds = [asyncio.run(_alternate(ours, bare, stack.token)) for _ in range(ROUNDS)]
        mine = [t for one, _ in rounds for t in one]
        theirs = [t for _, other in rounds for t in other]
        name = f"list of {size}, one connection, p50"
        yield Figure(name, median(mine) * 1e3, median(theirs) * 1e3, "ms", 6)
        if size == SIZES[-1]:
            crowds = [asyncio.run(_crowds(ours, bare, stack.token)) for _ in range(ROUNDS)]
            p99 = percentile([t for one, _ in crowds for t in one], 99)
            bare_p99 = percentile([t for _, other in crowds for t in other], 99)
            name = f"list of {size}, {CONNECTIONS} connections, p99"
            yield Figure(name, p99 * 1e3, bare_p99 * 1e3, "ms", 3)


async def _alternate(ours: int, bare: int, token: str) -> tuple[list[float], list[float]]:
    return await client(ours, REQUESTS, token), await client(bare, REQUESTS, token)


async def _crowds(ours: int, bare: int, token: str) -> tuple[list[float], list[float]]:
    return await _crowd(ours, token), await _crowd(bare, token)


async def _crowd(port: int, token: str) -> list[float]:
    results = await asyncio.gather(*(client(port, EACH, token) for _ in range(CONNECTIONS)))
    return [seconds for result in results for seconds in result]


async def client(port: int, requests: int, token: str, path: str = "/python/") -> list[float]:
    """Seconds of each request, over one connection that is kept."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**22)
    request = (
        f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nauthorization: Bearer {token}\r\n\r\n"
    ).encode()
    seconds: list[float] = []
    for _ in range(requests):
        began = time.perf_counter()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        seconds.append(time.perf_counter() - began)
    writer.close()
    await writer.wait_closed()
    return seconds[requests // 10 :]


class BareServer:
    """asyncio streams in a process of its own: the least that Python can do over HTTP."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._ours, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(target=_serve_bare, args=(body, theirs), daemon=True)

    def __enter__(self) -> int:
        self._process.start()
        return self._ours.recv()

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.join()


def _serve_bare(body: bytes, pipe: Connection) -> None:
    head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\n\r\n".encode()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(head + body)
                await writer.drain()
        except asyncio.IncompleteReadError:
            writer.close()

    async def serve() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        pipe.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(serve())
