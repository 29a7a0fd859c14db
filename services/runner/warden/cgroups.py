"""The control groups of a warden's runs: where they are, and what they enforce.

    <a group that we may divide>/openbell-<name>/<run>

On v1 below the warden's own group of each controller, on v2 below one of: the root of all groups
(for root), the warden's own group (which it leaves for `openbell-<name>.warden` then), a group
above that. Groups that are not ours are left alone, and processes that are not ours are not moved.
Where the kernel mounts v1 controllers beside v2, v1 is taken.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import cast

from . import cgroup1, cgroup2, cgroup_files, cgroup_parents
from .cgroup import Group
from .cgroup_files import Used, distinct
from .cgroup_parents import LIMITING, Parents
from .host import Bounds
from .protocol import Json

__all__ = ["Bounds", "Group", "Groups", "Used"]
USUAL_WEIGHT = 100
MOST_WEIGHTS = 20
NAME = re.compile(r"[a-z0-9-]+")


class Groups:
    def __init__(self, parents: Parents) -> None:
        self._parents = parents

    @classmethod
    def open(cls, name: str) -> Groups:
        """Finds out what this host permits, by doing it in a fork; makes the parents.

        Raises nothing but ValueError for a name that is none. Not all of it survives a restart:
        the next warden may be in another group, and then finds these by `from_json` alone.
        """
        return cls(cgroup_parents.find(_checked(name)))

    @classmethod
    def from_json(cls, told: Json) -> Groups:
        """The groups that another process has opened."""
        folders = cast("dict[str, str]", told["parents"])
        return cls(Parents(cast("int", told["version"]), folders, cast("list[str]", told["why"])))

    def to_json(self) -> Json:
        parents = self._parents
        return {
            "version": parents.version,
            "parents": dict(parents.folders),
            "why": list(parents.why),
        }

    @property
    def version(self) -> int:
        """Of cgroups. 0: there are none to be had."""
        return self._parents.version

    @property
    def why(self) -> str:
        """What cannot be enforced, and why not; empty when all can."""
        return "; ".join(self._parents.why)

    @property
    def enforces(self) -> Mapping[str, bool]:
        """Of memory, processes, cpu: whether a run's group holds it to its bounds."""
        return {limit: name in self._parents.folders for name, limit in LIMITING.items()}

    def create(self, run: str, bounds: Bounds) -> Group:
        """OSError, and then nothing is left of it. What cannot be enforced is left out."""
        group = self.of(run)
        group.create(bounds)
        return group

    def weigh(self, runs: int) -> None:
        """Lets so many runs together count as much beside other processes of the host as each of
        them would alone, up to MOST_WEIGHTS: as one group, they would all share the time of one
        process, and without a bound Openbell itself would get none while hundreds start.
        """
        if "cpu" in self._parents.folders:
            dialect = cgroup2 if self.version == 2 else cgroup1
            share = Bounds(cpu_weight=USUAL_WEIGHT * min(max(runs, 1), MOST_WEIGHTS))
            with suppress(OSError):  # it is shared less fairly
                for setting in dialect.settings(self._parents.folders, share):
                    cgroup_files.apply(setting)

    def of(self, run: str) -> Group:
        """The run's group, which may exist. ValueError when it cannot be a run's name."""
        _checked(run)
        folders = {each: f"{parent}/{run}" for each, parent in self._parents.folders.items()}
        return Group(self.version, folders)

    def runs(self) -> set[str]:
        """Whose groups exist, in whole or in part."""
        found: set[str] = set()
        for parent in distinct(self._parents.folders):
            with suppress(FileNotFoundError), os.scandir(parent) as entries:
                found |= {e.name for e in entries if NAME.fullmatch(e.name) and e.is_dir()}
        return found

    def close(self) -> None:
        """Gives back what `open` has made, as far as no run's group is left in it."""
        cgroup_parents.close(self._parents)


def _checked(name: str) -> str:
    if NAME.fullmatch(name) is None:
        raise ValueError(f"{name!r} cannot name a control group")
    return name
