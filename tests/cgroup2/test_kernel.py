"""What limits are built on: that this kernel does what they take for granted."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.fixtures.cgroup2 import MOUNT, USER, await_empty, counts, divisible

if sys.platform != "linux":
    pytest.skip("cgroups are Linux's", allow_module_level=True)
assert sys.platform == "linux"

pytestmark = pytest.mark.cgroup2

MIB = 2**20
IN_BACKGROUND = "/bin/sleep infinity >/dev/null 2>&1"
"""Keeps no pipe open that somebody reads to its end."""


def run_in(group: Path, script: str) -> subprocess.CompletedProcess[str]:
    """A shell that is in the group before it does anything."""
    entered = f"set -e; echo 0 > {group}/cgroup.procs; {script}"
    command = ["/bin/sh", "-c", entered]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@contextlib.contextmanager
def sleeper(group: Path, *, user: int | None = None) -> Generator[subprocess.Popen[bytes]]:
    """A process in the group that only waits to be killed."""
    process = subprocess.Popen(["/bin/sleep", "infinity"], user=user)
    try:
        (group / "cgroup.procs").write_text(str(process.pid))
        yield process
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def acting_as(user: int) -> Generator[None]:
    """Without privileges: the kernel looks at who opens a file, and at who writes."""
    os.setegid(user)
    os.seteuid(user)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@pytest.fixture
def delegated(cgroup: Path) -> Path:
    """A group that the user without privileges may divide, as systemd gives one away."""
    (cgroup / "cgroup.subtree_control").write_text("+cpu +memory +pids")
    return divisible(cgroup / "delegated")


def members(group: Path) -> set[int]:
    return {int(line) for line in (group / "cgroup.procs").read_text().split()}


def refused(file: Path, text: str) -> int:
    """The errno with which writing fails; 0 if it does not."""
    try:
        file.write_text(text)
    except OSError as error:
        return error.errno or -1
    return 0


def test_memory_beyond_its_limit_is_killed_and_counted(cgroup: Path) -> None:
    (cgroup / "memory.max").write_text(str(32 * MIB))
    within = run_in(cgroup, "exec dd if=/dev/zero of=/dev/null bs=8M count=1")
    assert within.returncode == 0, within.stderr
    assert counts(cgroup / "memory.events")["oom_kill"] == 0
    beyond = run_in(cgroup, "exec dd if=/dev/zero of=/dev/null bs=128M count=1")
    assert beyond.returncode == -signal.SIGKILL
    assert counts(cgroup / "memory.events")["oom_kill"] == 1


def test_the_most_memory_that_a_group_had_is_remembered(cgroup: Path) -> None:
    (cgroup / "memory.max").write_text(str(64 * MIB))
    run_in(cgroup, "exec dd if=/dev/zero of=/dev/null bs=24M count=1")
    assert 24 * MIB <= int((cgroup / "memory.peak").read_text()) <= 64 * MIB


def test_a_group_that_dies_as_one_leaves_nobody(cgroup: Path) -> None:
    (cgroup / "memory.max").write_text(str(32 * MIB))
    (cgroup / "memory.oom.group").write_text("1")
    with sleeper(cgroup) as bystander:
        run_in(cgroup, "exec dd if=/dev/zero of=/dev/null bs=128M count=1")
        assert bystander.wait(60) == -signal.SIGKILL
    assert counts(cgroup / "memory.events")["oom_group_kill"] == 1


def test_processes_beyond_their_number_are_refused_and_counted(cgroup: Path) -> None:
    (cgroup / "pids.max").write_text("3")
    done = run_in(cgroup, f"for each in 1 2 3; do {IN_BACKGROUND} & done")
    assert "fork" in done.stderr
    assert len(members(cgroup)) == 2
    assert counts(cgroup / "pids.events")["max"] >= 1


def test_processor_time_beyond_its_quota_is_throttled(cgroup: Path) -> None:
    (cgroup / "cpu.max").write_text("20000 100000")
    busy = "while grep -q 'nr_throttled [0-4]$' cpu.stat; do :; done"
    assert run_in(cgroup, f"cd {cgroup} && {busy}").returncode == 0
    stat = counts(cgroup / "cpu.stat")
    assert stat["throttled_usec"] > 0
    assert stat["usage_usec"] < stat["nr_periods"] * 100_000


def test_everybody_below_is_killed_at_once_whatever_session_they_made(cgroup: Path) -> None:
    below = cgroup / "below"
    below.mkdir()
    run_in(cgroup, f"/usr/bin/setsid {IN_BACKGROUND} & {IN_BACKGROUND} &")
    with sleeper(below) as deep:
        assert len(members(cgroup)) == 2
        (cgroup / "cgroup.kill").write_text("1")
        assert deep.wait(60) == -signal.SIGKILL
        await_empty(cgroup)
    assert members(cgroup) == set()


@pytest.mark.parametrize("user", [0, USER])
def test_namespaces_are_to_be_had(user: int) -> None:
    inside = "echo $$ $(/usr/bin/id -u) && mount -t tmpfs none /mnt && echo mounted"
    unshare = ("/usr/bin/unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork")
    done = subprocess.run(
        [*unshare, "--mount-proc", "/bin/sh", "-c", inside],
        user=user,
        group=user,
        extra_groups=[],
        cwd="/",
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("1 0\nmounted\n", "")
    assert "/mnt" not in Path("/proc/mounts").read_text()


def test_a_delegate_limits_and_moves_within_its_groups(delegated: Path) -> None:
    run, other = delegated / "run", delegated / "other"
    with sleeper(delegated, user=USER) as process, acting_as(USER):
        run.mkdir()
        other.mkdir()
        (run / "cgroup.procs").write_text(str(process.pid))
        (delegated / "cgroup.subtree_control").write_text("+cpu +memory +pids")
        (run / "memory.max").write_text(str(32 * MIB))
        (run / "pids.max").write_text("8")
        (run / "cpu.max").write_text("20000 100000")
        assert members(run) == {process.pid}
        (other / "cgroup.procs").write_text(str(process.pid))
        assert members(other) == {process.pid}
        (other / "cgroup.kill").write_text("1")
        assert process.wait(60) == -signal.SIGKILL
        run.rmdir()
        other.rmdir()


def test_a_delegate_may_not_raise_what_it_was_given(delegated: Path) -> None:
    (delegated / "memory.max").write_text(str(64 * MIB))
    with acting_as(USER):
        assert refused(delegated / "memory.max", "max") == errno.EACCES
        assert refused(delegated.parent / "cgroup.subtree_control", "-memory") == errno.EACCES
        assert refused(delegated / "cgroup.kill", "1") == errno.EACCES
    assert (delegated / "memory.max").read_text() == f"{64 * MIB}\n"


def test_a_delegate_moves_nobody_in_or_out_not_even_its_own(delegated: Path) -> None:
    with acting_as(USER):
        (delegated / "run").mkdir()
    with sleeper(MOUNT, user=USER) as process:
        with acting_as(USER):
            inward = refused(delegated / "run" / "cgroup.procs", str(process.pid))
        assert inward == errno.EACCES
    with sleeper(delegated / "run", user=USER) as process, acting_as(USER):
        assert refused(MOUNT / "cgroup.procs", str(process.pid)) == errno.EACCES
        assert members(delegated / "run") == {process.pid}


def test_a_group_that_gives_controllers_on_has_no_processes_of_its_own(cgroup: Path) -> None:
    with sleeper(cgroup):
        (cgroup / "below").mkdir()
        assert refused(cgroup / "cgroup.subtree_control", "+memory") == errno.EBUSY
