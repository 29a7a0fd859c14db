"""Processes as Linux shows them in /proc."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from .host import MARK, Identity
from .tree import Process

PR_SET_CHILD_SUBREAPER = 36
_MARK = MARK.encode() + b"="


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def namespace() -> str:
    """In which the numbers of processes mean what they mean to us."""
    return os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - what it says is no path


def become_subreaper() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "PR_SET_CHILD_SUBREAPER")


def look(pid: int) -> Process | None:
    stat = _read(f"/proc/{pid}/stat")
    if not stat:
        return None
    # The name may hold spaces and parentheses: only after the last one do fields begin.
    field = stat[stat.rindex(b")") + 2 :].split()
    # A main thread that ended before the others shows Z too, and is no zombie.
    zombie = field[0] in b"ZX" and int(field[17]) <= 1
    return Process(pid, int(field[19]), int(field[1]), int(field[3]), zombie)


def table() -> dict[int, Process]:
    with os.scandir("/proc") as entries:
        pids = [int(entry.name) for entry in entries if entry.name.isdigit()]
    return {pid: process for pid in pids if (process := look(pid)) is not None}


class Marks:
    """A mark, once seen, stays: a later exec may drop it from the environment."""

    def __init__(self) -> None:
        self._seen: dict[Identity, str | None] = {}

    def __call__(self, process: Process) -> str | None:
        identity = process.identity
        if identity not in self._seen:
            self._seen[identity] = _mark(process.pid)
        return self._seen[identity]

    def keep(self, living: dict[int, Process]) -> None:
        alive = {process.identity for process in living.values()}
        self._seen = {who: mark for who, mark in self._seen.items() if who in alive}


def _mark(pid: int) -> str | None:
    for variable in _read(f"/proc/{pid}/environ").split(b"\0"):
        if variable.startswith(_MARK):
            return os.fsdecode(variable[len(_MARK) :])
    return None


def _read(path: str) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return b""
    try:
        return b"".join(iter(lambda: os.read(descriptor, 1 << 16), b""))
    except OSError:
        return b""
    finally:
        os.close(descriptor)
