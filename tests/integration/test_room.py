"""A whole product that is short of room: what waits says so, and follows when another ends."""

import json
import os
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from openbell.cli import app
from tests.fixtures.stack import (
    OPENBELL,
    Stack,
    end_all,
    eventually,
    start_one_process,
    start_program,
)

MB = 1024**2
HOLDS = "import time\nheld = bytearray(40_000_000)\ntime.sleep(600)\n"
SLEEPS = "import time\ntime.sleep(600)\n"
SETTINGS = {
    "OPENBELL_RUNNER__HEARTBEAT_S": "0.5",
    "OPENBELL_RUNNER__SAMPLE_S": "0.2",
    "OPENBELL_SCHEDULER__RECONCILE_S": "600",
}
"""What waits is looked at since there is room, and not since time has passed."""


def runner(stack: Stack) -> dict[str, Any]:
    return stack.http.get("/runners").json()["runners"][0]


def fitting(stack: Stack, count: int) -> dict[str, Any]:
    """Its runner, once so many more fit."""
    return eventually(
        lambda: found if (found := runner(stack))["fits"] == count else None,
        lambda: f"{runner(stack)['fits']} fit, and not {count}: {runner(stack)['memory']}",
    )


def openbell(stack: Stack, *arguments: str) -> str:
    environment = {"OPENBELL_TOKEN": stack.token, "COLUMNS": "250"}
    done = CliRunner().invoke(app, [*arguments, "--url", stack.url], env=environment)
    assert done.exit_code == 0, done.output
    return done.output


# ---- by a setting


@pytest.fixture
def capped(tmp_path: Path) -> Generator[Stack]:
    home = tmp_path / "home"
    try:
        yield start_one_process(home, OPENBELL_RUNNER__MOST_RUNS="1", **SETTINGS)
    finally:
        end_all(home)


def test_what_finds_no_room_waits_says_so_and_starts_when_another_ends(capped: Stack) -> None:
    first, second = capped.upload(HOLDS, "First"), capped.upload(SLEEPS, "Second")
    fitting(capped, 1)
    capped.post(f"/python/start/{first}", params={"wait": 20})
    answer = capped.post(f"/python/start/{second}")
    reason = "no room on local: 1 run is there, and it takes 1 at most"
    assert reason in answer["note"]
    view = capped.status(second)
    assert (view["status"], view["reason"]) == ("waiting", reason)
    assert reason in openbell(capped, "ls")
    assert fitting(capped, 0)["memory"]["most_runs"] == 1
    shown = openbell(capped, "runners")
    assert "by its settings, 1 at one time" in shown
    eventually(
        lambda: runner(capped)["memory"]["promised_bytes"] < (16 - 2) * MB or None,
        lambda: f"what it uses is still promised: {runner(capped)['memory']}",
    )

    capped.post(f"/python/stop/{first}", params={"wait": 20})
    assert capped.wait_status(second, "running")["run"]["epoch"] == 1
    [record] = capped.http.get(f"/python/runs/{first}").json()
    assert 40_000_000 < record["usage"]["working_memory_bytes"] < 100_000_000


# ---- by the memory that there is


@pytest.fixture
def group() -> Generator[Path]:
    """A control group of 1 GB, in which a product may be."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root may make control groups wherever it likes")
    from services.runner.warden import cgroup_mounts  # noqa: PLC0415

    mounted = cgroup_mounts.mounts(Path("/proc/self/mountinfo").read_text())
    member = cgroup_mounts.memberships(Path("/proc/self/cgroup").read_text())
    own = cgroup_mounts.own_folders(mounted, member, ["memory"])
    if not own:
        pytest.skip("there is no controller of memory of cgroups v1 here")
    made = Path(own["memory"]) / f"test-room-{os.getpid()}"
    made.mkdir()
    (made / "memory.limit_in_bytes").write_text(str(1024 * MB))
    yield made
    eventually(lambda: _removed(made), lambda: "somebody is left in it")


def _removed(group: Path) -> bool | None:
    try:
        for folder, _, _ in os.walk(group, topdown=False):
            Path(folder).rmdir()
    except OSError:
        return None
    return True


def _settled(stack: Stack) -> dict[str, Any] | None:
    """What memory it has once it has found its interpreters, which takes some."""
    found = runner(stack)
    return found["memory"] if found["pythons"] else None


def test_the_control_group_that_openbell_is_in_bounds_what_fits(
    group: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    enter = f'echo $$ > {group}/cgroup.procs; exec {OPENBELL} "$@"'
    try:
        stack = start_program(home, SETTINGS, ["sh", "-c", enter, "sh"])
        before = eventually(lambda: _settled(stack), lambda: "it does not tell")
        assert before["total_bytes"] == 1024 * MB
        tight = 1024 * MB - before["free_bytes"] + (16 + 8) * MB
        (group / "memory.limit_in_bytes").write_text(str(tight))
        fitting(stack, 1)
        first, second = stack.upload(SLEEPS, "First"), stack.upload(SLEEPS, "Second")
        stack.post(f"/python/start/{first}", params={"wait": 20})
        note = json.loads(stack.http.post(f"/python/start/{second}").content)["note"]
        assert "no room on local: " in note
        assert "MB are taken or promised, and it needs 16 MB" in note
        stack.wait_status(second, "waiting")
        stack.post(f"/python/stop/{first}", params={"wait": 20})
        stack.wait_status(second, "running")
        stack.stop()
    finally:
        end_all(home)
