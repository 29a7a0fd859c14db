"""The cells of this host: made ahead, opened at the instant, and remembered until settled."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path

assert sys.platform == "linux"  # before what other platforms do not have

from . import records, rootfs, uids
from .cell import GO, Door, Plan, execute
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
            self.making[TRY] = self._fork(order, os.memfd_create(TRY), uid=uid, whole=True)
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

    def prepare(self, order: Order) -> Making:
        """OSError, ValueError; then it is to be forgotten, and its group to be removed.

        What is returned is to be `heard` until it is over; then it is `settled`.
        """
        self._try_again()
        whole = self.why_bare is None
        uid = self._user_of(order)
        self._groups.create(order.run, order.bounds)
        making = self._fork(order, open_log(Path(order.log)), uid=uid, whole=whole)
        self.making[order.run] = making
        return making

    def settle(self, run: str) -> None:
        """It is over: it is held from now on, or OSError tells what went wrong."""
        making = self.making.pop(run)
        if not making.ready or making.keeper is None:
            making.abandon()
            raise OSError(making.why_not())
        try:
            records.begin(making.record, making.keeper, self._boot_id, whole=making.whole)
        except OSError:
            making.abandon()
            raise
        making.close()
        self.held[run] = Cell(making.keeper, making.go)
        self._whole[run] = making.whole

    def release(self, run: str) -> Identity:
        """Returns once it is executed, or after a moment: of hundreds that are due together each
        would get a sliver of the processors, and the first be there hardly before the last.
        """
        self._wait(run)
        held = self.held.pop(run)
        try:
            os.write(held.go, GO)
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
        held = self.held.pop(run)
        os.close(held.go)
        send(held.keeper, signal.SIGKILL)

    def _wait(self, run: str) -> None:
        """Until it is held, which is a matter of milliseconds."""
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

    def _user_of(self, order: Order) -> int | None:
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

    def _fork(self, order: Order, log: int, *, uid: int | None, whole: bool) -> Making:
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
                os.fchown(log, uid, -1)  # /dev/stdout is opened anew by whoever names it
            plan = Plan(order, uid, str(self._root), whole)
            child = os.fork()
            if child == 0:
                execute(plan, Door(report, go, record, log, tuple(ways)))
            forked = os.pidfd_open(child)
            ours.pop_all()
        until = time.monotonic() + PATIENCE_S
        return Making(child, forked, told, record, going, whole, until)


def _await_reader(pipe: int) -> None:
    """Until nobody can read it any more: the strategy was executed, or has ended."""
    gone = select.poll()
    gone.register(pipe, 0)
    gone.poll(EXEC_S * 1000)


def _kept(stack: ExitStack, descriptor: int) -> int:
    stack.callback(os.close, descriptor)
    return descriptor
