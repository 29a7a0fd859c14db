"""The warden's clients and its disk: whatever they do, it goes on."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

import psutil
import pytest

from services.runner.backends.warden_client import WardenClient, WardenRefused
from tests.fixtures.wardens import KILL, House, gone, play, refusal, until

if sys.platform != "linux":
    pytest.skip("reads /proc", allow_module_level=True)
assert sys.platform == "linux"


def connect_raw(house: House) -> socket.socket:
    raw = socket.socket(socket.AF_UNIX)
    raw.connect(json.loads((house.folder / "address.json").read_text())["socket"])
    return raw


GARBAGE: Sequence[bytes] = (
    b"\0\xff\xfe\n",
    b"[" * 100_000 + b"\n",
    b"null\n",
    b"{}\n",
    b'{"id":1,"op":"start"}\n',
    b'{"id":1,"op":["start"]}\n',
    b'{"id":1,"op":"stop","run":"a","reason":"x","ladder":[["SIGKILL",NaN]]}\n',
    b'{"id":1,"op":"stop","run":"a","reason":"x","ladder":[["SIGSTOP",1]]}\n',
    b'{"id":1,"op":"stop","run":"a","reason":"x","ladder":7}\n',
    b'{"id":1,"op":"subscribe","after":-1}\n',
    b'{"id":1,"op":"ack","seq":1e999}\n',
)


def test_garbage_is_answered_with_an_error_and_an_endless_line_with_a_farewell(house: House):
    async def scene() -> None:
        async with house.client() as client:
            await house.run(client, "sleep 100")
            with connect_raw(house) as raw, raw.makefile("rb") as answers:
                for line in GARBAGE:
                    raw.sendall(line)
                    assert "error" in json.loads(answers.readline())
            with connect_raw(house) as raw, suppress(ConnectionError):
                for _ in range(100):
                    raw.sendall(b"x" * 100_000)
                pytest.fail("it went on listening")
            assert [run.state for run in await client.list()] == ["running"]

    play(scene())


def test_a_client_that_never_reads_blocks_nobody_and_is_dropped(house: House):
    async def scene() -> None:
        async with house.client() as client:
            await house.run(client, "sleep 100")
            with connect_raw(house) as raw:
                raw.sendall(b'{"id":1,"op":"subscribe","after":0}\n')
                raw.settimeout(0)
                questions = b'{"id":2,"op":"list"}\n' * 500
                slowest = 0.0
                with suppress(ConnectionError):
                    for _ in range(10_000):
                        with suppress(BlockingIOError):
                            raw.send(questions)
                        began = time.perf_counter()
                        await client.list()
                        slowest = max(slowest, time.perf_counter() - began)
                    pytest.fail("it was never dropped")
                assert slowest < 0.5
            warden = psutil.Process(client.pid)
            assert warden.memory_info().rss < 100 << 20

    play(scene())


def test_a_full_disk_refuses_starts_but_stops_and_tells_later(house: House):
    async def scene() -> None:
        async with house.client() as client:
            first = await house.run(client, "exec sleep 100")
            size = (house.folder / "journal.jsonl").stat().st_size
            limit = resource.prlimit(client.pid, resource.RLIMIT_FSIZE, (size + 30, -1))
            assert await refusal(house.run(client, "true", "b")) == "journal_failed"
            await client.stop("a", "stopped_by_user", KILL)
            await until(lambda: gone(first.pid))
            await until(lambda: (house.folder / "journal.jsonl").stat().st_size == size)
            resource.prlimit(client.pid, resource.RLIMIT_FSIZE, limit)
            await house.run(client, "true", "b")
            exits = await house.exits("a", "b")
            assert exits["a"].reason == "stopped_by_user"

    play(scene())


def test_two_runners_that_start_a_warden_at_once_get_the_same(house: House):
    async def scene() -> None:
        clients = await asyncio.gather(*(WardenClient.connect(house.folder) for _ in range(5)))
        assert len({client.pid for client in clients}) == 1
        for client in clients:
            await client.close()
        with house.warden() as second:
            assert await asyncio.to_thread(second.wait, 5) == 3

    play(scene())


def test_an_acknowledged_journal_is_compacted_and_still_fences(house: House):
    async def scene() -> None:
        async with house.client() as client:
            filler = "x" * 8000
            for n in range(150):
                order = house.order(["/no"], f"s-{n}", n, note=filler, cwd="/no")
                with suppress(WardenRefused):
                    await client.start(order)
            journal = house.folder / "journal.jsonl"
            assert journal.stat().st_size > 1 << 20
            await client.acknowledge(client.seq + 300)
            assert journal.stat().st_size < 1000
            os.kill(client.pid, signal.SIGKILL)
        async with house.client() as client:
            assert client.seq == 300
            late = house.run(client, "true", "s-1", epoch=149)
            assert await refusal(late) == "fenced"

    play(scene())
