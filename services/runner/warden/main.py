"""The warden's process: one selector loop, one turn at a time.

A turn hears everybody, does what is due, commits the journal once, and only then speaks.
"""

from __future__ import annotations

import os
import sys
import time
from math import inf
from pathlib import Path
from selectors import DefaultSelector

from . import address
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
)
from .recovery import recover
from .server import Server
from .warden import Warden

if sys.platform == "win32":
    from .windows import WindowsHost as LocalHost
else:
    from .posix import PosixHost as LocalHost

ALREADY_RUNNING = 3
IDLE = 10.0
PAUSE = 0.1


def main(folder: str, idle: float = IDLE) -> None:
    home = Path(folder).absolute()
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    held = address.claim(home)
    if held is None:
        sys.exit(ALREADY_RUNNING)
    os.chdir(home)
    try:
        Service(home, idle).serve()
    finally:
        address.withdraw(home, held)


class Service:
    def __init__(self, home: Path, idle: float) -> None:
        self._idle = idle
        self._idle_since = time.monotonic()
        self._asked_to_leave = False
        self._leaving = False
        self._started_at = time.time()
        self._selector = DefaultSelector()
        self._host = LocalHost(self._selector, self._on_term)
        self._journal = Journal(home / "journal.jsonl")
        runs = recover(self._journal, self._host, time.monotonic())
        self._warden = Warden(self._journal, self._host, runs)
        self._journal.commit()
        listener, token = address.listen(home)
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
        _say(f"warden {os.getpid()} ends, with no run left")

    def _turn(self) -> None:
        for key, _ in self._selector.select(self._timeout()):
            key.data()
        self._hear_wishes()
        self._warden.attend()
        self._server.flush()

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
            case _:
                raise RefusedError("bad_request", type(request).__name__)
        return {}

    def _introduce(self) -> Json:
        return {
            "version": VERSION,
            "pid": os.getpid(),
            "boot_id": self._host.boot_id,
            "holds": True,
            "started_at": self._started_at,
            "seq": self._journal.seq,
            "acknowledged": self._journal.acknowledged,
        }

    def _shut_down(self) -> None:
        if self._warden.busy:
            raise RefusedError("busy", "runs live")
        self._leaving = True


def _say(text: str) -> None:
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    try:
        sys.stderr.write(f"{moment} {text}\n")
        sys.stderr.flush()
    except OSError:
        pass  # a full disk silences the log, not the warden
