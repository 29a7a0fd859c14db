"""Where control groups are, on hosts of many kinds: what their kernels say goes in."""

import errno
from dataclasses import replace
from pathlib import Path

import pytest

from services.runner.warden import cgroup1, cgroup2, cgroup_files
from services.runner.warden.cgroup_files import Setting, Used
from services.runner.warden.cgroup_mounts import candidates, memberships, mounts, own_folders
from services.runner.warden.host import Bounds

WANTED = ("memory", "pids", "cpu", "cpuacct")
V2: tuple[str, ...] = ("cgroup", "memory", "pids", "cpu", "io")
ALL = Bounds(memory=64 << 20, processes=9, cpu_weight=50, cpus=1.5)

SYSTEMD = """\
22 1 259:2 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p2 rw
35 24 0:30 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate
"""
HYBRID = """\
24 22 0:22 / /sys/fs/cgroup ro,nosuid shared:8 - tmpfs tmpfs ro,size=4096k,mode=755
25 24 0:23 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate
26 24 0:24 / /sys/fs/cgroup/systemd rw,nosuid shared:10 - cgroup cgroup rw,xattr,name=systemd
29 24 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:13 - cgroup cgroup rw,cpu,cpuacct
30 24 0:28 / /sys/fs/cgroup/memory rw,nosuid shared:14 - cgroup cgroup rw,memory
31 24 0:29 / /sys/fs/cgroup/pids rw,nosuid - cgroup cgroup rw,pids
"""
HYBRID_OWN = """\
11:cpu,cpuacct:/system.slice/openbell.service
7:memory:/system.slice/openbell.service
4:pids:/system.slice/openbell.service
1:name=systemd:/system.slice/openbell.service
0::/system.slice/openbell.service
"""
DOCKER_1 = """\
700 690 0:50 / /sys/fs/cgroup rw,nosuid - tmpfs tmpfs rw,mode=755
701 700 0:28 /docker/5ca1ab1e /sys/fs/cgroup/memory ro,nosuid master:14 - cgroup cgroup rw,memory
702 700 0:29 /docker/5ca1ab1e /sys/fs/cgroup/pids ro,nosuid master:15 - cgroup cgroup rw,pids
"""
DOCKER_2 = """\
611 608 0:30 / /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup rw,nsdelegate
"""
DOCKER_2_OF_THE_HOST = """\
611 608 0:30 /../.. /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw
"""
IN_SERVICE = "0::/user.slice/user-1000.slice/user@1000.service/app.slice/openbell.service\n"


def places(mountinfo: str, cgroup: str, *, root: bool) -> list[str]:
    return candidates(mounts(mountinfo), memberships(cgroup), root=root)


def owned(mountinfo: str, cgroup: str) -> dict[str, str]:
    return own_folders(mounts(mountinfo), memberships(cgroup), WANTED)


def test_root_takes_the_whole_hierarchy_before_its_own_group():
    cgroup = "0::/system.slice/openbell.service\n"
    assert places(SYSTEMD, cgroup, root=True) == [
        "/sys/fs/cgroup",
        "/sys/fs/cgroup/system.slice/openbell.service",
        "/sys/fs/cgroup/system.slice",
    ]
    assert owned(SYSTEMD, cgroup) == {}


def test_another_user_begins_with_the_own_group_and_goes_upwards():
    app = "/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service/app.slice"
    found = places(SYSTEMD, IN_SERVICE, root=False)
    assert found[:2] == [f"{app}/openbell.service", app]
    assert found[-2:] == ["/sys/fs/cgroup/user.slice", "/sys/fs/cgroup"]


def test_a_hybrid_host_has_its_controllers_in_v1():
    own = "system.slice/openbell.service"
    assert owned(HYBRID, HYBRID_OWN) == {
        "memory": f"/sys/fs/cgroup/memory/{own}",
        "pids": f"/sys/fs/cgroup/pids/{own}",
        "cpu": f"/sys/fs/cgroup/cpu,cpuacct/{own}",
        "cpuacct": f"/sys/fs/cgroup/cpu,cpuacct/{own}",
    }


