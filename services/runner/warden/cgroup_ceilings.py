"""How much memory all runs together may use, by the control groups that they are in."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from . import cgroup1, cgroup2, cgroup_mounts

NO_BOUND = 2**60
"""v1 has no word for it, and tells a number above what any machine has."""


class Ceiling(NamedTuple):
    """Bytes."""

    total: int
    free: int
    """What is cached of files counts as free."""


def of_this_process() -> Ceiling | None:
    """By the groups of the calling process. None: nothing bounds it but the machine."""
    try:
        mounted = cgroup_mounts.mounts(Path("/proc/self/mountinfo").read_text())
        member = cgroup_mounts.memberships(Path("/proc/self/cgroup").read_text())
    except (OSError, ValueError):
        return None
    own = cgroup_mounts.own_folders(mounted, member, ["memory"])
    if own:
        return tightest(1, own["memory"])
    unified = cgroup_mounts.candidates(mounted, member, root=False)
    return tightest(2, unified[0]) if unified else None


def tightest(version: int, folder: str) -> Ceiling | None:
    """Of this group and all above it, the one with the least left. None: none has a bound."""
    found = _ceilings(version, [folder, *map(str, PurePosixPath(folder).parents)])
    return min(found, key=lambda ceiling: ceiling.free, default=None)


def _ceilings(version: int, folders: Iterable[str]) -> Iterable[Ceiling]:
    dialect = cgroup2 if version == 2 else cgroup1
    for folder in folders:
        with suppress(OSError):  # it goes just now, or is above what is seen here
            total = dialect.bound(folder)
            if total is not None and total < NO_BOUND:
                yield Ceiling(total, total - dialect.in_use(folder))
