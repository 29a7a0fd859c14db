"""How a start enters a cell: a group, namespaces, a file system and a user of its own.

    warden ─fork─ doorway ─fork─ keeper (PID 1 of the cell) ─fork─ the strategy, not yet executed
                  └ ends at once: the keeper is the warden's child, as a subreaper's

The strategy waits, with all done but its execution, for one byte. The end of the pipe without it
(it was recalled, or its warden is gone) ends the cell. Everything here runs in a forked child
of the warden, holding the descriptors of its door; an error is told through `report`, and ends it.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

assert sys.platform == "linux"  # before what other platforms do not have

from . import keeper, records, rootfs, syscalls
from .cgroup import Group
from .host import MARK, Order
from .syscalls import CLONE_NEWIPC, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUSER

GO = b"g"
READY = b"ready\n"
UMASK = 0o022
SIGNALS = tuple(map(int, signal.valid_signals()))
SOONER = 500
"""Added to the score by which the kernel chooses whom to end when the host's memory is out."""
NEVER_WENT = 125


@dataclass(frozen=True, slots=True)
class Door:
    """The descriptors that go into a cell."""

    report: int
    """Told: the pid to be watched, then `ready`, or what went wrong."""
    go: int
    record: int
    """What the cell writes down of itself: that it went, and how it ended."""
    log: int
    ways: tuple[int, ...] = ()
    """Into the run's group. The strategy alone is in it: its keeper is none of what the limits are
    for, and must be there to pass on a signal when the strategy gets no more of the processors.
    """
    order: int | None = None
    """A file in which it is written what is to be started, for who was not told."""

    @property
    def descriptors(self) -> tuple[int, ...]:
        order = () if self.order is None else (self.order,)
        return (self.report, self.go, self.record, self.log, *self.ways, *order)


@dataclass(frozen=True, slots=True)
class Plan:
    read: Callable[[], Order]
    """Called where the order is followed, and not on the way there: see `_leave_a_keeper`."""
    uid: int | None
    """Whose user the strategy becomes. None: it stays who it is."""
    root: str
    """An empty folder, over which each cell has a file system of its own."""
    whole: bool
    """Whether it has namespaces and a keeper; else it is the strategy's process alone."""


def go_in(plan: Plan, door: Door) -> NoReturn:
    """In a fork of the warden."""
    order = enter(plan, door, lambda order: _check_program(order.argv[0]))
    execute(order, door)


def execute(order: Order, door: Door) -> NoReturn:
    try:
        be_as_started_by_hand()
        os.execve(order.argv[0], order.argv, {**order.env, MARK: order.run})  # noqa: S606
    except BaseException as error:  # noqa: BLE001 - a fork never goes on as whoever forked it
        _tell(door, error)
    finally:
        os._exit(NEVER_WENT)


def enter(plan: Plan, door: Door, prepare: Callable[[Order], None]) -> Order:
    """Returns in the strategy alone, when it may go; whoever else is made on the way ends in here.

    `prepare` is done by the strategy before it is ready. All that can go wrong goes wrong by then,
    while there is time to tell.
    """
    try:
        gc.disable()  # it would write to every page that we share
        signal.set_wakeup_fd(-1)  # not to be woken by our signals
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        hold_nothing_but(door.descriptors)
        os.umask(UMASK)
        forget_keys(plan.uid)
        if plan.whole:
            _go_through_the_doorway(plan, door)
            _leave_a_keeper(door)
            order = plan.read()
            _make_the_cell(plan, order)
        else:
            os.write(door.report, b"%d\n" % os.getpid())
            order = plan.read()
        _become_the_strategy(plan, order, door)
        prepare(order)
        os.write(door.report, READY)
        os.close(door.report)
        if os.read(door.go, 1) != GO:
            os._exit(NEVER_WENT)
        os.write(door.record, b"go\n")
        return order
    except BaseException as error:  # noqa: BLE001 - a fork never goes on as whoever forked it
        _tell(door, error)
        os._exit(NEVER_WENT)


def leave_the_host(uid: int | None, more: int = 0) -> None:
    """An ordinary user may have namespaces in one of users, in which it stays who it is."""
    user, group = os.getuid(), os.getgid()
    kinds = CLONE_NEWNS | CLONE_NEWIPC | more
    syscalls.unshare(kinds | (CLONE_NEWUSER if uid is None else 0))
    if uid is None:
        _write("/proc/self/setgroups", b"deny")
        _write("/proc/self/uid_map", b"%d %d 1" % (user, user))
        _write("/proc/self/gid_map", b"%d %d 1" % (group, group))


