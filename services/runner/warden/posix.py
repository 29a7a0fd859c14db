"""Linux and macOS: sessions, SIGCHLD, and pidfds where there are any."""

from __future__ import annotations

import fcntl
import os
import resource
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from selectors import EVENT_READ, BaseSelector
from typing import IO

from . import tree
from .host import MARK, UNSEEN, UNWATCHED, Cell, End, Host, Identity, Order, Root, Usage

assert sys.platform != "win32"
if sys.platform == "linux":
    from . import procfs as system
else:
    from . import libproc as system

POLL = 0.25
HANDLED = (signal.SIGCHLD, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ)


class PosixHost(Host):
    """What is prepared is kept, and executed by Popen; it has no cell."""

    def __init__(
        self,
        selector: BaseSelector,
        on_term: Callable[[], None],
        _folder: Path,
        _held: Mapping[str, Cell],
    ) -> None:
        self.boot_id = system.boot_id()
        self._selector = selector
        self._marks = system.Marks()
        self._held: dict[str, Order] = {}
        self._gone: list[int] = []
        self._polled: set[Identity] = set()
        _own_every_descriptor()
        system.become_subreaper()
        _own_every_signal(on_term)
        _wake_by_signal(selector)

    @property
    def poll(self) -> float | None:
        return POLL if self._polled else None

    def prepare(self, order: Order) -> None:
        self._held[order.run] = order

    def release(self, run: str) -> Identity:
        order = self._held.pop(run)
        # Without close_fds, exec itself is what closes the warden's lock in the child: a
        # warden killed in between stays locked until its last child shows its mark.
        log = open_log(Path(order.log))
        try:
            child = subprocess.Popen(
                order.argv,
                cwd=order.cwd,
                env={**order.env, MARK: order.run},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                close_fds=False,
            )
        finally:
            os.close(log)
        child.returncode = 0  # reaped by ended(), never by Popen
        # A child, unreaped: its pid is its own.
        process = system.look(child.pid)
        return Identity(child.pid, process.ticks if process else 0)

    def recall(self, run: str) -> None:
        del self._held[run]

    def adopt(self, _run: str, main: Identity) -> End | None:
        process = system.look(main.pid)
        if process is not None and process.identity == main and process.parent == os.getpid():
            return None  # its warden has become us: `ended` tells, also if it is a zombie by now
        descriptor = _pidfd(main.pid)
        if not is_alive(main):
            if descriptor is not None:
                os.close(descriptor)
            return End(detail=UNWATCHED)
        if descriptor is None:
            self._polled.add(main)
            return None

        def gone() -> None:
            self._selector.unregister(descriptor)
            os.close(descriptor)
            self._gone.append(main.pid)

        self._selector.register(descriptor, EVENT_READ, gone)
        return None

    def find(self, runs: Set[str]) -> dict[str, Identity]:
        marked: dict[str, list[tree.Process]] = {}
        for process in system.table().values():
            mark = None if process.zombie else self._marks(process)
            if mark is not None and mark in runs:
                marked.setdefault(mark, []).append(process)
        return {run: _main(processes) for run, processes in marked.items()}

    def ended(self) -> Iterator[tuple[int, End]]:
        with suppress(ChildProcessError):
            while (found := os.wait4(-1, os.WNOHANG))[0] != 0:
                pid, status, used = found
                yield pid, replace(self._end(pid, status), usage=_usage(used))
        for main in [main for main in self._polled if not is_alive(main)]:
            self._polled.discard(main)
            self._gone.append(main.pid)
        while self._gone:
            pid = self._gone.pop()
            yield pid, self._unseen_end(pid)

    def _end(self, _pid: int, status: int) -> End:
        return end_of(status)

    def _unseen_end(self, _pid: int) -> End:
        return End(detail=UNSEEN)

    def trees(self, roots: Mapping[str, Root]) -> dict[str, frozenset[Identity]]:
        table = self._table()
        self._marks.keep(table)
        return tree.members(table, roots, self._marks, os.getpid())

    def _table(self) -> dict[int, tree.Process]:
        return system.table()

    def send(self, _run: str, members: Set[Identity], name: str) -> None:
        """The oldest first: a main process that saw its child killed would end by a code."""
        for member in sorted(members, key=lambda one: (one.ticks, one.pid)):
            send(member, signal.Signals[name])


