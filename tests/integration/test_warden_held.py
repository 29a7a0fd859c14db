"""Starts that are held, prepared, until their instant."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from services.runner.backends.warden_client import ROOT, WardenUnavailable
from tests.fixtures.wardens import KILL, NOW, PATIENT, WAITS, House, play, refusal, until

if sys.platform != "linux":
    pytest.skip("reads /proc", allow_module_level=True)
assert sys.platform == "linux"


def test_a_held_start_begins_at_its_instant_and_not_before(house: House):
    async def scene() -> None:
        async with house.client() as client:
            at = time.time() + 0.5
            assert await house.hold(client, NOW, at) is None
            assert await house.hold(client, NOW, at) is None
            (held,) = await client.list()
            assert (held.run, held.state, held.pid) == ("a", "parked", None)
            assert [entry["kind"] for entry in house.journal()] == ["preparing", "parked"]
            exits = await house.exits("a")
            assert exits["a"].reason == "completed"
        (said,) = house.log("a").read_text().split()
        assert at <= float(said)
        assert [entry["kind"] for entry in house.journal()] == [
            "preparing",
            "parked",
            "started",
            "exited",
        ]
        for path in house.folder.rglob("*"):
            if path.is_file() and path.name != "warden.log":
                assert house.token.encode() not in path.read_bytes()

    play(scene())


def test_a_held_start_can_be_stopped_and_keeps_its_warden_from_ending(house: House):
    async def scene() -> None:
        async with house.client() as client:
            await house.hold(client, "echo up", time.time() + 60)
            assert await refusal(house.hold(client, "true", 0, "a-2", epoch=2)) == "busy"
            os.kill(client.pid, signal.SIGTERM)
            assert await refusal(client.shutdown()) == "busy"
            await client.stop("a", "stopped_by_user", PATIENT)
            with pytest.raises(WardenUnavailable):
                async for _ in client.entries(100):
                    pass
        assert [entry["kind"] for entry in house.journal()] == ["preparing", "parked", "exited"]
        assert house.journal()[-1]["reason"] == "stopped_by_user"
        assert house.log("a").read_text() == ""
        assert house.scripts() == []

    play(scene())


HOLDER = """
import asyncio, sys, time
from pathlib import Path
from services.runner.backends.warden_client import WardenClient
from services.runner.warden.protocol import Start

async def main(folder, token):
    client = await WardenClient.connect(folder)
    for n in range(20):
        await client.start(Start(
            run=f"r{n}", strategy=f"s{n}", epoch=1,
            argv=("/bin/sh", "-c", "date +%s.%N", token),
            cwd=str(folder / "work"), env={"PATH": "/usr/bin:/bin"}, log=str(folder / f"r{n}.log"),
            ladder=(("SIGTERM", 1.0), ("SIGKILL", 0.0)), at=float(sys.argv[3]),
        ))
    print("held", flush=True)
    await asyncio.sleep(100)

asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
"""


def test_what_a_killed_runner_had_parked_starts_all_the_same(house: House):
    house.work.mkdir(parents=True)
    at = time.time() + 2.5
    runner = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(house.folder), house.token, repr(at)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
    )
    with runner:
        assert runner.stdout is not None
        assert runner.stdout.readline() == b"held\n"
        runner.kill()
    assert time.time() < at

    async def scene() -> None:
        exits = await house.exits(*(f"r{n}" for n in range(20)))
        assert {entry.reason for entry in exits.values()} == {"completed"}
        for n in range(20):
            (said,) = (house.folder / f"r{n}.log").read_text().split()
            assert at <= float(said)

    play(scene())


def test_a_warden_of_an_earlier_release_is_asked_at_the_instant(house: House):
    """It would ignore the instant."""

    async def scene() -> None:
        async with house.client() as client:
            client.holds = False
            at = time.time() + 0.3
            assert await house.hold(client, NOW, at) is not None
            await house.exits("a")
        assert float(house.log("a").read_text()) >= at

    play(scene())


def test_what_is_held_can_be_known_to_fail_before_its_instant(house: House):
    async def scene() -> None:
        async with house.client() as client:
            far = time.time() + 60
            order = house.order(["/no-such-python"], at=far)
            assert await client.start(order) is None
            entry = await house.exit()
            assert entry.reason == "start_failed"
            assert "no-such-python" in (entry.detail or "")
            assert house.told() == ["preparing", "exited"]
            assert await refusal(client.start(order)) == "start_failed"

    play(scene())


def test_what_fails_just_as_it_is_taken_back_ends_once(house: House):
    """The failure and the stop may come in one turn of the warden, in either order."""

    async def scene() -> None:
        async with house.client() as client:
            far = time.time() + 60
            for n in range(40):
                order = house.order(["/no-such-python"], f"r{n}", at=far)
                starting = asyncio.create_task(client.start(order))
                await asyncio.sleep(n / 4000)
                await asyncio.gather(
                    starting, client.stop(f"r{n}", "stopped_by_user", KILL), return_exceptions=True
                )
            exits = await house.exits(*(f"r{n}" for n in range(40)))
            reasons = {entry.reason for entry in exits.values()}
            assert reasons <= {"start_failed", "stopped_by_user"}
            await until(lambda: house.records() == house.groups().runs() == set())
            assert "Traceback" not in (house.folder / "warden.log").read_text()

    play(scene())


def test_what_was_killed_while_it_was_held_says_so_at_its_instant(house: House):
    async def scene() -> None:
        async with house.client() as client:
            await house.hold(client, "echo up", time.time() + 0.3)
            (keeper,) = psutil.Process(client.pid).children()
            keeper.kill()
            entry = await house.exit()
            assert entry.reason == "start_failed"
            assert entry.detail == "it was ended while it was held"
            await until(lambda: house.records() == house.groups().runs() == set())

    play(scene())


BARE = """
from services.runner.warden import cells, uids
cells.Cells.try_one = lambda self: setattr(self, "why_bare", "a test")
uids.available = lambda: False
"""


@pytest.mark.parametrize("patch", ["", BARE])
def test_who_is_held_is_none_of_the_processes_of_who_runs(house: House, patch: str):
    """It has no mark yet, and is the warden's child, as an orphan of the only run would be."""

    async def scene() -> None:
        async with house.client() as client:
            at = time.time() + 1.5
            await house.run(client, WAITS, "runs")
            await house.run(client, "exec sleep 100", "stops")
            await client.stop("stops", "stopped_by_user", KILL)
            await house.exit("stops")
            await house.hold(client, "exit 3", at, "held")
            house.go.touch()
            assert (await house.exit("runs")).exit_code == 0
            assert time.time() < at
            assert (await house.exit("held")).exit_code == 3

    with house.warden(patch=patch):
        play(scene())