def _go_through_the_doorway(plan: Plan, door: Door) -> None:
    """Returns in the first process of the new namespaces."""
    leave_the_host(plan.uid, CLONE_NEWPID)
    child = syscalls.fork()
    if child != 0:
        os.write(door.report, b"%d\n" % child)
        os._exit(0)


def _leave_a_keeper(door: Door) -> None:
    """Returns in its child. The keeper itself does as little as it can: each page that it writes
    to is its own from then on. Its root is changed with its child's.
    """
    keeper.be_first()
    os.setsid()
    os.chdir("/")
    syscalls.be_called("openbell-keeper")
    syscalls.be_readable(yes=False)
    main = syscalls.fork()
    if main != 0:
        for descriptor in {*door.descriptors} - {door.record}:
            os.close(descriptor)
        keeper.keep(main, door.record)


def _make_the_cell(plan: Plan, order: Order) -> None:
    rootfs.build(plan.root, order.cwd, order.readable)
    rootfs.enter(plan.root)
    _forbid_groups(plan)


def forget_keys(uid: int | None) -> None:
    """Of whoever started the warden, by login or by unit: they are possessed, not owned, and so
    another user's as well. An ordinary user has room for few keyrings, and its own keys anyway.
    """
    try:
        syscalls.join_new_keyring()
    except OSError:
        if uid is not None:
            raise


def _forbid_groups(plan: Plan) -> None:
    """Where the run's group belongs to the strategy's own user, the limits of a group that it
    makes below, and takes for the root of all, would be its own to lift.
    """
    if plan.uid is None:
        with suppress(FileNotFoundError):
            _write("/proc/sys/user/max_cgroup_namespaces", b"0")


def _become_the_strategy(plan: Plan, order: Order, door: Door) -> None:
    os.setsid()
    _check_words(order)
    os.dup2(door.log, 1)
    os.dup2(door.log, 2)
    _limit(order)
    Group.go_in(door.ways)
    if plan.uid is not None:
        be_user(plan.uid)
    syscalls.drop_capabilities()
    syscalls.gain_no_privileges()
    os.chdir(order.cwd)


def be_user(uid: int) -> None:
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def _check_program(path: str) -> None:
    if not Path(path).is_file() or not os.access(path, os.X_OK):
        raise FileNotFoundError(f"{path} cannot be executed")


def _check_words(order: Order) -> None:
    """ValueError for what no process can be given."""
    for word in (*order.argv, *order.env, *order.env.values()):
        if b"\0" in os.fsencode(word):
            raise ValueError("an argument or a variable holds a null character")
    if any("=" in name for name in order.env):
        raise ValueError("a variable's name holds =")


def _limit(order: Order) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if order.bounds.open_files is not None:
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = order.bounds.open_files
        if most != resource.RLIM_INFINITY:
            wanted = min(wanted, most)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
    # Its own it is only as long as it is readable; what a fork of the warden knows is not to be
    # read by the other strategies of an owner.
    syscalls.be_readable(yes=True)
    _write("/proc/self/oom_score_adj", b"%d" % SOONER)
    syscalls.be_readable(yes=False)


def be_as_started_by_hand() -> None:
    """No handler, nothing ignored, nothing blocked."""
    for number in SIGNALS:
        with suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def hold_nothing_but(those: Iterable[int]) -> None:
    """The warden's lock, its clients' connections and the other cells' pipes among them: whoever
    waits for one of those to be closed would wait for this run.
    """
    nothing = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    kept = sorted(those)
    for before, after in zip((2, *kept), (*kept, os.sysconf("SC_OPEN_MAX")), strict=True):
        os.closerange(before + 1, after)


def _write(path: str, data: bytes) -> None:
    file = os.open(path, os.O_WRONLY)
    try:
        os.write(file, data)
    finally:
        os.close(file)


def _tell(door: Door, error: BaseException) -> None:
    said = records.line_of(error)
    for descriptor in (door.report, door.record):
        with suppress(OSError):
            os.write(descriptor, said)
