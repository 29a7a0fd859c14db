"""The warden's process: one selector loop, one turn at a time.

A turn hears everybody, does what is due, commits the journal once, and only then speaks.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from math import inf
from pathlib import Path
from selectors import DefaultSelector
from typing import IO

from . import address, handover
from .build import BUILD
from .handover import Handover
from .journal import Journal
from .protocol import (
    VERSION,
    Ack,
    Hello,
    Json,
    ListRuns,
    RefusedError,
    Request,
    Shutdown,
    Start,
    Stop,
    Upgrade,
)
from .recovery import recover
from .server import Server
from .warden import Warden

if sys.platform == "win32":
    from .windows import WindowsHost as LocalHost
elif sys.platform == "linux":
    from .linux import LinuxHost as LocalHost
else:
    from .posix import PosixHost as LocalHost

ALREADY_RUNNING = 3
IDLE = 10.0
PAUSE = 0.1
CALM = 2.0
"""Becoming another release takes a fraction of a second, in which nothing may be due."""


def main(
    folder: str,
    idle: float = IDLE,
    package: int | None = None,
    for_owner: bool = False,
) -> None:
    """`package` is what an earlier release handed over when it became us. `for_owner`: whether it
    is the folder's owner who commands us, though we are root.
    """
    home = Path(folder).absolute()
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    given = Handover() if package is None else handover.unpack(package)
    held = address.claim(home) if given.lock is None else os.fdopen(given.lock, "ab")
    if held is None:
        sys.exit(ALREADY_RUNNING)
    os.chdir(home)
    gc.freeze()  # so that collecting garbage copies no page that is shared with the keepers
    service = Service(home, idle, held, given, for_owner=for_owner)
    try:
        service.serve()
    finally:
        address.withdraw(home, held)


class Service:
    def __init__(
        self, home: Path, idle: float, lock: IO[bytes], given: Handover, *, for_owner: bool
    ) -> None:
        self._home = home
        self._for_owner = for_owner
        self._idle = idle
        self._lock = lock
        self._idle_since = time.monotonic()
        self._asked_to_leave = False
        self._leaving = False
        self._successor: Upgrade | None = None
        self._started_at = time.time()
        self._selector = DefaultSelector()
        self._host = LocalHost(self._selector, self._on_term, home, given.cells)
        self._journal = Journal(home / "journal.jsonl")
        held = {request.run for request in given.held}
        runs = recover(self._journal, self._host, time.monotonic(), held=held)
        self._warden = Warden(self._journal, self._host, runs, held=given.held)
        self._warden.commit()
        listener, token = address.listen(home, for_owner=for_owner)
        self._server = Server(listener, self._selector, self._journal, self._answer, token)

    def serve(self) -> None:
        _say(f"warden {os.getpid()} is up")
        while not self._is_over():
            try:
                self._turn()
            except Exception as error:  # noqa: BLE001 - one bad turn must not orphan every strategy
                sys.excepthook(type(error), error, error.__traceback__)
                time.sleep(PAUSE)
        self._server.close()
        self._journal.close()
        self._host.close()
        _say(f"warden {os.getpid()} ends, with no run left")

    def _turn(self) -> None:
        for key, _ in self._selector.select(self._timeout()):
            key.data()
        self._hear_wishes()
        self._warden.attend()
        self._server.flush()
        if self._successor is not None:
            self._become(self._successor)

    def _is_over(self) -> bool:
        now = time.monotonic()
        if self._warden.busy:
            self._idle_since = now
            return False
        if self._leaving:
            return True
        if self._server.connected:
            self._idle_since = now
        return now >= self._idle_since + self._idle

    def _timeout(self) -> float | None:
        turn = self._warden.next_turn()
        if not self._warden.busy and not self._server.connected:
            turn = min(turn, self._idle_since + self._idle)
        return None if turn == inf else max(0.0, turn - time.monotonic())

    def _on_term(self) -> None:
        """A signal handler: it may have interrupted anything, and only notes the wish."""
        self._asked_to_leave = True

    def _hear_wishes(self) -> None:
        if self._asked_to_leave and not self._leaving:
            self._leaving = True
            _say("asked to end; will do so when no run is left")

    def _answer(self, request: Request) -> Json:
        match request:
            case Hello():
                return self._introduce()
            case Start() if self._leaving and not self._journal.of(request.run):
                # It would wait for this one's end, too, and never be gone.
                raise RefusedError("leaving", "the host of the strategies shuts down")
            case Start():
                return self._warden.start(request)
            case Stop():
                return self._warden.stop(request)
            case ListRuns():
                return self._warden.list_runs()
            case Ack(seq):
                self._journal.acknowledge(seq)
            case Shutdown():
                self._shut_down()
            case Upgrade():
                self._prepare_to_become(request)
            case _:
                raise RefusedError("bad_request", type(request).__name__)
        return {}

    def _introduce(self) -> Json:
        return {
            "version": VERSION,
            "pid": os.getpid(),
            "boot_id": self._host.boot_id,
            "build": BUILD,
            "holds": True,
            "host": dict(self._host.facts),
            "started_at": self._started_at,
            "seq": self._journal.seq,
            "acknowledged": self._journal.acknowledged,
        }

    def _shut_down(self) -> None:
        if self._warden.busy:
            raise RefusedError("busy", "runs live")
        self._leaving = True

    def _prepare_to_become(self, successor: Upgrade) -> None:
        """Answered before it is done: whoever asked loses the connection, and comes back."""
        if not handover.POSSIBLE:
            raise RefusedError("unsupported", "this host's wardens end when they are idle")
        if self._leaving:
            raise RefusedError("leaving", "it was asked to end")
        if why_not := handover.check(successor):
            raise RefusedError("bad_request", why_not)
        self._successor = successor

    def _become(self, successor: Upgrade) -> None:
        """At a later turn, when the journal cannot be written, or it is no time for it."""
        if self._leaving:
            self._successor = None  # which would not know of it, and stay
            return
        if not self._warden.commit() or not self._warden.is_calm(CALM):
            return
        self._successor = None
        cells = self._host.held
        package = handover.pack(self._lock, self._warden.held, cells)
        _say(f"warden {os.getpid()} becomes another release")
        more = ", True" if self._for_owner else ""  # earlier releases know nothing of it
        call = f"main({str(self._home)!r}, {self._idle!r}, {package}{more})"
        kept = (package, self._lock.fileno(), *(cell.go for cell in cells.values()))
        try:
            handover.become(successor, call, kept)
        finally:
            os.close(package)


def _say(text: str) -> None:
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    try:
        sys.stderr.write(f"{moment} {text}\n")
        sys.stderr.flush()
    except OSError:
        pass  # a full disk silences the log, not the warden
