"""Where a warden's groups are made on v2: what systemd and containers give, and what they do not.

Each test is another process, in a group of its own, which opens groups and tells what it found.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any, cast

import pytest

from tests.fixtures.cgroup2 import USER, divisible

if sys.platform != "linux":
    pytest.skip("control groups are Linux's", allow_module_level=True)
assert sys.platform == "linux"

pytestmark = pytest.mark.cgroup2

ROOT = Path(__file__).parents[3]
LIMITS = {"memory": True, "processes": True, "cpu": True}
WARDEN = """
import json, os, sys
from services.runner.warden.cgroups import Bounds, Groups

def own():
    return open("/proc/self/cgroup").read().strip()

user = int(sys.argv[1])
os.setgroups([])
os.setresgid(user, user, user)
os.setresuid(user, user, user)
told = {"before": own()}
groups = Groups.open("x")
told |= {"version": groups.version, "why": groups.why, "enforces": dict(groups.enforces)}
told |= {"during": own(), "groups": groups.to_json()}
if groups.version:
    group = groups.create("run", Bounds(memory=32 << 20, processes=8, cpu_weight=50, cpus=0.5))
    child = os.fork()
    if child == 0:
        group.enter()
        held = b"x" * (256 << 20)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    told |= {"status": status, "out_of_memory": group.used().out_of_memory}
    while not group.remove():
        pass
groups.close()
print(json.dumps(told | {"after": own()}))
"""


@pytest.fixture
def delegated(cgroup: Path) -> Path:
    """Below a group that is not, as systemd's are below a slice."""
    (cgroup / "cgroup.subtree_control").write_text("+cpu +memory +pids")
    return divisible(cgroup / "service")


@pytest.fixture
def stranger() -> Generator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["/bin/sleep", "600"], user=USER) as process:
        yield process
        process.kill()


def opened(group: Path, *wrapper: str, user: int = USER) -> dict[str, Any]:
    """What a warden tells that was started in this group."""
    enter = f'echo 0 > {group}/cgroup.procs && exec "$@"'
    python = (sys.executable, "-S", "-c", WARDEN, str(user))
    done = subprocess.run(
        ["/bin/sh", "-c", enter, "sh", *wrapper, *python],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return cast("dict[str, Any]", json.loads(done.stdout))


def container(option: str) -> tuple[str, ...]:
    """What a container sees whose runtime gives it a namespace of groups."""
    folder = "/sys/fs/cgroup"
    mounted = f'umount -l {folder} && mount -t cgroup2 -o {option} none {folder} && exec "$@"'
    return ("unshare", "--cgroup", "--mount", "/bin/sh", "-c", mounted, "sh")


def path(group: Path) -> str:
    return f"0::/{group.relative_to('/sys/fs/cgroup')}"


def parent(told: dict[str, Any]) -> Path:
    (folder,) = set(told["groups"]["parents"].values())
    return Path(folder)


def left_in(group: Path) -> list[str]:
    return [each.name for each in group.iterdir() if each.is_dir()]


def assert_limited(told: dict[str, Any]) -> None:
    assert (told["version"], told["why"], told["enforces"]) == (2, "", LIMITS)
    assert told["status"] == signal.SIGKILL
    assert told["out_of_memory"] > 0


def test_a_warden_that_is_alone_steps_aside_and_back(delegated: Path):
    told = opened(delegated)
    assert_limited(told)
    assert told["during"] == path(delegated / "openbell-x.warden")
    assert parent(told) == delegated / "openbell-x"
    assert told["after"] == told["before"] == path(delegated)
    assert left_in(delegated) == []
    assert (delegated / "cgroup.subtree_control").read_text().strip() == ""


def test_beside_others_it_takes_the_group_above_if_that_may_be_divided(
    delegated: Path, stranger: subprocess.Popen[bytes]
):
    """systemd's DelegateSubgroup: the service's processes are in a group below its own."""
    leaf = divisible(delegated / "main")
    (leaf / "cgroup.procs").write_text(str(stranger.pid))
    told = opened(leaf)
    assert_limited(told)
    assert told["during"] == told["before"] == path(leaf)
    assert parent(told) == delegated / "openbell-x"
    assert left_in(delegated) == ["main"]


def test_beside_others_with_nothing_above_it_says_so_and_moves_nobody(
    delegated: Path, stranger: subprocess.Popen[bytes]
):
    (delegated / "cgroup.procs").write_text(str(stranger.pid))
    told = opened(delegated)
    assert told["version"] == 0
    assert not any(told["enforces"].values())
    assert f"{delegated}/cgroup.procs: has other processes ({stranger.pid})" in told["why"]
    assert "Delegate=yes" in told["why"]
    assert (delegated / "cgroup.procs").read_text() == f"{stranger.pid}\n"
    assert left_in(delegated) == []


def test_a_group_that_is_not_delegated_is_left_alone(cgroup: Path):
    told = opened(cgroup)
    assert told["version"] == 0
    assert told["why"].startswith(f"{cgroup}: no group may be made there")
    assert left_in(cgroup) == []


def test_what_is_not_delegated_is_told_and_the_rest_enforced(cgroup: Path):
    (cgroup / "cgroup.subtree_control").write_text("+memory +pids")
    group = divisible(cgroup / "service")
    told = opened(group)
    assert told["enforces"] == LIMITS | {"cpu": False}
    assert told["why"] == f"cpu: {group} cannot pass it on"
    assert told["out_of_memory"] > 0
    assert told["after"] == path(group)
    assert left_in(group) == []


def test_root_takes_the_root_of_all(cgroup: Path):
    before = Path("/sys/fs/cgroup/cgroup.subtree_control").read_text()
    told = opened(cgroup, user=0)
    assert_limited(told)
    assert parent(told) == Path("/sys/fs/cgroup/openbell-x")
    assert told["during"] == path(cgroup)
    assert not parent(told).exists()
    assert Path("/sys/fs/cgroup/cgroup.subtree_control").read_text() == before


@pytest.mark.parametrize("alone", [True, False])
def test_in_a_container_the_root_is_a_group_like_others(
    delegated: Path, stranger: subprocess.Popen[bytes], *, alone: bool
):
    if not alone:
        (delegated / "cgroup.procs").write_text(str(stranger.pid))
    told = opened(delegated, *container("rw"), user=0)
    if alone:
        assert_limited(told)
        assert told["during"] == "0::/openbell-x.warden"
    else:
        assert told["version"] == 0
        assert f"/sys/fs/cgroup/cgroup.procs: has other processes ({stranger.pid})" in told["why"]
    assert told["after"] == told["before"] == "0::/"
    assert left_in(delegated) == []


def test_where_groups_cannot_be_written_it_says_so(delegated: Path):
    told = opened(delegated, *container("ro"), user=0)
    assert told["version"] == 0
    assert told["why"].startswith("/sys/fs/cgroup: no group may be made there")
