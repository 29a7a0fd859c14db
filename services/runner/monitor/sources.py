"""What runs use: told by their control groups, or counted process by process.

A child whose parent has ended belongs to nobody by descent. It is found all the same: a process
once seen of a run stays of it, and each run is a session of its own.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

import psutil

from openbell.contracts.limits import Limits
from services.runner.monitor.samples import Counters, Group, Reading

MB = 1024**2


class Run(Protocol):
    """What must be known of a run to read it."""

    @property
    def pid(self) -> int: ...
    @property
    def keeper(self) -> bool: ...
    @property
    def group(self) -> Group | None: ...
    @property
    def limits(self) -> Limits: ...


class Reader:
    """Blocks, and is called by one thread at a time."""

    def __init__(self) -> None:
        self._trees: dict[str, _Tree] = {}
        self._answered: dict[str, Group | None] = {}
        """The groups that have told something. One that tells no more is gone: its run ends just
        now. Any other OSError says that the run is not in the group where it is looked for.
        """

    def read(self, runs: Mapping[str, Run]) -> dict[str, Reading]:
        """All runs of which something is there."""
        told = self._told(runs)
        readings = {run_id: whole for run_id, used in told.items() if (whole := _whole(used))}
        counted = told.keys() - readings.keys()
        self._trees = {run_id: self._trees.get(run_id) or _Tree() for run_id in counted}
        if counted:
            host = _Host()
            for run_id, tree in self._trees.items():
                if found := tree.read(runs[run_id], host):
                    readings[run_id] = _completed(found, told[run_id])
        return readings

    def _told(self, runs: Mapping[str, Run]) -> dict[str, Counters | None]:
        """None of what is to be counted, since no group tells of it."""
        answered = {run_id: self._answered[run_id] for run_id in runs if run_id in self._answered}
        told: dict[str, Counters | None] = {}
        for run_id, run in runs.items():
            try:
                told[run_id] = run.group.used() if run.group else None
            except OSError:
                if run_id not in answered or answered[run_id] != run.group:
                    told[run_id] = None
            else:
                answered[run_id] = run.group
        self._answered = answered
        return told


def _whole(used: Counters | None) -> Reading | None:
    """None where some of its controllers are missing: then its processes are counted."""
    if used is None or used.memory is None or used.cpu_s is None or not used.processes:
        return None
    return Reading(
        memory=used.memory,
        processes=used.processes,
        cpu_s=used.cpu_s,
        peak_memory=used.peak_memory,
        refused=used.refused,
        out_of_memory=used.out_of_memory,
        read_bytes=used.read_bytes,
        written_bytes=used.written_bytes,
        grouped=True,
    )


def _completed(counted: Reading, told: Counters | None) -> Reading:
    """What was counted, with what the kernel alone knows."""
    if told is None:
        return counted
    return replace(
        counted,
        peak_memory=told.peak_memory,
        refused=told.refused,
        out_of_memory=told.out_of_memory,
        grouped=told.processes > 0,
    )


class _Host:
    """All processes of the host, in one look: they are the same for all runs."""

    def __init__(self) -> None:
        self.processes: dict[int, psutil.Process] = {}
        self.children: defaultdict[int, list[psutil.Process]] = defaultdict(list)
        self.sessions: defaultdict[int, list[psutil.Process]] = defaultdict(list)
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                self.children[process.ppid()].append(process)
                self.processes[process.pid] = process
                if sys.platform != "win32":
                    self.sessions[os.getsid(process.pid)].append(process)

    def tree(self, roots: Iterable[psutil.Process]) -> set[psutil.Process]:
        """With all that descend from them. A child is no older than its parent: else the number
        of the parent was given anew.
        """
        found: set[psutil.Process] = set()
        to_look_at = list(roots)
        while to_look_at:
            process = to_look_at.pop()
            if process in found:
                continue
            found.add(process)
            born = process.create_time()
            to_look_at += [c for c in self.children[process.pid] if c.create_time() >= born]
        return found


class _Spent(NamedTuple):
    """What one process has used up since its start."""

    cpu_s: float
    read: int | None
    written: int | None


class _Seen(NamedTuple):
    """A living process."""

    memory: int
    threads: int
    spent: _Spent


class _Tree:
    """The processes of one run. What they used up stays counted when they have ended."""

    def __init__(self) -> None:
        self._known: dict[psutil.Process, _Spent] = {}
        self._ended = _Spent(0, None, None)
        self._main: psutil.Process | None = None
        """What has its number at the first look; later, that may be another."""

    def read(self, run: Run, host: _Host) -> Reading | None:
        members = self._members(run.pid, host)
        if run.keeper:
            members.discard(self._main)
        seen = {p: one for p in members if (one := _look(p)) is not None}
        self._account({process: one.spent for process, one in seen.items()})
        if not seen:
            return None
        spent = _sum([self._ended, *self._known.values()])
        return Reading(
            memory=_memory(seen, run.limits.memory_mb),
            processes=sum(one.threads for one in seen.values()),
            cpu_s=spent.cpu_s,
            read_bytes=spent.read,
            written_bytes=spent.written,
        )

    def _members(self, main: int, host: _Host) -> set[psutil.Process]:
        if self._main is None:
            self._main = host.processes.get(main)
        known = self._known if self._main is None else {*self._known, self._main}
        roots = [p for p in known if host.processes.get(p.pid) == p]
        return host.tree(roots + host.sessions.get(main, []))

    def _account(self, seen: Mapping[psutil.Process, _Spent]) -> None:
        gone = [spent for process, spent in self._known.items() if process not in seen]
        self._ended = _sum([self._ended, *gone])
        self._known = dict(seen)


def _look(process: psutil.Process) -> _Seen | None:
    """None when it has ended, or may not be looked at."""
    with contextlib.suppress(psutil.Error, OSError), process.oneshot():
        times = process.cpu_times()
        spent = _Spent(times.user + times.system, *_transferred(process))
        return _Seen(process.memory_info().rss, process.num_threads(), spent)
    return None


def _transferred(process: psutil.Process) -> tuple[int | None, int | None]:
    """Bytes read from and written to disks."""
    if sys.platform == "darwin":
        return None, None
    try:
        counters = process.io_counters()
    except psutil.AccessDenied:
        return None, None
    return counters.read_bytes, counters.write_bytes


def _memory(seen: Mapping[psutil.Process, _Seen], limit_mb: int | None) -> int:
    """What several processes share is counted for each: more than there is. Telling it exactly
    takes the kernel a walk through their memory, so it is only done where it matters.
    """
    at_most = sum(one.memory for one in seen.values())
    if limit_mb is None or len(seen) == 1 or at_most <= limit_mb * MB:
        return at_most
    return sum(_exact(process, one.memory) for process, one in seen.items())


def _exact(process: psutil.Process, at_most: int) -> int:
    """Its share of what it uses together with others; where that is not told, what is its own."""
    try:
        told = process.memory_full_info()
    except (psutil.Error, OSError):
        return at_most
    return getattr(told, "pss", 0) or told.uss


def _sum(spent: Sequence[_Spent]) -> _Spent:
    read = [one.read for one in spent if one.read is not None]
    written = [one.written for one in spent if one.written is not None]
    return _Spent(
        sum(one.cpu_s for one in spent),
        sum(read) if read else None,
        sum(written) if written else None,
    )
