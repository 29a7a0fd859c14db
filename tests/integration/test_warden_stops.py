"""Stops, with real processes: by the ladder, over the whole tree, done when all are gone."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time

import psutil
import pytest

from services.runner.backends.warden_client import WardenRefused
from services.runner.warden.protocol import Steps
from tests.fixtures.wardens import KILL, LADDER, PATIENT, QUICK, SH, House, play, refusal, until

if sys.platform != "linux":
    pytest.skip("reads /proc", allow_module_level=True)
assert sys.platform == "linux"

CLEANS_UP = """
import time
try:
    print("up", flush=True)
    time.sleep(100)
except KeyboardInterrupt:
    print("squared off", flush=True)
"""
HEARS_ALL = """
import signal, time
def hear(number, frame):
    print(signal.Signals(number).name, flush=True)
for name in ("HUP", "INT", "QUIT", "USR1", "USR2", "TERM"):
    signal.signal(getattr(signal, "SIG" + name), hear)
print("up", flush=True)
while True:
    time.sleep(1)
"""


@pytest.mark.parametrize("sigint", ["default", "ignored by the parent"])
def test_a_stop_lets_a_strategy_clean_up_on_keyboard_interrupt(house: House, sigint: str):
    async def scene() -> None:
        async with house.client() as client:
            await house.run(client, CLEANS_UP, sh=False)
            await house.said("up")
            await client.stop("a", "stopped_by_schedule", PATIENT)
            await client.stop("a", "stopped_by_user", PATIENT)
            entry = await house.exit()
            assert house.log("a").read_text() == "up\nsquared off\n"
            assert (entry.reason, entry.exit_code) == ("stopped_by_schedule", 0)

    if sigint == "default":
        play(scene())
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with house.warden():
            signal.signal(signal.SIGINT, before)
            play(scene())
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("traps", "end"),
    [("INT", (None, "SIGTERM")), ("INT TERM", (None, "SIGKILL"))],
)
def test_who_ignores_a_step_gets_the_next(house: House, traps: str, end: tuple[None, str]):
    async def scene() -> None:
        async with house.client() as client:
            await house.run(client, f"trap '' {traps}; echo up; exec sleep 100")
            await house.said("up")
            await client.stop("a", "stopped_by_user", QUICK)
            assert [run.state for run in await client.list()] == ["stopping"]
            entry = await house.exit()
            assert (entry.exit_code, entry.signal) == end
            assert entry.reason == "stopped_by_user"
            await client.stop("a", "too late", QUICK)
            assert await refusal(client.stop("nobody", "x", QUICK)) == "unknown_run"

    play(scene())


def test_every_signal_of_a_ladder_is_heard_in_its_turn(house: House):
    names = ("SIGUSR2", "SIGHUP", "SIGQUIT", "SIGINT", "SIGUSR1", "SIGTERM")
    ladder: Steps = (*((name, 0.06) for name in names), ("SIGKILL", 0.0))

    async def scene() -> None:
        async with house.client() as client:
            await house.run(client, HEARS_ALL, sh=False)
            await house.said("up")
            await client.stop("a", "stopped_by_user", ladder)
            assert (await house.exit()).signal == "SIGKILL"
        assert house.log("a").read_text().split() == ["up", *names]

    play(scene())


FAMILY = """
sleep 100 &
(trap '' TERM INT; setsid sh -c 'sh -c "sleep 101 & wait" & wait' &) &
env -i setsid sh -c 'trap "" TERM INT; echo shed; sleep 103; : {token}' &
echo up
"""


def test_the_whole_tree_is_gone_before_it_is_called_over(house: House):
    """A background job, a daemon of its own session, and one that shed its environment."""

    async def scene() -> None:
        async with house.client() as client:
            await house.run(client, FAMILY.format(token=house.token) + "sleep 102")
            await house.said("up")
            await house.said("shed")
            warden = psutil.Process(client.pid)
            await until(lambda: len(warden.children(recursive=True)) >= 9)
            family = warden.children(recursive=True)
            await client.stop("a", "stopped_by_user", QUICK)
            await house.exits("a")
            assert [member for member in family if member.is_running()] == []
            assert warden.children() == []

    play(scene())


LEFT_BEHIND = """
(setsid sh -c 'trap "touch heard; while [ ! -e go ]; do sleep 0.02; done; exit 9" TERM
    touch up; while :; do sleep 0.02; done' &)
while [ ! -e up ]; do :; done
exit 4
"""


def test_what_a_strategy_leaves_behind_is_ended_and_its_own_code_is_told(house: House):
    async def scene() -> None:
        async with house.client() as client:
            await house.run(client, LEFT_BEHIND, "a-1")
            await until((house.work / "heard").exists)
            assert await refusal(house.run(client, "true", "a-2", epoch=2)) == "busy"
            house.go.touch()
            entry = await house.exit("a-1")
            assert (entry.exit_code, entry.reason) == (4, "crashed")
            assert psutil.Process(client.pid).children() == []

    play(scene())


SHORT_FAREWELL = """
from services.runner.warden import cells, keeper, runs
keeper.FAREWELL_S = 0.3
runs.LEFTOVERS = (("SIGTERM", 0.3), ("SIGKILL", 0.0))
"""
BARE = """
cells.Cells.try_one = lambda self: setattr(self, "why_bare", "a test")
"""


@pytest.mark.parametrize("bare", [False, True])
def test_who_is_left_behind_and_will_not_go_is_killed(house: House, *, bare: bool):
    async def scene() -> None:
        async with house.client() as client:
            await house.run(client, LEFT_BEHIND)
            await until((house.work / "heard").exists)
            began = time.monotonic()
            assert (await house.exit()).exit_code == 4
            assert time.monotonic() - began < 4
            assert house.scripts() == []

    house.folder.parent.chmod(0o755)
    with house.warden(patch=SHORT_FAREWELL + (BARE + ROOTED if bare else "")):
        play(scene())


ROOTED = """
from services.runner.warden import uids
uids.available = lambda: False
"""
"""Its folder lies below one of the test's, where no other user may go."""


def test_hundreds_are_stopped_at_once_and_leave_nothing_in_their_warden(house: House):
    """Some live, some ignore what is polite, some are held, some end by themselves meanwhile."""
    scripts = ("exec sleep 100", "trap '' INT TERM; exec sleep 100", "exit 7", None)
    count = 200

    async def scene() -> None:
        async with house.client() as client:
            before = house.traces(client.pid)
            assert before["children"] == 0
            far = time.time() + 60
            for n in range(count):
                script = scripts[n % 4]
                at = far if script is None else None
                await house.start(client, [SH, "-c", script or "true"], f"r{n}", at=at)
            await asyncio.gather(
                *(client.stop(f"r{n}", "stopped_by_user", QUICK) for n in range(count))
            )
            exits = await house.exits(*(f"r{n}" for n in range(count)))
            for n in range(count):
                end = exits[f"r{n}"]
                if n % 4 == 2 and end.reason == "crashed":
                    assert end.exit_code == 7
                else:
                    assert end.reason == "stopped_by_user"
            assert {exits[f"r{n}"].signal for n in range(3, count, 4)} == {None}
            assert house.scripts() == []
            await until(lambda: house.traces(client.pid) == before)

    play(scene())


def test_a_stop_in_the_same_breath_as_its_start(house: House):
    """They are heard in one turn: nothing is in between but the preparing itself."""

    async def scene() -> None:
        async with house.client() as client:
            for n in range(5):
                now = client.start(house.order([SH, "-c", "exec sleep 100"], f"now{n}"))
                held = client.start(house.order([SH], f"held{n}", at=time.time() + 60))
                stops = (
                    client.stop(f"{kind}{n}", "stopped_by_user", LADDER) for kind in ("now", "held")
                )
                await asyncio.gather(now, held, *stops)
            exits = await house.exits(*(f"{kind}{n}" for kind in ("now", "held") for n in range(5)))
        assert {end.reason for end in exits.values()} == {"stopped_by_user"}
        # It was not executed yet, or was just now: what SIGINT does before anybody handles it.
        assert {exits[f"now{n}"].signal for n in range(5)} == {"SIGINT"}
        assert house.scripts() == []

    play(scene())


def test_a_stop_right_at_the_instant_of_its_start(house: House):
    """Either it was recalled, or it was executed and stopped."""

    async def scene() -> None:
        async with house.client() as client:
            at = time.time() + 1
            runs = {f"r{n}": at + n * 0.01 for n in range(10)}
            for run, instant in runs.items():
                await house.hold(client, "echo up; exec sleep 100", instant, run)
            for run, instant in runs.items():
                await asyncio.sleep(max(0, instant - time.time()))
                await client.stop(run, "stopped_by_user", LADDER)
            exits = await house.exits(*runs)
        for run in runs:
            assert exits[run].reason == "stopped_by_user"
            if house.told(run) == ["preparing", "parked", "exited"]:
                assert house.log(run).read_text() == ""
            else:
                assert house.told(run) == ["preparing", "parked", "started", "stopping", "exited"]
                assert exits[run].signal == "SIGINT"
        assert house.scripts() == []

    play(scene())


def test_a_stop_amid_a_crash_is_told_as_one_of_them(house: House):
    async def scene() -> None:
        runs = [f"r{n}" for n in range(10)]
        async with house.client() as client:
            for run in runs:
                await house.run(client, "kill -SEGV $$", run)
                await client.stop(run, "stopped_by_user", LADDER)
            exits = await house.exits(*runs)
        for run in runs:
            asked = "stopping" in house.told(run)
            assert exits[run].reason == ("stopped_by_user" if asked else "crashed")
            assert exits[run].signal in {"SIGSEGV", "SIGINT"}

    play(scene())


@pytest.mark.parametrize("late", ["a stop", "its lifetime"])
def test_what_comes_after_it_has_ended_is_not_why_it_ended(house: House, late: str):
    """Its keeper is still seeing off who was left behind: the crash was told as a stop by hand."""
    script = (
        "(trap '' TERM; touch deaf; sleep 100) & until [ -e deaf ]; do sleep 0.02; done; exit 3"
    )

    async def scene() -> None:
        async with house.client() as client:
            lifetime = 1.5 if late == "its lifetime" else None
            await house.run(client, script, lifetime=lifetime)
            await until(lambda: "end " in (house.folder / "cells" / "a").read_text())
            assert [run.run for run in await client.list()] == ["a"]
            if late == "a stop":
                await client.stop("a", "stopped_by_user", KILL)
        entry = await house.exit()
        assert (entry.reason, entry.exit_code) == ("crashed", 3)

    play(scene())


def test_a_run_that_reached_its_lifetime_is_stopped_by_its_own_ladder(house: House):
    """Also by a warden that was not there when it started."""

    async def scene() -> None:
        async with house.client() as client:
            await house.run(client, CLEANS_UP, "brief", sh=False, lifetime=0.4)
            await house.run(client, CLEANS_UP, "later", sh=False, lifetime=1.0)
            await house.run(client, "true", "ends", lifetime=0.2)
            entry = await house.exit("brief")
            assert (entry.reason, entry.exit_code) == ("time_limit", 0)
            assert house.log("brief").read_text() == "up\nsquared off\n"
            os.kill(client.pid, signal.SIGKILL)
        entry = await house.exit("later")
        assert (entry.reason, entry.exit_code) == ("time_limit", 0)
        assert entry.detail == "it has run for as long as it may"
        assert house.log("later").read_text() == "up\nsquared off\n"
        assert (await house.exit("ends")).reason == "completed"

    play(scene())


def test_who_is_cleaning_up_when_its_warden_dies_is_not_interrupted_again(house: House):
    async def scene() -> None:
        async with house.client() as client:
            await house.run(client, HEARS_ALL, sh=False)
            await house.said("up")
            await client.stop("a", "stopped_by_user", (("SIGINT", 0.8), ("SIGKILL", 0.0)))
            await house.said("SIGINT")
            os.kill(client.pid, signal.SIGKILL)
        entry = await house.exit()
        assert (entry.reason, entry.signal) == ("stopped_by_user", "SIGKILL")
        assert house.log("a").read_text() == "up\nSIGINT\n"

    play(scene())


def test_a_stop_of_what_has_ended_is_heard_and_changes_nothing(house: House):
    async def scene() -> None:
        async with house.client() as client:
            await house.run(client, "exit 3")
            await house.exits("a")
            await client.stop("a", "stopped_by_user", KILL)
            with pytest.raises(WardenRefused, match="unknown_run"):
                await client.stop("b", "stopped_by_user", KILL)
        assert house.told() == ["starting", "started", "exited"]

    play(scene())
