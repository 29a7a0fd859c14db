"""A warden that is not root, and cells that have no namespaces."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from services.runner.backends.warden_client import WardenClient
from tests.fixtures import ordinary
from tests.fixtures.wardens import KILL, QUICK, SH, WAITS, House, gone, play, until

if sys.platform != "linux":
    pytest.skip("reads /proc", allow_module_level=True)
assert sys.platform == "linux"

BARE = """
from services.runner.warden import cells
cells.Cells.try_one = lambda self: setattr(self, "why_bare", "a test")
"""
NO_GROUPS = """
from services.runner.warden import cgroup_parents
cgroup_parents.find = lambda name: cgroup_parents.Parents(why=["a test"])
"""
ROOT_IS_ROOT = """
from services.runner.warden import uids
uids.available = lambda: False
"""


@pytest.fixture
def home(ordinary_house: House) -> House:
    return ordinary_house


FACTS = """
echo $(id -u) $(id -g); cat /proc/self/oom_score_adj; ls -d /proc/[0-9]* | wc -l
grep -E 'CapEff|NoNewPrivs' /proc/self/status; touch here; touch /usr/here; echo x >/tmp/$TOKEN
"""


def test_an_ordinary_user_has_whole_cells_where_its_host_permits(home: House, python: str):
    async def scene() -> None:
        async with home.client() as client:
            if not ordinary.permitted():
                pytest.skip("this host lets no ordinary user have namespaces")
            assert client.host["namespaces"], client.host["why_no_namespaces"]
            assert not client.host["own_user"]
            await home.run(client, FACTS)
            await home.exits("a")
            said = home.log("a").read_text().splitlines()
            uid = ordinary.user() or os.getuid()
            assert said[0].split()[0] == str(uid)
            assert said[1] == "500"
            assert int(said[2]) <= 5
            assert said[3:5] == ["CapEff:\t0000000000000000", "NoNewPrivs:\t1"]
            assert (home.work / "here").stat().st_uid == uid
            assert not Path("/tmp", home.token).exists()
            await everything_works(home, client)

    with home.warden(python=python, user=ordinary.user()):
        play(scene())


async def everything_works(home: House, client: WardenClient) -> None:
    """Codes, stops, held starts, and what a dead warden leaves."""
    await home.hold(client, "exit 3", time.time() + 0.5, "held")
    await home.run(client, "kill -TERM $$", "term")
    stopped = await home.run(
        client, "trap '' INT TERM; setsid sleep 100 & exec sleep 101", "stopped"
    )
    await client.stop("stopped", "stopped_by_user", QUICK)
    left = await home.run(client, f"(setsid sh -c '{WAITS}' &); exit 5", "left")
    await home.run(client, f"{WAITS}; exit 6", "outlives")
    exits = await home.exits("held", "term", "stopped", "left")
    assert exits["held"].exit_code == 3
    assert exits["term"].signal == "SIGTERM"
    assert (exits["stopped"].reason, exits["stopped"].signal) == ("stopped_by_user", "SIGKILL")
    assert exits["left"].exit_code == 5
    assert gone(stopped.pid)
    assert gone(left.pid)
    assert len(home.scripts()) <= 2, "of the one that lives"
    assert psutil.Process(client.pid).num_fds() < 20


@pytest.mark.parametrize("patch", [BARE, BARE + NO_GROUPS])
def test_a_bare_cell_is_held_together_by_session_mark_and_group(
    home: House, python: str, patch: str
):
    async def scene() -> None:
        async with home.client() as client:
            assert client.host["why_no_namespaces"] == "a test"
            await everything_works(home, client)
            await home.run(client, "exec sleep 100", "dies")
            dies = next(run.pid for run in await client.list() if run.run == "dies")
            assert dies
            os.kill(client.pid, signal.SIGKILL)
            os.kill(dies, signal.SIGKILL)
        with home.warden(python=python, user=ordinary.user(), patch=patch):
            async with home.client() as client:
                home.go.touch()
                exits = await home.exits("outlives", "dies")
                # Without a keeper nobody has seen it.
                assert {exits[run].reason for run in ("outlives", "dies")} == {"lost"}
                assert await client.list() == []

    with home.warden(python=python, user=ordinary.user(), patch=patch):
        play(scene())


DAEMON = """
import os, signal, sys, time
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        away = "import time; print('away', flush=True); time.sleep(106)"
        os.execve(sys.executable, ["python", "-c", away, sys.argv[-1]], {environment})
    os._exit(0)
os.wait()
time.sleep(100)
"""
"""A deaf one, in a session of its own, whose parents are gone."""


@pytest.mark.parametrize(("environment", "others"), [("os.environ", 2), ("{}", 0)])
def test_a_stop_of_a_bare_cell_finds_a_daemon_by_its_mark_or_as_the_only_one_s(
    home: House, python: str, environment: str, others: int
):
    async def scene() -> None:
        async with home.client() as client:
            for number in range(others):
                await home.start(client, [SH, "-c", "exec sleep 105"], f"other{number}")
            script = DAEMON.replace("{environment}", environment)
            await home.start(client, [python, "-c", script], "a")
            await home.said("away")
            assert len(home.scripts()) == others + 2
            await client.stop("a", "stopped_by_user", QUICK)
            entry = await home.exit()
            assert (entry.reason, entry.signal) == ("stopped_by_user", "SIGKILL")
            assert len(home.scripts()) == others
            assert [run.run for run in await client.list()] == [f"other{n}" for n in range(others)]

    with home.warden(python=python, user=ordinary.user(), patch=BARE + NO_GROUPS):
        play(scene())


@pytest.mark.parametrize("patch", [BARE, BARE + NO_GROUPS])
def test_a_bare_cell_of_root_has_a_user_of_its_own_all_the_same(home: House, patch: str):
    async def scene() -> None:
        async with home.client() as client:
            if not client.host["own_user"]:
                pytest.skip("needs root")
            for parent in (home.folder, home.folder.parent):
                parent.chmod(0o711)
            await home.run(client, f"{FACTS} rm /tmp/$TOKEN; env -i setsid sleep 100 & {WAITS}")
            await until(lambda: len(home.scripts()) >= 1)
            home.go.touch()
            await home.exits("a")
            said = home.log("a").read_text().splitlines()
            uid = int(said[0].split()[0])
            assert uid >= 40_000
            assert home.log("a").stat().st_uid == (home.work / "here").stat().st_uid == uid
            assert psutil.Process(client.pid).children() == []

    with home.warden(patch=patch):
        play(scene())


def test_a_bare_run_keeps_its_group_when_its_descendants_shed_all_else(house: House):
    shed = "env -i setsid setsid sh -c 'trap \"\" TERM; echo shed; sleep 103' </dev/null &"

    async def scene() -> None:
        async with house.client() as client:
            if not client.host["groups"]["version"]:
                pytest.skip(client.host["why_no_limits"])
            await house.start(client, [SH, "-c", "sleep 100"], "other")
            await house.run(client, f"({shed}) ; sleep 0.1; {WAITS}", cwd=str(house.work))
            await house.said("shed")
            pids = house.groups().of("a").pids()
            assert len(pids) >= 2
            await client.stop("a", "stopped_by_user", KILL)
            await house.exits("a")
            assert all(map(gone, pids))
            assert [run.run for run in await client.list()] == ["other"]

    with house.warden(patch=BARE + ROOT_IS_ROOT):
        play(scene())
