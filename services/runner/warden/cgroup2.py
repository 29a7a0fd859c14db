"""cgroup v2: one folder for all controllers.

The files: Documentation/admin-guide/cgroup-v2.rst of the kernel.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from errno import ENOENT

from .cgroup_files import Setting, Used, by_device, counts, number, read
from .host import Bounds

CONTROLLERS = {
    "memory": ("memory.max",),
    "pids": ("pids.max",),
    "cpu": ("cpu.weight", "cpu.max"),
    "io": ("io.stat",),
}
"""Each with the files without which it is of no use. `io` only counts."""
SELF = "cgroup"
"""Stands for the folder itself, among the controllers that it has."""
CACHED = ("inactive_file", "active_file", "slab_reclaimable")
PERIOD_US = 100_000
LEAST_QUOTA_US = 1_000


def settings(folders: Mapping[str, str], bounds: Bounds) -> Iterator[Setting]:
    if bounds.memory is not None and (memory := folders.get("memory")):
        yield Setting(f"{memory}/memory.max", str(bounds.memory))
        swap_is_not_accounted = (ENOENT,)
        yield Setting(f"{memory}/memory.swap.max", "0", swap_is_not_accounted)
        older_than_4_19 = (ENOENT,)
        yield Setting(f"{memory}/memory.oom.group", "1", older_than_4_19)
    if bounds.processes is not None and (pids := folders.get("pids")):
        yield Setting(f"{pids}/pids.max", str(bounds.processes))
    if bounds.cpu_weight is not None and (cpu := folders.get("cpu")):
        yield Setting(f"{cpu}/cpu.weight", str(bounds.cpu_weight))
    if bounds.cpus is not None and (cpu := folders.get("cpu")):
        quota = max(round(bounds.cpus * PERIOD_US), LEAST_QUOTA_US)
        yield Setting(f"{cpu}/cpu.max", f"{quota} {PERIOD_US}")


def used(folders: Mapping[str, str]) -> Used:
    folder = folders[SELF]
    # Without its controller too: this file is in every group.
    time_us = counts(f"{folder}/cpu.stat").get("usage_usec")
    moved = _moved(folder)
    return Used(
        memory=in_use(folder) if "memory" in folders else None,
        peak_memory=number(f"{folder}/memory.peak"),
        cpu_s=None if time_us is None else time_us / 1e6,
        processes=_processes(folder),
        refused=counts(f"{folder}/pids.events").get("max", 0),
        out_of_memory=counts(f"{folder}/memory.events").get("oom_kill", 0),
        read_bytes=None if moved is None else moved.get("rbytes", 0),
        written_bytes=None if moved is None else moved.get("wbytes", 0),
    )


def in_use(folder: str) -> int:
    """Bytes, without the cache of files, and of what is known of them."""
    told = counts(f"{folder}/memory.stat")
    cache = sum(told.get(each, 0) for each in CACHED)
    return max(0, int(read(f"{folder}/memory.current")) - cache)


def bound(folder: str) -> int | None:
    """Of memory. None: no file tells, or there is none."""
    with suppress(FileNotFoundError):
        told = read(f"{folder}/memory.max").strip()
        return int(told) if told.isdigit() else None
    return None


def _processes(folder: str) -> int:
    current = number(f"{folder}/pids.current")
    return len(read(f"{folder}/cgroup.threads").split()) if current is None else current


def _moved(folder: str) -> dict[str, int] | None:
    with suppress(FileNotFoundError):
        return by_device(read(f"{folder}/io.stat"))
    return None
