"""Limits on the kernel of this host, v1 or v2: with real processes. `make test-cgroup2` runs these
on v2, also where this host has v1.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from services.runner.warden.cgroup_files import counts, write
from services.runner.warden.cgroup_parents import Parents
from services.runner.warden.cgroups import Bounds, Group, Groups, Used
from services.runner.warden.host import Usage
from tests.fixtures import cgroup2
from tests.fixtures.stack import eventually

if sys.platform != "linux":
    pytest.skip("control groups are Linux's", allow_module_level=True)
assert sys.platform == "linux"

ROOT = Path(__file__).parents[3]
MIB = 1 << 20
ENTER = """
import json, os, signal, sys, time
from services.runner.warden.cgroups import Groups
group = Groups.from_json(json.loads(sys.argv[1])).of("run")
group.enter()
"""
"""As a run enters it, and as the runner finds it: from what another process tells."""
SLEEP = "print('here', flush=True); time.sleep(600)"
FORK_BOMB = """
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
print('here', flush=True)
while True:
    try:
        if os.fork() == 0:
            os.setsid()
    except OSError:
        pass
"""


@pytest.fixture
def groups() -> Generator[Groups]:
    if not cgroup2.writable() and not all(map(writable, ("memory", "pids", "cpu"))):
        pytest.skip("this user may make no control groups here")
    found = Groups.open(f"test-{uuid.uuid4().hex[:8]}")
    assert all(found.enforces.values()), found.why
    assert found.why == ""
    yield found
    for run in found.runs():
        end(found.of(run))
    found.close()
    assert not any(parent.exists() for parent in parents(found))


def writable(controller: str) -> bool:
    """On v1."""
    return os.access(f"/sys/fs/cgroup/{controller}", os.W_OK)


def parents(groups: Groups) -> list[Path]:
    return [Path(folder).parent for folder in groups.of("run").folders.values()]


def end(group: Group) -> None:
    def gone() -> bool | None:
        group.kill()
        return group.remove() or None

    eventually(gone, lambda: f"still there: {group.pids()}")


def command(groups: Groups, script: str) -> list[str]:
    return [sys.executable, "-S", "-c", ENTER + script, json.dumps(groups.to_json())]


def finished(groups: Groups, script: str) -> subprocess.CompletedProcess[str]:
    """A process that entered the group of `run` and did this there."""
    return subprocess.run(
        command(groups, script), cwd=ROOT, check=False, capture_output=True, text=True, timeout=100
    )


Start = Callable[[str], subprocess.Popen[bytes]]


@pytest.fixture
def start(groups: Groups) -> Generator[Start]:
    """Starts a script in the group of `run`, which prints `here`, and goes on."""
    with contextlib.ExitStack() as stack:

        def started(script: str) -> subprocess.Popen[bytes]:
            popen = subprocess.Popen(command(groups, script), cwd=ROOT, stdout=subprocess.PIPE)
            process = stack.enter_context(popen)
            stack.callback(process.kill)
            assert process.stdout is not None
            assert process.stdout.readline() == b"here\n"
            return process

        yield started


def test_all_bounds_are_in_force_and_what_is_used_is_told(groups: Groups, start: Start):
    group = groups.create("run", Bounds(64 * MIB, 8, 50, 0.5))
    child = start("held = b'x' * (16 * 2**20)\n" + SLEEP)
    used = group.used()
    assert used.memory is not None
    assert used.peak_memory is not None
    assert used.cpu_s is not None
    assert 16 * MIB < used.memory <= used.peak_memory <= 64 * MIB
    assert 0 < used.cpu_s < 60
    assert (used.processes, used.refused, used.out_of_memory) == (1, 0, 0)
    assert group.pids() == [child.pid]
    end(group)
    assert child.wait(60) == -signal.SIGKILL
    assert group.usage() == Usage()


def test_a_run_beyond_its_memory_is_ended_and_counted(groups: Groups, start: Start):
    group = groups.create("run", Bounds(memory=32 * MIB))
    bystander = start(SLEEP)
    greedy = finished(groups, "b'x' * (256 * 2**20)")
    assert greedy.returncode == -signal.SIGKILL, greedy.stderr
    # On v1 the kernel ends one process; the runner sees the number, and ends the run.
    assert group.used().out_of_memory >= groups.version
    if groups.version == 1:
        assert bystander.poll() is None
        end(group)
    assert bystander.wait(60) == -signal.SIGKILL


def test_files_that_are_read_do_not_count_as_memory(groups: Groups, start: Start, tmp_path: Path):
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.write(bytes(24 * MIB))
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    group = groups.create("run", Bounds(memory=64 * MIB))
    start(f"file = open({str(large)!r}, 'rb')\nwhile file.read(2**16): pass\n{SLEEP}")
    used = group.used()
    if used.peak_memory is not None and used.peak_memory < 24 * MIB:
        pytest.skip("the files of this host are in its memory, and nobody's cache")
    assert used.memory is not None
    assert used.memory < 16 * MIB


def test_a_log_that_is_written_does_not_count_as_memory(
    groups: Groups, start: Start, tmp_path: Path
):
    """Nor what was read again and again, which the kernel keeps for longer."""
    group = groups.create("run", Bounds(memory=64 * MIB))
    start(f"""
