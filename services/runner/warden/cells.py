"""The cells of this host: made ahead, opened at the instant, and remembered until settled."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

assert sys.platform == "linux"  # before what other platforms do not have

from . import records, rootfs, uids
from .cell import GO, Door, Plan, go_in
from .cgroups import Groups
from .host import Cell, End, Identity, Order
from .making import PATIENCE_S, Making
from .posix import is_alive, open_log, send

DOUBT_S = 2.0
"""How long a cell whose warden died just then may take to say whether it went; then it is ended,
and may take as long again."""
EXEC_S = 0.1
"""How long a strategy's execution is waited for."""
GLANCE_S = 0.005
UNSAID = "the cell ended, or hung, while it was made"
Fork = Callable[[Order, "int | None", Door, Making], None]
"""Makes what goes through the door."""
TRY = "_probe"
"""No run's name."""
TRY_AGAIN_S = 10.0


class Cells:
    """`folder` is the warden's. Cells are whole where namespaces are to be had; else they are
    bare: a session, a group and a user of their own, and the host's file system.
    """

    def __init__(self, folder: Path, groups: Groups, boot_id: str) -> None:
        self._folder = folder / "cells"
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self._root = folder / "root"
        self._probe = folder / TRY
        for empty in (self._root, self._probe):
            empty.mkdir(mode=0o755, exist_ok=True)
        self._groups = groups
        self._boot_id = boot_id
        self._uids = uids.Uids(folder / "uids.json") if uids.available() else None
        self.held: dict[str, Cell] = {}
        self.making: dict[str, Making] = {}
        self._whole: dict[str, bool] = {}
        self._tried_at = 0.0
        self.why_bare: str | None = None
        """Why cells are bare here; None when they are whole."""

    @property
    def own_user(self) -> bool:
        return self._uids is not None

    def try_one(self) -> None:
        """Finds out what this host permits by doing it."""
        self._tried_at, self.why_bare = time.monotonic(), None
        order = Order(TRY, TRY, ("/bin/sh",), str(self._probe), {}, os.devnull)
        uid = None if self._uids is None else self._uids.first
        try:
            self._fork(order, os.memfd_create(TRY), uid, self._child(whole=True))
            self._wait(TRY)
        except OSError as error:
            self.why_bare = str(error)
        else:
            self.recall(TRY)
        self.forget(TRY)

    def _try_again(self) -> None:
        """What failed for want of room, or of time, may be possible now: a host that is short of
        it for a moment must not open its files to every strategy from then on.
        """
        now = time.monotonic()
        if self.why_bare is not None and now >= self._tried_at + TRY_AGAIN_S:
            self.try_one()

    def user_of(self, order: Order) -> int | None:
        """Whose user it gets; its folder is given to that one. OSError, ValueError."""
        self._try_again()
        own = os.path.realpath(order.cwd)
        shared = (*rootfs.SYSTEM, str(self._folder))
        if any(rootfs.is_below(os.path.realpath(each), own) for each in shared):
            # It would become the strategy's to write, with all that is in it.
            raise ValueError(f"{order.cwd} holds more than a strategy")
        if self._uids is None:
            return None
        uid = self._uids.of(order.owner)
        uids.give(Path(order.cwd), uid)
        return uid

    def prepare(self, order: Order, uid: int | None, fork: Fork | None = None) -> Making:
        """By `fork`, when a zygote does it. OSError, ValueError; then it is to be forgotten, and
        its group to be removed.

        What is returned is to be `heard` until it is over; then it is `settled`.
        """
        self._groups.create(order.run, order.bounds)
        return self.make(order, uid, fork)

    def make(self, order: Order, uid: int | None, fork: Fork | None = None) -> Making:
        """As `prepare`, in the group that is there."""
        fork = fork or self._child(whole=self.why_bare is None)
        return self._fork(order, open_log(Path(order.log)), uid, fork)

    def settle(self, run: str) -> str | None:
        """It is over: it is held from now on, with what is to be said of it; or OSError tells what
        went wrong.
        """
        making = self.making.pop(run)
        if not making.ready or making.keeper is None:
            making.abandon()
            raise OSError(making.why_not() or UNSAID)
        try:
            records.begin(making.record, making.keeper, self._boot_id, whole=making.whole)
        except OSError:
            making.abandon()
            raise
        making.close()
        self.held[run] = Cell(making.keeper, making.go, making.forked is None)
        self._whole[run] = making.whole
        return making.note()

    def release(self, run: str) -> Identity:
        """Returns once it is executed, or after a moment: of hundreds that are due together each
        would get a sliver of the processors, and the first be there hardly before the last.
        """
        self._wait(run)
        held = self.held.pop(run)
        try:
            os.write(held.go, GO)
            if not held.forked:
                _await_reader(held.go)
        except BrokenPipeError:
            raise OSError("it was ended while it was held") from None
        finally:
            os.close(held.go)
        return held.keeper

    def recall(self, run: str) -> None:
        """The end of its pipe ends it; should it hang, the last resort does."""
        if making := self.making.pop(run, None):
            making.abandon()
            return
        if held := self.held.pop(run, None):
            os.close(held.go)
            send(held.keeper, signal.SIGKILL)

    def _wait(self, run: str) -> None:
        """Until it is held: milliseconds, or PATIENCE_S if it hangs. OSError."""
        if making := self.making.get(run):
            making.wait()
            self.settle(run)

    def is_whole(self, run: str) -> bool:
        """Whether nothing of a run can outlive its keeper."""
        if run not in self._whole:
            record = records.read(self._path(run))
            self._whole[run] = record is not None and record.whole
        return self._whole[run]

    def end(self, run: str) -> End | None:
        record = records.read(self._path(run))
        return None if record is None else record.end

    def found(self, run: str) -> Identity | None:
        """The keeper, or the strategy itself, of a run that was executed.

        One that is held by a warden which died is about to end, or went at the last moment:
        it is waited for.
        """
        doubt = time.monotonic() + DOUBT_S
        while (record := records.read(self._path(run))) and record.boot_id == self._boot_id:
            if record.went:
                return record.keeper
            if not is_alive(record.keeper):
                # It may have gone, and ended, since we read.
                record = records.read(self._path(run))
                return record.keeper if record and record.went else None
            if time.monotonic() >= doubt:
                send(record.keeper, signal.SIGKILL)
            if time.monotonic() >= doubt + DOUBT_S:
                return None
            time.sleep(GLANCE_S)
        return None

    def forget(self, run: str) -> None:
        self._whole.pop(run, None)
        self._path(run).unlink(missing_ok=True)

    def records(self) -> set[str]:
        """The runs of which there is something written down."""
        return {path.name for path in self._folder.iterdir()}

    def _path(self, run: str) -> Path:
        return self._folder / run

    def _fork(self, order: Order, log: int, uid: int | None, fork: Fork) -> Making:
        """Closes `log`. OSError."""
        with ExitStack() as ours, ExitStack() as theirs:
            theirs.callback(os.close, log)
            record = _kept(ours, records.opened(self._path(order.run)))
            told, report = os.pipe()
            _kept(ours, told)
            _kept(theirs, report)
            go, going = os.pipe()
            _kept(theirs, go)
            _kept(ours, going)
            ways = () if order.run == TRY else self._groups.of(order.run).ways_in()
            for way in ways:
                _kept(theirs, way)
            if uid is not None:
                _give_log(log, uid, Path(order.log).parent)
            making = Making(told, record, going, whole=True, until=time.monotonic() + PATIENCE_S)
            fork(order, uid, Door(report, go, record, log, tuple(ways)), making)
            ours.pop_all()
        self.making[order.run] = making
        return making

    def _child(self, *, whole: bool) -> Fork:
        def fork(order: Order, uid: int | None, door: Door, making: Making) -> None:
            child = os.fork()
            if child == 0:
                go_in(Plan(lambda: order, uid, str(self._root), whole), door)
            making.pid, making.forked = child, os.pidfd_open(child)
            making.whole = whole

        return fork


def _give_log(log: int, uid: int, folder: Path) -> None:
    """/dev/stdout is opened anew by whoever names it. The runner, where it is not root, keeps the
    log within its bounds as its group.
    """
    runner = folder.stat()
    if runner.st_uid != 0:
        os.fchmod(log, 0o660)
        os.fchown(log, uid, runner.st_gid)
    else:
        os.fchown(log, uid, -1)


def _await_reader(pipe: int) -> None:
    """Until nobody can read it any more: the strategy was executed, or has ended."""
    gone = select.poll()
    gone.register(pipe, 0)
    gone.poll(EXEC_S * 1000)


def _kept(stack: ExitStack, descriptor: int) -> int:
    stack.callback(os.close, descriptor)
    return descriptor
