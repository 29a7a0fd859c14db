"""One run's control group: what it is held to, what it uses, and how all of it is ended."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from . import cgroup1, cgroup2, cgroup_files
from .cgroup_files import Used
from .host import Bounds, Usage

KILL_S = 0.5
"""How long `Group.kill` may try, where the kernel cannot do it at one blow."""
PAUSE_S = 0.001
AT_ONCE = 100
"""Processes that are held by a descriptor at one time."""


@dataclass(frozen=True, slots=True)
class Group:
    """Without folders, where no groups are to be had, it holds nobody, and nothing here acts."""

    version: int
    folders: Mapping[str, str]
    """By controller."""

    def create(self, bounds: Bounds) -> None:
        """All of it or nothing. OSError; FileExistsError when any of it is there already."""
        dialect = cgroup2 if self.version == 2 else cgroup1
        with ExitStack() as undo:
            for folder in cgroup_files.distinct(self.folders):
                os.mkdir(folder)  # noqa: PTH102
                undo.callback(cgroup_files.remove, folder)
            for setting in dialect.settings(self.folders, bounds):
                cgroup_files.apply(setting)
            undo.pop_all()

    def enter(self) -> None:
        """The calling process, of one thread, comes in; all that it forks from now on is born
        inside. OSError: it may be in some folders by then.

        Moved as a thread, it waits for nobody; as a process, for every processor to pass through
        the scheduler, which took 7 to 23 ms (Linux 6.18). v2 moves no thread alone.
        """
        self.go_in(self.ways_in())

    def ways_in(self) -> list[int]:
        """Descriptors, by which whoever has them comes in, also when it sees the folders no more.
        OSError.
        """
        mover = "cgroup.procs" if self.version == 2 else "tasks"
        with ExitStack() as undo:
            found: list[int] = []
            for folder in cgroup_files.distinct(self.folders):
                found.append(os.open(f"{folder}/{mover}", os.O_WRONLY))
                undo.callback(os.close, found[-1])
            undo.pop_all()
        return found

    @staticmethod
    def go_in(ways: Iterable[int]) -> None:
        """As `enter`. Closes them."""
        for way in ways:
            os.write(way, b"0")
            os.close(way)

    def used(self) -> Used:
        """FileNotFoundError, or OSError with ENODEV, when the group is gone."""
        if not self.folders:
            return Used()
        return (cgroup2 if self.version == 2 else cgroup1).used(self.folders)

    def usage(self) -> Usage:
        """What is known of the whole run; nothing when the group is gone."""
        try:
            used = self.used()
        except OSError:
            return Usage()
        return Usage(used.peak_memory, used.cpu_s, used.refused, used.out_of_memory)

    def pids(self) -> list[int]:
        """Who lives in it, and in whatever groups it has made below; no zombies."""
        found: set[int] = set()
        for folder in cgroup_files.distinct(self.folders):
            for each, _, _ in os.walk(folder):
                with suppress(OSError):  # it is gone, or holds threads of another group's
                    found.update(cgroup_files.pids(each))
        return sorted(found)

    def kill(self) -> None:
        """SIGKILL for all of it, forks under way included. What is gone is left alone.

        Where the kernel cannot do that (v1, v2 before 5.14) this takes until they are dead, or
        KILL_S, when some of them sleep in the kernel. It may be called again, and where there
        is a controller of processes no more are born meanwhile.
        """
        if self.version == 2:
            with suppress(FileNotFoundError):
                cgroup_files.write(f"{self.folders[cgroup2.SELF]}/cgroup.kill", "1")
                return
        if "pids" in self.folders:
            with suppress(OSError):
                cgroup_files.write(f"{self.folders['pids']}/pids.max", "0")
        until = time.monotonic() + KILL_S
        # Not only until each was signalled: the child of one that was forking shows up late.
        while pids := self.pids():
            self._signal(pids)
            if time.monotonic() >= until:
                return
            time.sleep(PAUSE_S)

    def remove(self) -> bool:
        """False while there is anybody in it, and for a moment after."""
        gone = [cgroup_files.remove(folder) for folder in cgroup_files.distinct(self.folders)]
        return all(gone)

    def _signal(self, pids: list[int]) -> None:
        for start in range(0, len(pids), AT_ONCE):
            some = {pid: _pinned(pid) for pid in pids[start : start + AT_ONCE]}
            # A number that a stranger got since it was read is not in the group any more; and the
            # descriptor is of whoever had it when it was opened.
            members = set(self.pids())
            for pid, descriptor in some.items():
                if descriptor is not None:
                    if pid in members:
                        _kill(pid, descriptor)
                    os.close(descriptor)
                elif pid in members:
                    _kill(pid, None)


def _pinned(pid: int) -> int | None:
    """None when it is gone, or cannot be pinned: the kernel is older than 5.3."""
    if sys.platform == "linux":
        with suppress(OSError):
            return os.pidfd_open(pid)
    return None


def _kill(pid: int, descriptor: int | None) -> None:
    if sys.platform == "linux":
        with suppress(ProcessLookupError, PermissionError):
            if descriptor is None:
                os.kill(pid, signal.SIGKILL)
            else:
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