def test_groups_may_differ_by_controller():
    cgroup = "4:memory:/a/b\n3:cpuset:/\n2:cpu,cpuacct:/\n1:pids:/c\n0::/\n"
    assert owned(HYBRID, cgroup) == {
        "memory": "/sys/fs/cgroup/memory/a/b",
        "pids": "/sys/fs/cgroup/pids/c",
        "cpu": "/sys/fs/cgroup/cpu,cpuacct",
        "cpuacct": "/sys/fs/cgroup/cpu,cpuacct",
    }


def test_a_container_sees_its_part_of_v1_at_the_mount_itself():
    cgroup = "5:pids:/docker/5ca1ab1e\n4:memory:/docker/5ca1ab1e/inner\n0::/docker/5ca1ab1e\n"
    assert owned(DOCKER_1, cgroup) == {
        "memory": "/sys/fs/cgroup/memory/inner",
        "pids": "/sys/fs/cgroup/pids",
    }


def test_a_container_with_a_namespace_takes_its_group_for_the_root():
    for root in (True, False):
        assert places(DOCKER_2, "0::/\n", root=root) == ["/sys/fs/cgroup"]


@pytest.mark.parametrize("cgroup", ["0::/../other\n", "0::/docker/other\n", ""])
def test_a_group_outside_of_what_is_mounted_is_no_place(cgroup: str):
    part = DOCKER_2.replace("0:30 /", "0:30 /docker/mine")
    assert places(part, cgroup, root=True) == []
    assert places(DOCKER_2_OF_THE_HOST, "0::/\n", root=True) == []


def test_a_name_that_begins_alike_is_another_group():
    part = DOCKER_2.replace("0:30 /", "0:30 /docker/mine")
    assert places(part, "0::/docker/mine2\n", root=False) == []
    assert places(part, "0::/docker/mine/2\n", root=False)[0] == "/sys/fs/cgroup/2"


def test_a_host_without_groups_has_none():
    assert mounts("22 1 259:2 / / rw shared:1 - ext4 /dev/sda rw\n") == []
    assert places("", "", root=True) == []
    assert owned("", HYBRID_OWN) == {}


def test_spaces_and_colons_in_paths_are_read():
    mountinfo = "9 1 0:3 /a\\040b /my\\040groups rw - cgroup2 none rw\n"
    assert places(mountinfo, "0::/a b/c:d\n", root=False) == ["/my groups/c:d", "/my groups"]


def test_v1_bounds_are_written_in_an_order_that_the_kernel_takes():
    folders = {"memory": "/m", "pids": "/p", "cpu": "/c", "cpuacct": "/c"}
    assert [setting[:2] for setting in cgroup1.settings(folders, ALL)] == [
        ("/m/memory.limit_in_bytes", "67108864"),
        ("/m/memory.memsw.limit_in_bytes", "67108864"),
        ("/p/pids.max", "9"),
        ("/c/cpu.shares", "512"),
        ("/c/cpu.cfs_period_us", "100000"),
        ("/c/cpu.cfs_quota_us", "150000"),
    ]


def test_v2_bounds_end_the_group_as_one_and_leave_it_no_swap():
    folders = dict.fromkeys(V2, "/g")
    assert [setting[:2] for setting in cgroup2.settings(folders, ALL)] == [
        ("/g/memory.max", "67108864"),
        ("/g/memory.swap.max", "0"),
        ("/g/memory.oom.group", "1"),
        ("/g/pids.max", "9"),
        ("/g/cpu.weight", "50"),
        ("/g/cpu.max", "150000 100000"),
    ]


@pytest.mark.parametrize(("weight", "shares"), [(1, "10"), (100, "1024"), (10_000, "102400")])
def test_weights_are_shares_of_the_same_proportion(weight: int, shares: str):
    (setting,) = cgroup1.settings({"cpu": "/c"}, Bounds(cpu_weight=weight))
    assert setting.value == shares