with open({str(tmp_path / "log")!r}, 'wb+') as log:
    for _ in range(24):
        log.write(bytes(2**20))
    for _ in range(3):
        log.seek(0)
        while log.read(2**16): pass
{SLEEP}""")
    used = group.used()
    if used.peak_memory is not None and used.peak_memory < 24 * MIB:
        pytest.skip("the files of this host are in its memory, and nobody's cache")
    assert used.memory is not None
    assert used.memory < 16 * MIB


def test_processes_and_threads_beyond_their_number_are_refused_and_counted(
    groups: Groups, start: Start
):
    group = groups.create("run", Bounds(processes=4))
    done = finished(
        groups,
        """
import threading
gate = threading.Event()
refused = 0
for _ in range(3):
    threading.Thread(target=gate.wait).start()
for start in (lambda: os.fork() or os._exit(0), threading.Thread(target=gate.wait).start):
    try:
        start()
    except (OSError, RuntimeError):
        refused += 1
print(refused, group.used().processes)
gate.set()
""",
    )
    assert done.stdout == "2 4\n", done.stderr
    assert group.used().refused >= 2
    assert group.usage().refused == group.used().refused


def test_processor_time_beyond_its_quota_is_throttled(groups: Groups):
    group = groups.create("run", Bounds(cpus=0.2))
    finished(
        groups,
        """
from services.runner.warden.cgroup_files import counts
while counts(group.folders["cpu"] + "/cpu.stat")["nr_throttled"] < 3:
    pass
""",
    )
    stat = counts(f"{group.folders['cpu']}/cpu.stat")
    used = group.used()
    assert stat["nr_throttled"] >= 3
    assert used.cpu_s is not None
    assert used.cpu_s < stat["nr_periods"] * 0.1


@pytest.mark.parametrize("way", ["at once", "one by one", "one by one, while they fork"])
def test_all_of_a_fork_bomb_is_killed(groups: Groups, start: Start, way: str):
    group = groups.create("run", Bounds(processes=40, cpu_weight=10))
    child = start(FORK_BOMB)
    eventually(lambda: group.used().refused > 100 or None, lambda: str(group.used()))
    if way == "at once":
        group.kill()
    else:
        known = "pids" if way == "one by one" else "cpu"
        killer = Group(1, {known: group.folders[known]})
        eventually(lambda: killer.kill() or not killer.pids() or None, lambda: str(group.used()))
    assert child.wait(60) == -signal.SIGKILL
    eventually(lambda: group.pids() == [] or None, lambda: str(group.pids()))
    eventually(lambda: group.remove() or None, lambda: str(group.used()))


def test_a_pid_that_a_stranger_got_meanwhile_is_not_killed(monkeypatch: pytest.MonkeyPatch):
    """It was read, ended, was given anew, and then only is pinned."""
    with subprocess.Popen(["/bin/sleep", "600"]) as stranger:
        looks = [[stranger.pid], [], []]

        def look(_group: Group) -> list[int]:
            return looks.pop(0)

        monkeypatch.setattr(Group, "pids", look)
        Group(1, {}).kill()
        assert looks == []
        stranger.send_signal(signal.SIGTERM)
        assert stranger.wait(60) == -signal.SIGTERM


def test_a_group_is_removed_once_nobody_is_in_it(groups: Groups, start: Start):
    group = groups.create("run", Bounds())
    child = start(SLEEP)
    assert group.remove() is False
    assert groups.runs() == {"run"}
    child.kill()
    child.wait(60)
    eventually(lambda: group.remove() or None, lambda: str(group.pids()))
    assert groups.runs() == set()
    assert group.remove() is True
    assert group.pids() == []
    group.kill()


def test_groups_that_a_run_made_below_its_own_end_with_it(groups: Groups, start: Start):
    group = groups.create("run", Bounds())
    child = start(
        """
