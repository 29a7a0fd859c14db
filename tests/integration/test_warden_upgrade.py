"""A warden becomes another release of itself, with real processes: nobody notices."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from services.runner.backends import warden_client
from services.runner.backends.warden_client import BOOT, ROOT, WardenClient, WardenRefused
from services.runner.warden.protocol import Upgrade
from tests.fixtures.wardens import KILL, NOW, WAITS, House, play, until

if sys.platform != "linux":
    pytest.skip("reads /proc", allow_module_level=True)
assert sys.platform == "linux"

PROGRAM = BOOT.format(root=str(ROOT))
CALMER = """
import services.runner.warden.main
services.runner.warden.main.CALM = 0.2
"""
BARE = """
from services.runner.warden import cells, uids
cells.Cells.try_one = lambda self: setattr(self, "why_bare", "a test")
uids.available = lambda: False
"""


async def upgrade(client: WardenClient, program: str = PROGRAM) -> None:
    """Until it has become that release."""
    await client._ask(Upgrade(sys.executable, program))  # pyright: ignore[reportPrivateUsage]
    async with asyncio.timeout(10):
        await client._news.wait()  # pyright: ignore[reportPrivateUsage]
    await client.close()


@pytest.mark.parametrize("patch", ["", BARE])
def test_who_runs_and_who_is_held_stay_with_it(house: House, patch: str):
    """Each with a secret in its environment, which no file ever holds."""
    secret = "kite-live-0a1b2c3d"

    async def scene() -> None:
        async with house.client() as client:
            warden = psutil.Process(client.pid)
            env = {"SECRET": secret}
            for n in range(3):
                script = f"{WAITS}; [ $SECRET = {secret} ] || exit 9; exit {n}"
                await house.run(client, script, f"r{n}", env=env)
            at = time.time() + 2
            for n in range(3):
                await house.hold(client, f"{NOW}; echo $SECRET >&2", at, f"h{n}", env=env)
            before = {child.pid: child.create_time() for child in warden.children()}
            assert len(before) == 6
            await upgrade(client, f"{PROGRAM}exec({patch!r}); ")
        async with house.client() as client:
            assert client.pid == warden.pid
            await until(lambda: {c.pid: c.create_time() for c in warden.children()} == before)
            states = {run.run: run.state for run in await client.list()}
            assert states == {f"r{n}": "running" for n in range(3)} | {
                f"h{n}": "parked" for n in range(3)
            }
            assert [await house.hold(client, NOW, at, f"h{n}") for n in range(3)] == [None] * 3
            await client.stop("h2", "stopped_by_user", KILL)
            house.go.touch()
            exits = await house.exits(*(f"r{n}" for n in range(3)))
            assert [exits[f"r{n}"].exit_code for n in range(3)] == [0, 1, 2]
            assert time.time() < at
            exits = await house.exits("h0", "h1", "h2")
            reasons = [exits[f"h{n}"].reason for n in range(3)]
            assert reasons == ["completed", "completed", "stopped_by_user"]
            assert warden.children() == []
        for n in range(2):
            said = house.log(f"h{n}").read_text().split()
            assert said[1] == secret
            assert at <= float(said[0]) < at + 5
        assert house.log("h2").read_text() == ""
        for path in house.folder.rglob("*"):
            if path.is_file() and path.parent != house.log("x").parent:
                assert secret.encode() not in path.read_bytes()

    with house.warden(patch=CALMER + patch):
        play(scene())


@pytest.mark.parametrize("patch", ["", BARE])
def test_who_ends_while_it_is_neither_of_the_two_is_told_with_its_code(house: House, patch: str):
    """The new release begins with a wait for the end of it."""
    waits = f"""
import contextlib, os
with contextlib.suppress(ChildProcessError):  # this is its trial, in a process apart
    os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT | os.WNOHANG)
    open({str(house.go)!r}, "w").close()
    os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
    os.kill(os.getpid(), 15)