def lock(file: IO[bytes]) -> bool:
    """A flock: it is held by every copy of the descriptor, see `spawn`."""
    with suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def _main(marked: Sequence[tree.Process]) -> Identity:
    leaders = [process for process in marked if process.session == process.pid]
    return min(leaders or marked, key=lambda process: process.ticks).identity


def send(to: Identity, number: signal.Signals) -> None:
    """To this process and no other; nothing when it is gone."""
    descriptor = _pidfd(to.pid)
    try:
        if not is_alive(to):
            return
        if sys.platform == "linux" and descriptor is not None:
            signal.pidfd_send_signal(descriptor, number)
        else:
            os.kill(to.pid, number)
    except (ProcessLookupError, PermissionError):
        pass
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _pidfd(pid: int) -> int | None:
    """Opened before the identity is checked, it pins the process that was checked."""
    if sys.platform == "linux":
        with suppress(OSError):
            return os.pidfd_open(pid)
    return None


def is_alive(who: Identity) -> bool:
    process = system.look(who.pid)
    return process is not None and process.identity == who and not process.zombie


def end_of(status: int) -> End:
    """Of a wait status."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return End(exit_code=code)
    try:
        return End(signal=signal.Signals(-code).name)
    except ValueError:  # a real-time signal
        return End(signal=f"SIG{-code}")


def _usage(used: resource.struct_rusage) -> Usage:
    """Of a process, and of those of its children that it waited for."""
    kilobytes = 1 if sys.platform == "darwin" else 1024
    return Usage(used.ru_maxrss * kilobytes, round(used.ru_utime + used.ru_stime, 3))


def open_log(path: Path) -> int:
    """Never through a strategy's symlink, never waiting for the reader of its FIFO.

    The folder belongs to whose the one above it is: the runner, which archives and removes.
    """
    with suppress(FileExistsError):
        path.parent.parent.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir()
        belong_to(path.parent, path.parent.parent.stat())
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    guards = os.O_NOFOLLOW | os.O_NOCTTY | os.O_NONBLOCK
    descriptor = os.open(path, flags | guards, 0o600)
    os.set_blocking(descriptor, True)
    return descriptor


def belong_to(path: Path, its: os.stat_result) -> None:
    """Gives what we have made to whom we work for. Only root can, and only root must."""
    if os.geteuid() == 0 and its.st_uid != 0:
        os.chown(path, its.st_uid, its.st_gid, follow_symlinks=False)


def _own_every_descriptor() -> None:
    """Children inherit nothing, not even what the warden inherited."""
    for name in os.listdir("/dev/fd"):  # noqa: PTH208
        with suppress(OSError):
            if int(name) > 2:
                os.set_inheritable(int(name), False)  # noqa: FBT003


def _own_every_signal(on_term: Callable[[], None]) -> None:
    """What is ignored stays ignored across exec; a handler is reset by it.

    A shell ignores SIGINT for its background jobs: strategies below one would never see a
    KeyboardInterrupt.
    """
    for number in signal.valid_signals():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    for number in HANDLED:
        signal.signal(number, _do_nothing)
    signal.signal(signal.SIGTERM, lambda _number, _frame: on_term())
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _do_nothing(_number: int, _frame: object) -> None:
    pass


def _wake_by_signal(selector: BaseSelector) -> None:
    receiver, sender = socket.socketpair()
    receiver.settimeout(0)
    sender.settimeout(0)
    signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)

    def drain(_keep: socket.socket = sender) -> None:
        with suppress(BlockingIOError):
            while receiver.recv(select.PIPE_BUF):
                pass

    selector.register(receiver, EVENT_READ, drain)