for folder in set(group.folders.values()):
    os.makedirs(folder + "/deep/deeper")
    with open(folder + "/deep/deeper/cgroup.procs", "w") as door:
        door.write("0")
"""
        + SLEEP,
    )
    assert group.pids() == [child.pid]
    assert group.remove() is False
    end(group)
    assert child.wait(60) == -signal.SIGKILL


def test_a_later_warden_finds_what_an_earlier_one_left(groups: Groups, start: Start):
    groups.create("run", Bounds(processes=4))
    child = start(SLEEP)
    name = parents(groups)[0].name.removeprefix("openbell-")
    later = Groups.open(name)
    assert later.to_json() == groups.to_json()
    assert later.runs() == {"run"}
    assert later.of("run").pids() == [child.pid]
    with pytest.raises(FileExistsError):
        later.create("run", Bounds())
    assert later.of("run").used().processes == 1
    later.close()
    assert groups.runs() == {"run"}
    end(later.of("run"))
    assert child.wait(60) == -signal.SIGKILL


def test_what_cannot_be_made_whole_leaves_nothing(groups: Groups):
    with pytest.raises(OSError, match=r"pids\.max"):
        groups.create("run", Bounds(memory=32 * MIB, processes=-5))
    assert groups.runs() == set()


@pytest.mark.parametrize("name", ["", "..", "a/b", "A", "a.b", "_probe", "a\n", "ä"])
def test_what_is_no_name_of_a_run_is_refused(groups: Groups, name: str):
    with pytest.raises(ValueError, match="cannot name"):
        groups.of(name)
    with pytest.raises(ValueError, match="cannot name"):
        groups.create(name, Bounds())
    with pytest.raises(ValueError, match="cannot name"):
        Groups.open(name)


def test_a_group_above_with_a_smaller_quota_refuses_no_run(groups: Groups):
    """v1 does not take more for a group than the one above it has."""
    parent = Path(groups.of("run").folders["cpu"]).parent
    if groups.version == 1:
        write(f"{parent}/cpu.cfs_quota_us", "50000")
    else:
        write(f"{parent}/cpu.max", "50000 100000")
    groups.create("run", Bounds(cpus=4))
    assert groups.runs() == {"run"}


def test_a_user_who_may_make_no_groups_is_told_so(groups: Groups):
    if groups.version != 1 or os.getuid():
        pytest.skip("v1, as root; of v2 test_warden_cgroup_places.py tells")
    script = """
import json, os
from services.runner.warden.cgroups import Groups
os.setresuid(1000, 1000, 1000)
groups = Groups.open("x")
groups.close()
enforces = any(groups.enforces.values())
print(json.dumps({**groups.to_json(), "why": groups.why, "enforces": enforces}))
"""
    python = [sys.executable, "-S", "-c", script]
    told = json.loads(subprocess.check_output(python, cwd=ROOT, timeout=100))
    assert (told["version"], told["parents"]) == (0, {})
    assert "openbell-x: Permission denied; pids: " in told["why"]
    assert told["enforces"] is False


def test_where_there_are_no_groups_all_goes_on_without():
    groups = Groups(Parents(why=["this host has none"]))
    assert (groups.version, groups.why) == (0, "this host has none")
    assert not any(groups.enforces.values())
    group = groups.create("run", Bounds(memory=MIB))
    group.enter()
    group.kill()
    assert (group.used(), group.usage(), group.pids()) == (Used(), Usage(), [])
    assert group.remove() is True
    assert groups.runs() == set()
    assert Groups.from_json(json.loads(json.dumps(groups.to_json()))).version == 0
    groups.close()