"""

    async def scene() -> None:
        async with house.client() as client:
            await house.run(client, f"{WAITS}; exit 6")
            await house.hold(client, "exit 7", time.time() + 1.5, "held")
            pid = client.pid
            await upgrade(client, f"{PROGRAM}exec({waits!r}); exec({patch!r}); ")
        async with house.client() as client:
            assert client.pid == pid
            assert (await house.exit()).exit_code == 6
            assert (await house.exit("held")).exit_code == 7

    with house.warden(patch=CALMER + patch):
        play(scene())


@pytest.mark.parametrize(
    ("python", "program", "why"),
    [
        ("/no-such-python", PROGRAM, "no-such-python"),
        ("/etc/passwd", PROGRAM, "Permission denied"),
        (sys.executable, "import no_such_release; ", "no_such_release"),
        (sys.executable, "import os; os._exit(3); ", "ended with 3"),
    ],
)
def test_what_cannot_be_is_refused_and_the_old_one_goes_on(
    house: House, python: str, program: str, why: str
):
    async def scene() -> None:
        async with house.client() as client:
            await house.run(client, f"{WAITS}; exit 5")
            before = house.traces(client.pid)
            with pytest.raises(WardenRefused, match=why):
                await client._ask(Upgrade(python, program))  # pyright: ignore[reportPrivateUsage]
            assert [run.run for run in await client.list()] == ["a"]
            assert house.traces(client.pid) == before
            house.go.touch()
            assert (await house.exit()).exit_code == 5

    play(scene())


def test_one_whose_interpreter_is_gone_at_the_last_moment_goes_on(house: House, tmp_path: Path):
    python = tmp_path / "python"
    shutil.copy(os.path.realpath(sys.executable), python)
    vanishes = f"""
from services.runner.warden import handover
check = handover.check
def checked(successor):
    said = check(successor)
    os.unlink({str(python)!r})
    return said
handover.check = checked
"""

    async def scene() -> None:
        async with house.client() as client:
            await house.hold(client, "exit 5", time.time() + 1.5)
            before = house.traces(client.pid)
            order = Upgrade(str(python), "import os, sys; ")
            await client._ask(order)  # pyright: ignore[reportPrivateUsage]
            log = house.folder / "warden.log"
            await until(lambda: "FileNotFoundError" in log.read_text())
            assert house.traces(client.pid) == before
            os.kill(client.pid, signal.SIGCHLD)
            assert (await house.exit()).exit_code == 5

    with house.warden(patch=f"import os{vanishes}{CALMER}"):
        play(scene())


def test_it_is_put_off_while_a_start_is_due_and_while_somebody_is_stopped(house: House):
    async def scene() -> None:
        async with house.client() as client:
            at = time.time() + 1
            await house.hold(client, NOW, at)
            began = time.time()
            await upgrade(client)
            assert time.time() >= at > began
            await house.exits("a")
        assert float(house.log("a").read_text()) >= at
        async with house.client() as client:
            script = "trap 'echo heard' INT; echo up; while :; do sleep 0.02; done"
            await house.run(client, script, "b")
            await house.said("up", "b")
            await client.stop("b", "stopped_by_user", (("SIGINT", 0.5), ("SIGKILL", 0.0)))
            await upgrade(client)
            assert (await house.exit("b")).signal == "SIGKILL"
        assert house.log("b").read_text() == "up\nheard\n"

    play(scene())


def test_a_client_of_another_release_has_it_become_that_one_and_asks_once(
    house: House, monkeypatch: pytest.MonkeyPatch
):
    asked: list[Upgrade] = []
    ask = WardenClient._ask  # pyright: ignore[reportPrivateUsage]

    async def counted(client: WardenClient, request: object):
        if isinstance(request, Upgrade):
            asked.append(request)
        return await ask(client, request)  # type: ignore[arg-type]

    monkeypatch.setattr(WardenClient, "_ask", counted)

    async def scene() -> None:
        async with house.client() as client:
            started = await house.run(client, f"{WAITS}; exit 5")
            pid = client.pid
        assert asked == []
        monkeypatch.setattr(warden_client, "BUILD", "another")
        async with house.client() as client:
            assert (client.pid, client.build) != (pid, "another")
            assert client.pid == pid
            assert len(asked) == 1, "what it has become is not what was asked for, either"
            assert [run.pid for run in await client.list()] == [started.pid]
            house.go.touch()
            async for entries in client.entries(0):
                if entries[-1].kind == "exited":
                    assert entries[-1].exit_code == 5
                    break
        assert (house.folder / "warden.log").read_text().count("becomes another release") == 1

    play(scene())


def test_one_that_was_asked_to_end_becomes_nothing_else(house: House):
    async def scene() -> None:
        async with house.client() as client:
            await house.run(client, WAITS)
            os.kill(client.pid, signal.SIGTERM)
            await client.list()
            with pytest.raises(WardenRefused, match="leaving"):
                await client._ask(Upgrade(sys.executable, PROGRAM))  # pyright: ignore[reportPrivateUsage]
            house.go.touch()
            await until(lambda: not psutil.pid_exists(client.pid))

    play(scene())
