"""Windows: one named Job Object a run, and handles that are polled.

The job does not kill on close: the handle closes when the warden dies, and strategies
outlive their warden. So that the next warden can open the job by its name, the main process
holds a handle to it too; a named object lives as long as its last handle. The job's accounting
knows every process of the run, so that neither marks nor descent are needed, and a handle
tells even an adopted process's exit code.

What cannot be had: SIGINT and SIGTERM are both CTRL_BREAK to the main process's group,
which needs a console shared with the warden; a run whose main process ended before its
children is, after a restart of the warden, no longer found.
"""

from __future__ import annotations

import ctypes
import msvcrt
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import suppress
from ctypes import wintypes
from pathlib import Path
from selectors import BaseSelector
from typing import IO

from .host import MARK, UNWATCHED, Cell, End, Host, Identity, Order, Root

assert sys.platform == "win32"

PROCESS_ALL = 0x1F0FFF
PROCESS_QUERY = 0x1000 | 0x00100000
JOB_ALL = 0x1F001F
JOB_PIDS = 3
DUPLICATE_SAME_ACCESS = 2
CREATE_SUSPENDED = 0x4
WAIT_TIMEOUT = 0x102
KILLED = 0xC000013A
MOST = 4096

_kernel = ctypes.WinDLL("kernel32", use_last_error=True)
_nt = ctypes.WinDLL("ntdll")
for _name in ("CreateJobObjectW", "OpenJobObjectW", "OpenProcess", "GetCurrentProcess"):
    getattr(_kernel, _name).restype = wintypes.HANDLE


class _Pids(ctypes.Structure):
    _fields_ = (
        ("assigned", wintypes.DWORD),
        ("count", wintypes.DWORD),
        ("pids", ctypes.c_size_t * MOST),
    )


POLL = 0.05


class WindowsHost(Host):
    boot_id = "windows"  # creation times are absolute: they alone tell one boot from another

    @property
    def poll(self) -> float | None:
        return POLL

    def __init__(
        self,
        _selector: BaseSelector,
        on_term: Callable[[], None],
        _folder: Path,
        _held: Mapping[str, Cell],
    ) -> None:
        self._held: dict[str, Order] = {}
        self._processes: dict[int, int] = {}
        self._jobs: dict[str, int] = {}
        signal.signal(signal.SIGINT, _do_nothing)
        signal.signal(signal.SIGBREAK, _do_nothing)
        signal.signal(signal.SIGTERM, lambda _number, _frame: on_term())

    def prepare(self, order: Order) -> None:
        self._held[order.run] = order

    def recall(self, run: str) -> None:
        del self._held[run]

    def release(self, run: str) -> Identity:
        order = self._held.pop(run)
        path = Path(order.log)
        path.parent.mkdir(parents=True, exist_ok=True)
        job = _checked(_kernel.CreateJobObjectW(None, _job_name(order.run)))
        try:
            with path.open("ab") as log:
                child = subprocess.Popen(
                    order.argv,
                    cwd=order.cwd,
                    env={**order.env, MARK: order.run},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    creationflags=subprocess.CREATE_NEW_PROCESS_GROUP | CREATE_SUSPENDED,
                )
        except BaseException:
            _kernel.CloseHandle(wintypes.HANDLE(job))
            raise
        child.returncode = 0  # watched by its own handle, never by Popen
        process = _open(child.pid, PROCESS_ALL)
        # Suspended until it is in the job, so that no child of its own escapes.
        _checked(_kernel.AssignProcessToJobObject(wintypes.HANDLE(job), wintypes.HANDLE(process)))
        _give(job, process)
        _nt.NtResumeProcess(wintypes.HANDLE(process))
        self._jobs[order.run] = job
        self._processes[child.pid] = process
        return Identity(child.pid, _created(process))

    def adopt(self, run: str, main: Identity) -> End | None:
        job = _open_job(run)
        if job:
            self._jobs[run] = job
        with suppress(OSError):
            process = _open(main.pid, PROCESS_QUERY)
            if _created(process) == main.ticks and _code(process) is None:
                self._processes[main.pid] = process
                return None
            _kernel.CloseHandle(wintypes.HANDLE(process))
        return End(detail=UNWATCHED)

    def find(self, runs: Set[str]) -> dict[str, Identity]:
        members = {run: _members(job) for run in runs if (job := _open_job(run))}
        return {run: min(them, key=lambda one: one.ticks) for run, them in members.items() if them}

    def ended(self) -> Iterator[tuple[int, End]]:
        for pid, process in list(self._processes.items()):
            code = _code(process)
            if code is not None:
                del self._processes[pid]
                _kernel.CloseHandle(wintypes.HANDLE(process))
                yield pid, End(exit_code=code)

    def trees(self, roots: Mapping[str, Root]) -> dict[str, frozenset[Identity]]:
        for run in self._jobs.keys() - roots.keys():
            _kernel.CloseHandle(wintypes.HANDLE(self._jobs.pop(run)))
        return {run: self._tree(run, root) for run, root in roots.items()}

    def send(self, run: str, members: Set[Identity], name: str) -> None:
        if name == "SIGKILL":
            if run in self._jobs:
                _kernel.TerminateJobObject(wintypes.HANDLE(self._jobs[run]), KILLED)
            return
        for member in members:
            if member.pid in self._processes:
                with suppress(OSError):
                    os.kill(member.pid, signal.CTRL_BREAK_EVENT)

    def _tree(self, run: str, root: Root) -> frozenset[Identity]:
        if run in self._jobs:
            return _members(self._jobs[run])
        return frozenset({root.main} if root.main.pid in self._processes else ())


