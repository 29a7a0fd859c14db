"""A cell that is being made. Nobody waits for it: what it says is heard as it comes."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass

assert sys.platform == "linux"  # before what other platforms do not have

from . import procfs
from .cell import READY
from .host import Identity
from .posix import send

PATIENCE_S = 10.0
"""How long a cell may take to be made."""


@dataclass(slots=True)
class Making:
    """Its descriptors are ours: `told`, on which it speaks; `record`, in which is written down
    who it is; `go`, whose end ends it; and `forked`, the process `pid` that we forked for it,
    unless a zygote did.
    """

    told: int
    record: int
    go: int
    whole: bool
    until: float
    pid: int | None = None
    forked: int | None = None
    said: bytes = b""
    keeper: Identity | None = None
    """Who is to be watched, once that was told."""
    ended: bool = False

    @property
    def ready(self) -> bool:
        return self.keeper is not None and self._is_ready

    @property
    def over(self) -> bool:
        """Nothing more is to come that would matter."""
        return self.ended or self.ready or time.monotonic() >= self.until

    @property
    def pids(self) -> set[int]:
        """Whose processes are none of any other run."""
        return {pid for pid in (self.pid, self.keeper and self.keeper.pid) if pid is not None}

    def hear(self) -> None:
        """What it has said by now.

        Where nobody is left who could say more, the number that it has named may be a stranger's;
        unless it was ready: then it says no more, and waits.
        """
        while not self.ended and self._says_more(0):
            piece = os.read(self.told, 1 << 12)
            self.said += piece
            self.ended = not piece
        alive = self._is_ready or not self.ended
        if self.keeper is None and alive and (pid := _pid(self.said)) is not None:
            process = procfs.look(pid)
            self.keeper = None if process is None else process.identity

    def wait(self) -> None:
        """Until it is over."""
        self.hear()
        while not self.over:
            self._says_more(max(0.0, self.until - time.monotonic()))
            self.hear()

    @property
    def _is_ready(self) -> bool:
        return READY.strip() in self.said.splitlines()

    def _says_more(self, within_s: float) -> bool:
        news = select.poll()
        news.register(self.told, select.POLLIN)
        return bool(news.poll(within_s * 1000))

    def why_not(self) -> str | None:
        """What went wrong in it, if it has said that."""
        return self._said("error ")

    def note(self) -> str | None:
        """What will go wrong, though it is ready."""
        return self._said("note ")

    def _said(self, kind: str) -> str | None:
        lines = self.said.decode(errors="replace").splitlines()
        return next((line.removeprefix(kind) for line in lines if line.startswith(kind)), None)

    def abandon(self) -> None:
        """Ends what there is of it."""
        self.hear()
        if self.keeper is not None:
            send(self.keeper, signal.SIGKILL)
        if self.forked is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.forked, signal.SIGKILL)
        os.close(self.go)
        self.close()

    def close(self) -> None:
        """All but `go`."""
        for descriptor in (self.told, self.record, self.forked):
            if descriptor is not None:
                os.close(descriptor)


def _pid(said: bytes) -> int | None:
    """The doorway tells it, and the strategy that it is ready: who of them comes first is
    anybody's guess.
    """
    lines = said.split(b"\n")[:-1]
    return next((int(line) for line in lines if line.isdigit()), None)
