"""cgroup v1: a hierarchy, and so a folder, for each controller.

The files: Documentation/admin-guide/cgroup-v1/memory.rst, pids.rst, cpuacct.rst, and
Documentation/scheduler/sched-bwc.rst, of the kernel.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from errno import EINVAL, ENOENT, EOPNOTSUPP

from .cgroup_files import Setting, Used, counts, number, read
from .host import Bounds

CONTROLLERS = {
    "memory": ("memory.limit_in_bytes",),
    "pids": ("pids.max",),
    "cpu": ("cpu.shares", "cpu.cfs_quota_us"),
    "cpuacct": ("cpuacct.usage",),
}
"""Each with the files without which it is of no use."""
PERIOD_US = 100_000
LEAST_QUOTA_US = 1_000
SHARES = (2, 262_144)


def settings(folders: Mapping[str, str], bounds: Bounds) -> Iterator[Setting]:
    if bounds.memory is not None and (memory := folders.get("memory")):
        # Memory with swap may not be below memory alone: that comes first.
        yield Setting(f"{memory}/memory.limit_in_bytes", str(bounds.memory))
        swap_is_not_accounted = (ENOENT, EOPNOTSUPP)
        yield Setting(
            f"{memory}/memory.memsw.limit_in_bytes", str(bounds.memory), swap_is_not_accounted
        )
    if bounds.processes is not None and (pids := folders.get("pids")):
        yield Setting(f"{pids}/pids.max", str(bounds.processes))
    if bounds.cpu_weight is not None and (cpu := folders.get("cpu")):
        shares = min(max(bounds.cpu_weight * 1024 // 100, SHARES[0]), SHARES[1])
        yield Setting(f"{cpu}/cpu.shares", str(shares))
    if bounds.cpus is not None and (cpu := folders.get("cpu")):
        quota = max(round(bounds.cpus * PERIOD_US), LEAST_QUOTA_US)
        yield Setting(f"{cpu}/cpu.cfs_period_us", str(PERIOD_US))
        # More than a group above it has, which v1 refuses: then that one's quota holds.
        yield Setting(f"{cpu}/cpu.cfs_quota_us", str(quota), (EINVAL,))


def used(folders: Mapping[str, str]) -> Used:
    memory, pids = folders.get("memory"), folders.get("pids")
    time_ns = number(f"{folders['cpuacct']}/cpuacct.usage") if "cpuacct" in folders else None
    return Used(
        memory=in_use(memory) if memory else None,
        peak_memory=number(f"{memory}/memory.max_usage_in_bytes") if memory else None,
        cpu_s=None if time_ns is None else time_ns / 1e9,
        processes=_processes(folders),
        refused=counts(f"{pids}/pids.events").get("max", 0) if pids else 0,
        out_of_memory=counts(f"{memory}/memory.oom_control").get("oom_kill", 0) if memory else 0,
    )


def in_use(folder: str) -> int:
    """Bytes, without the cache of files."""
    told = counts(f"{folder}/memory.stat")
    cache = told.get("total_inactive_file", 0) + told.get("total_active_file", 0)
    return max(0, int(read(f"{folder}/memory.usage_in_bytes")) - cache)


def bound(folder: str) -> int | None:
    """Of memory: the least that this group, or any above it, may use. None: no file tells."""
    return counts(f"{folder}/memory.stat").get("hierarchical_memory_limit")


def _processes(folders: Mapping[str, str]) -> int:
    if "pids" in folders:
        return int(read(f"{folders['pids']}/pids.current"))
    return len(read(f"{next(iter(folders.values()))}/tasks").split())
