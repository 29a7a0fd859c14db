"""Processes as macOS shows them, by libproc.

What cannot be had there: a subreaper (orphans go to launchd, which reaps them), pidfds (an
identity is checked right before its signal, not pinned), and the mark of a foreign process
(the environment is hidden). A process that both left its session and outlived its parent
before the first look is therefore not found.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping

from .tree import Process

assert sys.platform != "win32"

PROC_PIDTBSDINFO = 3
SZOMB = 5


class _BsdInfo(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint32),
        ("status", ctypes.c_uint32),
        ("xstatus", ctypes.c_uint32),
        ("pid", ctypes.c_uint32),
        ("ppid", ctypes.c_uint32),
        ("owners", ctypes.c_uint32 * 6),
        ("reserved", ctypes.c_uint32),
        ("names", ctypes.c_char * 48),
        ("files", ctypes.c_uint32),
        ("group", ctypes.c_uint32),
        ("job_control", ctypes.c_uint32 * 3),
        ("nice", ctypes.c_int32),
        ("start_seconds", ctypes.c_uint64),
        ("start_microseconds", ctypes.c_uint64),
    )


_libc = ctypes.CDLL(None, use_errno=True)


def boot_id() -> str:
    value = ctypes.create_string_buffer(64)
    size = ctypes.c_size_t(len(value))
    if _libc.sysctlbyname(b"kern.bootsessionuuid", value, ctypes.byref(size), None, 0) != 0:
        raise OSError(ctypes.get_errno(), "kern.bootsessionuuid")
    return value.value.decode()


def become_subreaper() -> None:
    pass


def look(pid: int) -> Process | None:
    info = _BsdInfo()
    size = ctypes.sizeof(info)
    if _libc.proc_pidinfo(pid, PROC_PIDTBSDINFO, 0, ctypes.byref(info), size) != size:
        return None
    try:
        session = os.getsid(pid)
    except OSError:
        return None
    ticks = info.start_seconds * 1_000_000 + info.start_microseconds
    return Process(pid, ticks, info.ppid, session, info.status == SZOMB)


def table() -> dict[int, Process]:
    room = _libc.proc_listallpids(None, 0) + 64
    pids = (ctypes.c_int * room)()
    count = _libc.proc_listallpids(pids, ctypes.sizeof(pids))
    return {pid: process for pid in pids[:count] if (process := look(pid)) is not None}


class Marks:
    def __call__(self, _process: Process) -> str | None:
        return None

    def keep(self, living: Mapping[int, Process]) -> None:
        pass
