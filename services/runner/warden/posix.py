"""Linux and macOS: sessions, SIGCHLD, and pidfds where there are any."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from pathlib import Path
from selectors import EVENT_READ, BaseSelector
from typing import IO

from . import tree
from .host import MARK, UNSEEN, End, Identity, Order, Root

assert sys.platform != "win32"
if sys.platform == "linux":
    from . import procfs as system
else:
    from . import libproc as system

POLL = 0.25
HANDLED = (signal.SIGCHLD, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ)


class PosixHost:
    def __init__(self, selector: BaseSelector, on_term: Callable[[], None]) -> None:
        self.boot_id = system.boot_id()
        self._selector = selector
        self._marks = system.Marks()
        self._gone: list[int] = []
        self._polled: set[Identity] = set()
        _own_every_descriptor()
        system.become_subreaper()
        _own_every_signal(on_term)
        _wake_by_signal(selector)

    @property
    def poll(self) -> float | None:
        return POLL if self._polled else None

    def spawn(self, order: Order) -> Identity:
        # Without close_fds, exec itself is what closes the warden's lock in the child: a
        # warden killed in between stays locked until its last child shows its mark.
        log = _open_log(Path(order.log))
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

    def adopt(self, _run: str, main: Identity) -> bool:
        descriptor = _pidfd(main.pid)
        if not _is_alive(main):
            if descriptor is not None:
                os.close(descriptor)
            return False
        if descriptor is None:
            self._polled.add(main)
            return True

        def gone() -> None:
            self._selector.unregister(descriptor)
            os.close(descriptor)
            self._gone.append(main.pid)

        self._selector.register(descriptor, EVENT_READ, gone)
        return True

    def find(self, runs: Set[str]) -> dict[str, Identity]:
        marked: dict[str, list[tree.Process]] = {}
        for process in system.table().values():
            mark = None if process.zombie else self._marks(process)
            if mark is not None and mark in runs:
                marked.setdefault(mark, []).append(process)
        return {run: _main(processes) for run, processes in marked.items()}

    def ended(self) -> Iterator[tuple[int, End]]:
        with suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0] != 0:
                yield found[0], _end(found[1])
        for main in [main for main in self._polled if not _is_alive(main)]:
            self._polled.discard(main)
            self._gone.append(main.pid)
        while self._gone:
            yield self._gone.pop(), End(detail=UNSEEN)

    def trees(self, roots: Mapping[str, Root]) -> dict[str, frozenset[Identity]]:
        table = system.table()
        self._marks.keep(table)
        return tree.members(table, roots, self._marks, os.getpid())

    def send(self, _run: str, members: Set[Identity], name: str) -> None:
        for member in members:
            with suppress(ProcessLookupError, PermissionError):
                _send(member, name)


def lock(file: IO[bytes]) -> bool:
    """A flock: it is held by every copy of the descriptor, see `spawn`."""
    with suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def _main(marked: Sequence[tree.Process]) -> Identity:
    leaders = [process for process in marked if process.session == process.pid]
    return min(leaders or marked, key=lambda process: process.ticks).identity


def _send(member: Identity, name: str) -> None:
    number = signal.Signals[name]
    descriptor = _pidfd(member.pid)
    try:
        if not _is_alive(member):
            return
        if sys.platform == "linux" and descriptor is not None:
            signal.pidfd_send_signal(descriptor, number)
        else:
            os.kill(member.pid, number)
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _pidfd(pid: int) -> int | None:
    """Opened before the identity is checked, it pins the process that was checked."""
    if sys.platform == "linux":
        with suppress(OSError):
            return os.pidfd_open(pid)
    return None


def _is_alive(who: Identity) -> bool:
    process = system.look(who.pid)
    return process is not None and process.identity == who and not process.zombie


def _end(status: int) -> End:
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return End(exit_code=code)
    try:
        return End(signal=signal.Signals(-code).name)
    except ValueError:  # a real-time signal
        return End(signal=f"SIG{-code}")


def _open_log(path: Path) -> int:
    """Never through a strategy's symlink, never waiting for the reader of its FIFO."""
    path.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    guards = os.O_NOFOLLOW | os.O_NOCTTY | os.O_NONBLOCK
    descriptor = os.open(path, flags | guards, 0o600)
    os.set_blocking(descriptor, True)
    return descriptor


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
