"""Linux: a cell for each run, as whole as the host permits."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import suppress
from pathlib import Path
from selectors import EVENT_READ, BaseSelector

assert sys.platform == "linux"  # before what other platforms do not have

from . import procfs
from .cells import Cells
from .cgroups import MOST_WEIGHTS, Groups
from .host import UNSEEN, Cell, End, Identity, Order, Root, Usage
from .making import Making
from .posix import PosixHost, end_of, is_alive
from .tree import Process
from .zygotes import Zygote, Zygotes, kind_of

GROUPS = "groups.json"
PARTING_S = 1.0
"""How long the last groups may take to be empty."""
PAUSE_S = 0.01
TOGETHER = 2 * len(os.sched_getaffinity(0))
"""Cells that are made at one time: no more than keep the processors busy, for those who make them
busy have something to do, too.
"""


class LinuxHost(PosixHost):
    def __init__(
        self,
        selector: BaseSelector,
        on_term: Callable[[], None],
        folder: Path,
        held: Mapping[str, Cell],
    ) -> None:
        super().__init__(selector, on_term, folder, held)
        self._kept_groups = folder / GROUPS
        self._groups = _groups(self._kept_groups, self.boot_id)
        self._cells = Cells(folder, self._groups, self.boot_id)
        self._cells.held.update(held)
        self._cells.try_one()
        self._selector = selector
        self._outcomes: list[tuple[str, Exception | str | None]] = []
        self._queue: dict[str, tuple[Order, int | None]] = {}
        """What is to be prepared, with its user."""
        self._unforked: dict[str, str] = {}
        """Why what is being prepared is executed, though it might have been forked."""
        self._forked: dict[str, tuple[Order, int | None]] = {}
        """What a zygote is making."""
        self._zygotes = Zygotes(folder, selector, self._go_on)
        self._runs: dict[int, str] = {}
        self._empty: set[str] = set()
        """Runs whose group could not be removed yet."""
        self._grouped_runs = self._groups.runs()
        self._weighed = 0

    @property
    def facts(self) -> Mapping[str, object]:
        return {
            "processes": procfs.namespace(),
            "namespaces": self._cells.why_bare is None,
            "why_no_namespaces": self._cells.why_bare,
            "own_user": self._cells.own_user,
            "groups": self._groups.to_json(),
            "enforces": dict(self._groups.enforces),
            "why_no_limits": self._groups.why,
        }

    @property
    def held(self) -> Mapping[str, Cell]:
        return self._cells.held

    def prepare(self, order: Order) -> None:
        self._grouped_runs.add(order.run)
        self._weigh()
        uid = self._cells.user_of(order)
        if order.patient:
            self._queue[order.run] = order, uid
            zygote = self._zygote_for(order, uid)
            if zygote is None or not zygote.warming:
                self._go_on()
        else:
            self._make(order, uid)

    def is_prepared(self, run: str) -> bool:
        return run in self._cells.held

    @property
    def preparing(self) -> bool:
        return bool(self._cells.making) or bool(self._queue)

    def outcomes(self) -> Iterator[tuple[str, Exception | str | None]]:
        """Heard before anybody is reaped, so that whoever is named is still the one."""
        for making in self._cells.making.values():
            making.hear()
        for run in [run for run, making in self._cells.making.items() if making.over]:
            self._settle(run)
        while self._outcomes:
            yield self._outcomes.pop(0)

    def release(self, run: str) -> Identity:
        self._stop_hearing(run)
        main = self._cells.release(run)
        self._runs[main.pid] = run
        return main

    def recall(self, run: str) -> None:
        """Also of one that could not be prepared, which has not been told yet."""
        self._outcomes = [outcome for outcome in self._outcomes if outcome[0] != run]
        if self._queue.pop(run, None) is None:
            self._forked.pop(run, None)
            self._unforked.pop(run, None)
            self._stop_hearing(run)
            self._cells.recall(run)

    def _go_on(self) -> None:
        """With what waits for its turn, or for its zygote. Each in the making holds descriptors,
        and some of the processors.
        """
        for run, (order, uid) in [*self._queue.items()]:
            if len(self._cells.making) >= TOGETHER:
                return
            zygote = self._zygote_for(order, uid)
            if zygote is not None and zygote.warming:
                continue
            del self._queue[run]
            try:
                self._make(order, uid)
            except (OSError, ValueError) as error:
                self._outcomes.append((run, error))

    def _zygote_for(self, order: Order, uid: int | None) -> Zygote | None:
        if order.preload is None or self._cells.why_bare is not None:
            return None
        with suppress(OSError):  # no room for one: it is executed
            return self._zygotes.of(kind_of(order, order.preload, uid))
        return None

    def _make(self, order: Order, uid: int | None) -> None:
        zygote = self._zygote_for(order, uid)
        if zygote is None or not zygote.warm:
            if zygote is not None and zygote.why_not is not None:
                self._unforked[order.run] = f"it has an interpreter of its own: {zygote.why_not}"
            self._hear_of(self._cells.prepare(order, uid), order.run)
            return
        fork = self._zygotes.forks(zygote)
        self._hear_of(self._cells.prepare(order, uid, fork), order.run)
        self._forked[order.run] = order, uid

    def _hear_of(self, making: Making, run: str) -> None:
        """OSError, and it is given up."""
        try:
            self._selector.register(making.told, EVENT_READ, lambda: self._hear(run))
        except OSError:
            self._cells.recall(run)
            raise

    def _hear(self, run: str) -> None:
        """It may have been taken back by another event of this turn."""
        if making := self._cells.making.get(run):
            making.hear()
            if making.over:
                self._settle(run)

    def _settle(self, run: str) -> None:
        self._stop_hearing(run)
        forked, silent = self._forked.pop(run, None), self._cells.making[run].why_not() is None
        why_slow = self._unforked.pop(run, None)
        try:
            self._outcomes.append((run, self._cells.settle(run) or why_slow))
        except OSError as error:
            if forked is None or not silent or not self._made_again(*forked):
                self._outcomes.append((run, error))
        self._go_on()

    def _made_again(self, order: Order, uid: int | None) -> bool:
        """Without its zygote, which has died."""
        with suppress(OSError):
            self._hear_of(self._cells.make(order, uid), order.run)
            return True
        return False

    def _stop_hearing(self, run: str) -> None:
        if making := self._cells.making.get(run):
            with suppress(KeyError):  # nobody has begun to hear of it
                self._selector.unregister(making.told)

    def has_keeper(self, run: str) -> bool:
        return self._cells.is_whole(run)

    def adopt(self, run: str, main: Identity) -> End | None:
        end = super().adopt(run, main)
        if end is None:
            self._runs[main.pid] = run
            return None
        return self._written(run) or end

    def epitaph(self, run: str) -> End | None:
        return self._cells.end(run)

    def find(self, runs: Set[str]) -> dict[str, Identity]:
        return {run: found for run in runs if (found := self._cells.found(run)) is not None}

    def trees(self, roots: Mapping[str, Root]) -> dict[str, frozenset[Identity]]:
        """Of a whole cell its keeper alone: when it is gone, the kernel has ended the others."""
        whole = {run: root for run, root in roots.items() if self._cells.is_whole(run)}
        found = {run: _living(root) for run, root in whole.items()}
        bare = {run: root for run, root in roots.items() if run not in whole}
        if not bare:
            return found
        shown = super().trees(bare)
        return found | {run: members | self._grouped(run) for run, members in shown.items()}

    def send(self, run: str, members: Set[Identity], name: str) -> None:
        """Of a bare cell no fork slips past a SIGKILL when its group is told."""
        if name == "SIGKILL" and not self._cells.is_whole(run):
            with suppress(OSError):
                self._groups.of(run).kill()
        super().send(run, members, name)

    def usage(self, run: str) -> Usage:
        return self._groups.of(run).usage()

    def forget(self, run: str) -> None:
        self._cells.forget(run)
        self._empty.add(run)
        self._grouped_runs.discard(run)
        self._weigh()

    def forget_strangers(self, runs: Set[str]) -> None:
        for run in self._cells.records() - runs:
            self._cells.forget(run)
        self._empty |= self._groups.runs() - runs

    @property
    def untidy(self) -> bool:
        return bool(self._empty)

    def ended(self) -> Iterator[tuple[int, End]]:
        yield from super().ended()
        self._zygotes.tend()
        self._sweep()

    def close(self) -> None:
        self._zygotes.close()
        until = time.monotonic() + PARTING_S
        while self._empty and time.monotonic() < until:
            self._sweep()
            time.sleep(PAUSE_S)
        self._groups.close()
        self._kept_groups.unlink(missing_ok=True)

    def _weigh(self) -> None:
        runs = min(len(self._grouped_runs), MOST_WEIGHTS)
        if runs != self._weighed:
            self._groups.weigh(runs)
            self._weighed = runs

    def _table(self) -> dict[int, Process]:
        """A held start and a keeper are our children, and have no mark: they could be taken for
        what a bare run has left to us.
        """
        ours = {cell.keeper.pid for cell in self._cells.held.values()}
        for making in self._cells.making.values():
            making.hear()
            ours |= making.pids
        ours |= self._zygotes.pids
        ours |= {pid for pid, run in self._runs.items() if self._cells.is_whole(run)}
        return {pid: found for pid, found in super()._table().items() if pid not in ours}

    def _grouped(self, run: str) -> frozenset[Identity]:
        """Whoever left its session and its parents is still in its group."""
        looks = (procfs.look(pid) for pid in self._groups.of(run).pids())
        return frozenset(p.identity for p in looks if p is not None and not p.zombie)

    def _end(self, pid: int, status: int) -> End:
        return self._written(self._runs.pop(pid, None)) or end_of(status)

    def _unseen_end(self, pid: int) -> End:
        return self._written(self._runs.pop(pid, None)) or End(detail=UNSEEN)

    def _written(self, run: str | None) -> End | None:
        """How it ended, whose process or keeper is gone. A keeper's own end says nothing."""
        if run is None:
            return None
        end = self._cells.end(run)
        if end is None and self._cells.is_whole(run):
            # A keeper that wrote nothing was killed, and so were all that it kept.
            return End(signal="SIGKILL")
        return end

    def _sweep(self) -> None:
        self._empty = {run for run in self._empty if not self._is_removed(run)}

    def _is_removed(self, run: str) -> bool:
        with suppress(OSError):  # it is tried again when the next run ends
            return self._groups.of(run).remove()
        return False


def _living(root: Root) -> frozenset[Identity]:
    return frozenset({root.main} if is_alive(root.main) else ())


def _groups(kept: Path, boot_id: str) -> Groups:
    """Those of the warden before us, as long as there are any: we may have been started in
    another group than it was, and would look for our runs where they are not.
    """
    with suppress(OSError, ValueError, KeyError):
        told = json.loads(kept.read_text())
        if told["boot_id"] == boot_id and (groups := Groups.from_json(told)).runs():
            return groups
    groups = Groups.open(_name(kept.parent))
    with suppress(OSError):  # a full disk: they are looked for anew
        kept.write_text(json.dumps({**groups.to_json(), "boot_id": boot_id}))
    return groups


def _name(folder: Path) -> str:
    """Tells this home's groups from another's."""
    return hashlib.sha256(str(folder).encode()).hexdigest()[:12]