def test_the_least_quota_is_what_the_kernel_takes():
    *_, first = cgroup1.settings({"cpu": "/c"}, Bounds(cpus=0.001))
    (second,) = cgroup2.settings({"cgroup": "/g", "cpu": "/g"}, Bounds(cpus=0.001))
    assert (first.value, second.value) == ("1000", "1000 100000")


def test_what_is_not_bounded_or_not_to_be_had_is_not_written():
    folders = dict.fromkeys(V2, "/g")
    assert list(cgroup1.settings(folders, Bounds())) == []
    assert list(cgroup2.settings(folders, Bounds())) == []
    assert list(cgroup1.settings({"cpuacct": "/a"}, ALL)) == []
    assert list(cgroup2.settings({"cgroup": "/g"}, ALL)) == []


def test_an_error_is_pardoned_only_where_it_does_no_harm(tmp_path: Path):
    missing = str(tmp_path / "memory.swap.max")
    cgroup_files.apply(Setting(missing, "0", (errno.ENOENT,)))
    with pytest.raises(FileNotFoundError):
        cgroup_files.apply(Setting(missing, "0", (errno.EINVAL,)))
    assert list(tmp_path.iterdir()) == []


def v1_group(folder: Path) -> dict[str, str]:
    texts = {
        "memory.usage_in_bytes": "1000000\n",
        "memory.max_usage_in_bytes": "1500000\n",
        "memory.stat": "inactive_file 1\ntotal_inactive_file 300000\ntotal_active_file 90000\n",
        "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
        "cpuacct.usage": "2500000000\n",
        "pids.current": "4\n",
        "pids.events": "max 7\n",
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    return dict.fromkeys(WANTED, str(folder))


def v2_group(folder: Path) -> dict[str, str]:
    texts = {
        "memory.current": "1000000\n",
        "memory.peak": "1500000\n",
        "memory.stat": "anon 5\ninactive_file 300000\nactive_file 80000\nslab_reclaimable 10000\n",
        "memory.events": "low 0\nhigh 0\nmax 9\noom 2\noom_kill 2\noom_group_kill 1\n",
        "cpu.stat": "usage_usec 2500000\nuser_usec 2000000\ncore_sched.force_idle_usec 0\n",
        "pids.current": "4\n",
        "pids.events": "max 7\n",
        "io.stat": "8:0 rbytes=100 wbytes=20 rios=1 dbytes=9\n8:16 rbytes=11 wbytes=2\n253:0 \n",
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    return {each: str(folder) for each in V2}


def test_v1_and_v2_tell_the_same_of_the_same(tmp_path: Path):
    first = cgroup1.used(v1_group(tmp_path))
    assert (first.memory, first.peak_memory, first.cpu_s) == (610_000, 1_500_000, 2.5)
    assert (first.processes, first.refused, first.out_of_memory) == (4, 7, 2)
    assert (first.read_bytes, first.written_bytes) == (None, None)
    second = cgroup2.used(v2_group(tmp_path))
    assert (second.read_bytes, second.written_bytes) == (111, 22)
    assert replace(second, read_bytes=None, written_bytes=None) == first


def test_what_no_controller_tells_is_not_made_up(tmp_path: Path):
    (tmp_path / "tasks").write_text("3\n4\n")
    (tmp_path / "cgroup.threads").write_text("3\n4\n5\n")
    assert cgroup1.used({"cpu": str(tmp_path)}) == Used(processes=2)
    assert cgroup2.used({"cgroup": str(tmp_path)}) == Used(processes=3)


def test_a_cache_that_grew_between_two_looks_makes_no_memory_negative(tmp_path: Path):
    folders = v2_group(tmp_path)
    (tmp_path / "memory.current").write_text("200000\n")
    assert cgroup2.used(folders).memory == 0
