"""Whatever dies, nothing is lost, nobody is orphaned, and nothing is started twice."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from services.runner.backends.warden_client import ROOT, WardenUnavailable
from services.runner.warden.host import Bounds
from services.runner.warden.protocol import Entry
from tests.fixtures.wardens import (
    KILL,
    NOW,
    SH,
    WAITS,
    House,
    boot_id,
    gone,
    play,
    refusal,
    until,
)

if sys.platform != "linux":
    pytest.skip("reads /proc", allow_module_level=True)
assert sys.platform == "linux"

CLIENT = """
import asyncio, sys
from pathlib import Path
from services.runner.backends.warden_client import WardenClient
from services.runner.warden.protocol import Start

async def main(folder, token):
    client = await WardenClient.connect(folder)
    for n in range(20):
        script = f"echo up; while [ ! -e go{n} ]; do sleep 0.02; done; exit {n}"
        await client.start(Start(
            run=f"r{n}", strategy=f"s{n}", epoch=1, argv=("/bin/sh", "-c", script, token),
            cwd=str(folder / "work"), env={"PATH": "/usr/bin:/bin"}, log=str(folder / f"r{n}.log"),
            ladder=(("SIGTERM", 1.0), ("SIGKILL", 0.0)),
        ))
    print("started", flush=True)
    await asyncio.sleep(100)

asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
"""


def test_kill_9_of_the_runner_loses_no_exit_code(house: House):
    house.work.mkdir(parents=True)
    runner = subprocess.Popen(
        [sys.executable, "-c", CLIENT, str(house.folder), house.token],
        cwd=ROOT,
        stdout=subprocess.PIPE,
    )
    with runner:
        assert runner.stdout is not None
        assert runner.stdout.readline() == b"started\n"
        runner.kill()
    for n in range(8):
        (house.work / f"go{n}").touch()

    async def scene() -> None:
        async with house.client() as client:
            exits = await house.exits(*(f"r{n}" for n in range(8)))
            assert {run: entry.exit_code for run, entry in exits.items()} == {
                f"r{n}": n for n in range(8)
            }
            assert {run.run for run in await client.list()} == {f"r{n}" for n in range(8, 20)}
            for n in range(8, 20):
                (house.work / f"go{n}").touch()
            exits = await house.exits(*(f"r{n}" for n in range(20)))
            assert [exits[f"r{n}"].exit_code for n in range(20)] == list(range(20))
            with pytest.raises(psutil.NoSuchProcess):
                psutil.Process(runner.pid)

    play(scene())
    assert (house.folder / "warden.log").read_text().count("is up") == 1


def test_a_warden_killed_while_holding_starts_nothing_and_says_so(house: House):
    async def scene() -> None:
        async with house.client() as client:
            at = time.time() + 1
            await house.hold(client, "echo up", at)
            await house.hold(client, "echo up", at, "b")
            os.kill(client.pid, signal.SIGKILL)
        async with house.client() as client:
            exits = await house.exits("a", "b")
            for entry in exits.values():
                assert entry.reason == "start_failed"
                assert "held the start" in (entry.detail or "")
            assert await client.list() == []
            assert house.scripts() == []
            assert await house.hold(client, NOW, at, "a-2", epoch=2) is None
            await house.exits("a-2")
        assert house.log("a").read_text() == ""
        assert float(house.log("a-2").read_text()) >= at

    play(scene())


def test_a_warden_killed_in_the_midst_of_many_starts_loses_none_and_repeats_none(house: House):
    runs = [f"r{n}" for n in range(25)]

    async def scene() -> None:
        async with house.client() as client:
            at = time.time() + 2
            script = f"echo up; {WAITS}; exit 4"
            await asyncio.gather(*(house.hold(client, script, at, run) for run in runs))
            await house.said("up", runs[5])
            os.kill(client.pid, signal.SIGKILL)
        async with house.client() as client:
            lives = {run.run for run in await client.list()}
            exits = await house.exits(*(set(runs) - lives))
            assert {entry.reason for entry in exits.values()} <= {"start_failed"}
            assert lives >= set(runs[:6])
            house.go.touch()
            exits = await house.exits(*runs)
        assert {exits[run].exit_code for run in lives} == {4}
        assert {run for run in runs if house.log(run).read_text() == "up\n"} == lives
        assert {house.log(run).read_text() for run in set(runs) - lives} <= {""}

    play(scene())


async def first(entries: AsyncIterator[Sequence[Entry]]) -> Sequence[Entry]:
    return await anext(entries)


def test_kill_9_of_the_warden_orphans_nobody_and_starts_nothing_twice(house: House):
    async def scene() -> None:
        async with house.client() as client:
            lives = await house.run(client, WAITS, "lives")
            stops = await house.run(client, "trap '' INT; echo up; exec sleep 100", "stops")
            await house.said("up", "stops")
            await client.stop("stops", "stopped_by_user", (("SIGINT", 0.3), ("SIGKILL", 0.0)))
            pending = asyncio.create_task(first(client.entries(10_000)))
            await client.list()
            os.kill(client.pid, signal.SIGKILL)
            with pytest.raises(WardenUnavailable):
                await pending
            with pytest.raises(WardenUnavailable):
                await client.list()
        async with house.client() as client:
            exits = await house.exits("stops")
            assert exits["stops"].reason == "stopped_by_user"
            assert gone(stops.pid)
            assert [run.pid for run in await client.list()] == [lives.pid]
            assert await house.run(client, "true", "lives") == lives
            assert await refusal(house.run(client, "true", "lives-2", epoch=2)) == "busy"
            house.go.touch()
            exits = await house.exits("lives")
            assert (exits["lives"].reason, exits["lives"].exit_code) == ("completed", 0)

    play(scene())


ENDINGS = {
    "zero": ("exit 0", (0, None, "completed")),
    "three": ("exit 3", (3, None, "crashed")),
    "term": ("kill -TERM $$", (None, "SIGTERM", "killed")),
    "segv": ("kill -SEGV $$", (None, "SIGSEGV", "crashed")),
}


@pytest.mark.parametrize("meanwhile", [True, False])
def test_an_end_without_the_warden_that_started_it_is_known_as_it_was(
    house: House, *, meanwhile: bool
):
    """While there is none, and when there is another one: their keepers have seen it."""

    async def scene() -> None:
        async with house.client() as client:
            mains = [
                (await house.run(client, f"{WAITS}; {script}", run)).pid
                for run, (script, _) in ENDINGS.items()
            ]
            killed = await house.run(client, "exec sleep 100", "killed")
            os.kill(client.pid, signal.SIGKILL)
        if not meanwhile:
            async with house.client() as client:
                assert len(await client.list()) == 5
        house.go.touch()
        os.kill(killed.pid, signal.SIGKILL)
        await until(lambda: all(map(gone, [*mains, killed.pid])))
        exits = await house.exits(*ENDINGS, "killed")
        ends = {run: (e.exit_code, e.signal, e.reason) for run, e in exits.items()}
        told = {run: end for run, (_, end) in ENDINGS.items()}
        assert ends == {**told, "killed": (None, "SIGKILL", "killed")}
        assert exits["three"].peak_memory, "its group has outlived the warden"

    play(scene())


DIES_AT_THE_RELEASE = """
import os
from services.runner.warden import warden
def die(*_):
    os.kill(os.getpid(), 9)
warden.Warden._watch = die
"""
WAITS_BEFORE_EXEC = """
import time
from services.runner.warden import cell
def wait(go_on=cell.be_as_started_by_hand):
    while not os.path.exists("exec"):
        time.sleep(0.01)
    go_on()