def lock(file: IO[bytes]) -> bool:
    with suppress(OSError):
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        return True
    return False


def _do_nothing(_number: int, _frame: object) -> None:
    pass


def _job_name(run: str) -> str:
    return f"openbell-{run}"


def _open_job(run: str) -> int | None:
    return _kernel.OpenJobObjectW(JOB_ALL, 0, _job_name(run))


def _checked(result: int | None) -> int:
    if not result:
        raise ctypes.WinError(ctypes.get_last_error())
    return result


def _open(pid: int, access: int) -> int:
    return _checked(_kernel.OpenProcess(access, 0, pid))


def _give(job: int, process: int) -> None:
    theirs = wintypes.HANDLE()
    ours = wintypes.HANDLE(_kernel.GetCurrentProcess())
    _checked(
        _kernel.DuplicateHandle(
            ours,
            wintypes.HANDLE(job),
            wintypes.HANDLE(process),
            ctypes.byref(theirs),
            0,
            0,
            DUPLICATE_SAME_ACCESS,
        )
    )


def _code(process: int) -> int | None:
    if _kernel.WaitForSingleObject(wintypes.HANDLE(process), 0) == WAIT_TIMEOUT:
        return None
    code = wintypes.DWORD()
    _checked(_kernel.GetExitCodeProcess(wintypes.HANDLE(process), ctypes.byref(code)))
    return code.value


def _created(process: int) -> int:
    times = [wintypes.FILETIME() for _ in range(4)]
    pointers = [ctypes.byref(time) for time in times]
    _checked(_kernel.GetProcessTimes(wintypes.HANDLE(process), *pointers))
    return times[0].dwHighDateTime << 32 | times[0].dwLowDateTime


def _members(job: int) -> frozenset[Identity]:
    found = _Pids()
    size = ctypes.sizeof(found)
    _kernel.QueryInformationJobObject(
        wintypes.HANDLE(job), JOB_PIDS, ctypes.byref(found), size, None
    )
    return frozenset(_identities(found.pids[: min(found.count, MOST)]))


def _identities(pids: list[int]) -> Iterator[Identity]:
    for pid in pids:
        with suppress(OSError):
            process = _open(pid, PROCESS_QUERY)
            yield Identity(pid, _created(process))
            _kernel.CloseHandle(wintypes.HANDLE(process))
