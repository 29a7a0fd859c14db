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
    who it is; `go`, whose end ends it; and `forked`, the process `pid` that we forked for it.
    """

    pid: int
    forked: int
    told: int
    record: int
    go: int
    whole: bool
    until: float
    said: bytes = b""
    keeper: Identity | None = None
    """Who is to be watched, once that was told."""
    ended: bool = False

    @property
    def ready(self) -> bool:
        return self.keeper is not None and READY in self.said

    @property
    def over(self) -> bool:
        """Nothing more is to come that would matter."""
        return self.ended or self.ready or time.monotonic() >= self.until

    @property
    def pids(self) -> set[int]:
        """Whose processes are none of any other run."""
        return {self.pid} if self.keeper is None else {self.pid, self.keeper.pid}

    def hear(self) -> None:
        """What it has said by now: something, or its end, is there.

        Who is named is looked at before anybody is reaped: its number is still its own.
        """
        piece = os.read(self.told, 1 << 12)
        self.said += piece
        self.ended = not piece
        if self.keeper is None and (pid := _pid(self.said)) is not None:
            process = procfs.look(pid)
            self.keeper = None if process is None else process.identity

    def wait(self) -> None:
        """Until it is over."""
        news = select.poll()
        news.register(self.told, select.POLLIN)
        while not self.over:
            if news.poll(max(0.0, self.until - time.monotonic()) * 1000):
                self.hear()

    def why_not(self) -> str:
        """What went wrong in it."""
        said = self.said.decode(errors="replace").splitlines()
        errors = (line.removeprefix("error ") for line in said if line.startswith("error "))
        return next(errors, "the cell ended, or hung, while it was made")

    def abandon(self) -> None:
        """Ends what there is of it."""
        if self.keeper is not None:
            send(self.keeper, signal.SIGKILL)
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.forked, signal.SIGKILL)
        os.close(self.go)
        self.close()

    def close(self) -> None:
        """All but `go`."""
        for descriptor in (self.told, self.record, self.forked):
            os.close(descriptor)


def _pid(said: bytes) -> int | None:
    """The doorway tells it, and the strategy that it is ready: who of them comes first is
    anybody's guess.
    """
    lines = said.split(b"\n")[:-1]
    return next((int(line) for line in lines if line.isdigit()), None)