cell.be_as_started_by_hand = wait
"""


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("outlives", [False, True])
def test_a_warden_killed_between_the_release_and_its_journal(
    house: House, *, held: bool, outlives: bool
):
    """Nothing of it is on disk but what the cell itself has written down."""
    script = f"echo up; {WAITS}; exit 6"

    async def scene() -> None:
        house.work.mkdir(parents=True)
        if not outlives:
            house.go.touch()
        with house.warden(patch=DIES_AT_THE_RELEASE) as warden:
            async with house.client() as client:
                at = time.time() + 0.2 if held else None
                order = house.order([SH, "-c", script, house.token], at=at)
                starting = asyncio.create_task(client.start(order))
                await until(lambda: warden.poll() is not None)
                await asyncio.gather(starting, return_exceptions=True)
        await house.said("up")
        if not outlives:
            await until(lambda: house.scripts() == [])
        async with house.client() as client:
            if outlives:
                assert [run.run for run in await client.list()] == ["a"]
            assert (await client.start(house.order([SH, "-c", script]))) is not None
            house.go.touch()
            assert (await house.exit()).exit_code == 6
        assert house.log("a").read_text() == "up\n"
        begun = ["preparing", "parked"] if held else ["starting"]
        assert house.told() == [*begun, "started", "exited"]

    play(scene())


def test_a_warden_killed_before_the_system_has_executed_what_it_released(house: House):
    async def scene() -> None:
        with house.warden(patch=DIES_AT_THE_RELEASE + WAITS_BEFORE_EXEC) as warden:
            async with house.client() as client:
                order = house.order([SH, "-c", "echo up; exit 6", house.token])
                starting = asyncio.create_task(client.start(order))
                await until(lambda: warden.poll() is not None)
                await asyncio.gather(starting, return_exceptions=True)
        async with house.client() as client:
            assert [run.run for run in await client.list()] == ["a"]
            assert house.log("a").read_text() == ""
            (house.work / "exec").touch()
            assert (await house.exit()).exit_code == 6
        assert house.log("a").read_text() == "up\n"

    play(scene())


@pytest.mark.parametrize("in_time", [True, False])
def test_one_that_was_released_and_has_not_said_so_is_waited_for_and_then_ended(
    house: House, *, in_time: bool
):
    """Its process is stopped before it can read that it may go."""

    async def scene() -> None:
        with house.warden(patch=DIES_AT_THE_RELEASE) as warden:
            async with house.client() as client:
                await house.hold(client, "echo up; exit 6", time.time() + 0.5)
                (keeper,) = psutil.Process(warden.pid).children()
                (main,) = keeper.children()
                main.suspend()
                await until(lambda: warden.poll() is not None)
        doubt = f"from services.runner.warden import cells; cells.DOUBT_S = {9 if in_time else 0.3}"
        resume = threading.Timer(0.3 if in_time else 2, main.resume)
        resume.start()  # while its next warden comes up, and waits for it
        with house.warden(patch=doubt):
            entry = await house.exit()
        resume.cancel()
        if in_time:
            assert (entry.exit_code, house.log("a").read_text()) == (6, "up\n")
        else:
            assert (entry.reason, house.log("a").read_text()) == ("start_failed", "")
        assert house.scripts() == []

    play(scene())


def test_kill_9_of_a_keeper_ends_its_whole_cell(house: House):
    script = "setsid sh -c 'trap \"\" TERM; echo up; sleep 100' & sleep 100"

    async def scene() -> None:
        async with house.client() as client:
            started = await house.run(client, script)
            await house.said("up")
            assert len(house.scripts()) >= 2
            os.kill(started.pid, signal.SIGKILL)
            entry = await house.exit()
            assert (entry.reason, entry.signal) == ("killed", "SIGKILL")
            assert house.scripts() == []

    play(scene())


def test_after_a_reboot_what_was_written_down_is_told_and_the_rest_is_lost(house: House):
    runs = ("known", "asked", "unknown", "unborn")
    entries: list[dict[str, Any]] = [
        {"run": run, "strategy": run, "boot_id": "another", "kind": kind, **facts}
        for run, kind, facts in (
            *((run, "starting", {}) for run in runs),
            *((run, "started", {"pid": 1, "start_ticks": 1}) for run in runs[:3]),
            ("asked", "stopping", {"reason": "stopped_by_user", "ladder": [["SIGKILL", 0]]}),
        )
    ]
    house.forge(*entries)
    (house.folder / "cells").mkdir()
    for run, end in {"known": "end 768 1.5\n", "asked": "end 9 1.5\n", "unknown": "end 76"}.items():
        text = f"cell 1 1 another whole\ngo\n{end}"
        (house.folder / "cells" / run).write_text(text.ljust(4096, "\0"))

    async def scene() -> None:
        exits = await house.exits(*runs)
        assert {run: (e.reason, e.exit_code, e.signal) for run, e in exits.items()} == {
            "known": ("crashed", 3, None),
            "asked": ("stopped_by_user", None, "SIGKILL"),
            "unknown": ("lost", None, None),
            "unborn": ("start_failed", None, None),
        }
        assert exits["unknown"].detail == "the host was restarted"
        await until(lambda: house.records() == set())

    play(scene())


def test_a_stranger_with_a_recycled_pid_is_never_signalled(house: House):
    stranger = house.child()
    ticks = int(Path(f"/proc/{stranger.pid}/stat").read_text().rpartition(")")[2].split()[19])
    stopping = {"kind": "stopping", "reason": "stopped_by_user", "ladder": [["SIGKILL", 0]]}
    entries: list[dict[str, Any]] = []
    for run, forged in {
        "other-ticks": {"start_ticks": ticks - 1, "boot_id": boot_id()},
        "other-boot": {"start_ticks": ticks, "boot_id": "another"},
    }.items():
        subject = {"run": run, "strategy": run, "pid": stranger.pid, **forged}
        entries += [{"kind": "started", **subject}, {**subject, **stopping}]
    house.forge(*entries)

    async def scene() -> None:
        exits = await house.exits("other-ticks", "other-boot")
        assert all(entry.detail for entry in exits.values())

    play(scene())
    assert stranger.poll() is None
    stranger.kill()
    assert stranger.wait() == -signal.SIGKILL


def test_what_is_left_of_no_live_run_is_removed(house: House):
    """By the next warden; also of a run whose start is in no journal."""

    async def scene() -> None:
        async with house.client() as client:
            await house.run(client, WAITS, "lives")
            await house.run(client, "exec sleep 100", "dies")
            dies = next(run.pid for run in await client.list() if run.run == "dies")
            assert dies
            house.groups().create("ghost", Bounds())
            (house.folder / "cells" / "ghost").write_text("")
            os.kill(client.pid, signal.SIGKILL)
            os.kill(dies, signal.SIGKILL)
        async with house.client() as client:
            await house.exits("dies")
            await until(lambda: house.records() == house.groups().runs() == {"lives"})
            assert [run.run for run in await client.list()] == ["lives"]
            house.go.touch()
            assert (await house.exit("lives")).exit_code == 0

    play(scene())


def test_two_homes_on_one_host_have_nothing_to_do_with_each_other(house: House, tmp_path: Path):
    other = House(tmp_path / "other")

    async def scene() -> None:
        async with house.client() as one, other.client() as two:
            assert one.pid != two.pid
            for home, client in ((house, one), (other, two)):
                await home.run(client, WAITS + "; exit 5")
            await one.stop("a", "stopped_by_user", KILL)
            assert (await house.exit()).signal == "SIGKILL"
            os.kill(one.pid, signal.SIGKILL)
            async with house.client() as again:
                assert await again.list() == []
            assert [run.run for run in await two.list()] == ["a"]
            assert other.groups().runs() == {"a"}
            other.go.touch()
            assert (await other.exit()).exit_code == 5

    try:
        play(scene())
    finally:
        other.clear()
