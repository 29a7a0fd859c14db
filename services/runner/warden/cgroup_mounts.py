"""Where a process's groups are, as /proc tells. Pure: texts go in, paths come out.

The formats: proc_pid_mountinfo(5), cgroups(7).
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

UNIFIED = ""
"""Stands for v2 among the controllers of a membership, as in /proc/self/cgroup."""


class Mount(NamedTuple):
    version: int
    controllers: frozenset[str]
    """Of v1: what is mounted here, among other options."""
    root: str
    """What of the hierarchy is seen at the point: in a container often only its own part."""
    point: str


def mounts(mountinfo: str) -> list[Mount]:
    """The hierarchies that are mounted, in the order in which they were."""
    found: list[Mount] = []
    for line in mountinfo.splitlines():
        front, _, back = line.partition(" - ")
        fields, (kind, *rest) = front.split(" "), back.split(" ")
        if kind in {"cgroup", "cgroup2"}:
            version, options = (2 if kind == "cgroup2" else 1), frozenset(rest[-1].split(","))
            found.append(Mount(version, options, _plain(fields[3]), _plain(fields[4])))
    return found


def memberships(cgroup: str) -> dict[str, str]:
    """The path of the own group by controller, from /proc/self/cgroup."""
    found: dict[str, str] = {}
    for line in cgroup.splitlines():
        _, controllers, path = line.split(":", 2)
        found.update(dict.fromkeys(controllers.split(","), path))
    return found


def own_folders(
    mounted: Iterable[Mount], member: Mapping[str, str], wanted: Iterable[str]
) -> dict[str, str]:
    """v1: the own group's folder of each wanted controller that is mounted, and shows it."""
    found: dict[str, str] = {}
    for mount in mounted:
        for name in wanted:
            if mount.version == 1 and name in mount.controllers and name not in found:
                folder = _seen(mount, member.get(name, ""))
                if folder is not None:
                    found[name] = folder
    return found


def candidates(mounted: Iterable[Mount], member: Mapping[str, str], *, root: bool) -> list[str]:
    """v2: groups below which ours could be, the best first.

    For root the whole hierarchy's; for all the own one, and then those above it: the kernel
    lets a process move between two groups if it may write to what they have in common.
    """
    for mount in mounted:
        own = _seen(mount, member.get(UNIFIED, "")) if mount.version == 2 else None
        if own is not None:
            upwards = _upwards(own, mount.point)
            return list(dict.fromkeys([mount.point, *upwards])) if root else upwards
    return []


def _upwards(folder: str, top: str) -> list[str]:
    found = [folder]
    while found[-1] != top:
        found.append(posixpath.dirname(found[-1]))
    return found


def _seen(mount: Mount, path: str) -> str | None:
    """Where a group's path is below the point. None when it is outside of what is mounted."""
    if not path.startswith("/") or "/.." in path:
        return None
    root = mount.root.rstrip("/")
    if path != root and not path.startswith(root + "/"):
        return None
    return (mount.point + path.removeprefix(root)).rstrip("/")


def _plain(field: str) -> str:
    """Spaces and the like are written as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), field)
