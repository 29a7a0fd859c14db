"""A warden that its host keeps going, not a runner.

    python -S -m services.runner.warden FOLDER

This process is the first of its PID namespace, or a unit of the system's: it starts the warden as
its child, and starts it anew when that dies, while strategies go on. SIGTERM means that the host
shuts down: every run walks its ladder, and is gone, with that as its reason, when this ends.
It may be root; whoever owns the folder commands it.

`--check` asks the folder's warden whether it answers.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

assert sys.platform == "linux"  # before what other platforms do not have

from .address import SOCKET
from .main import main
from .procfs import become_subreaper
from .protocol import Hello, Lines, ListRuns, RefusedError, Request, Stop, decode, encode
from .protocol import request_to_json as as_json

IDLE_S = 1_000_000.0
"""It would end then, and be started anew."""
PAUSE_S = 0.2
"""Before what failed is tried again."""
ANSWER_S = 20.0
REASON = "host_shutdown"
HEARD = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)


class Keeping:
    """Keeps a warden alive in the folder. As a child: what it leaves when it dies becomes ours."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._warden = 0
        self._ended_with = 0
        """Negative: by this signal."""

    def until_asked_to_leave(self) -> None:
        become_subreaper()
        signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)
        self._start()
        while signal.sigwait(HEARD) == signal.SIGCHLD:
            if self._has_ended():
                time.sleep(PAUSE_S)
                self._start()
        self._shut_down()

    def _shut_down(self) -> None:
        """A warden that is killed meanwhile is started anew: there may be runs that live."""
        told: set[str] = set()
        while True:
            os.kill(self._warden, signal.SIGTERM)  # it starts nothing more, and ends as the last
            while not self._has_ended():
                with suppress(OSError, RefusedError):
                    self._stop_all_but(told)
                signal.sigtimedwait({signal.SIGCHLD}, PAUSE_S)
            if self._ended_with >= 0:
                return
            self._start()

    def _start(self) -> None:
        self._warden = os.fork()
        if self._warden == 0:
            status = 1
            try:
                main(str(self._folder), IDLE_S, for_owner=True)
                status = 0
            except BaseException as error:  # noqa: BLE001 - a fork never goes on as who keeps it
                sys.excepthook(type(error), error, error.__traceback__)
            finally:
                os._exit(status)

    def _has_ended(self) -> bool:
        """Buries all who have ended; tells whether the warden is among them."""
        ended = False
        with suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                if found[0] == self._warden:
                    ended, self._ended_with = True, os.waitstatus_to_exitcode(found[1])
        return ended

    def _stop_all_but(self, told: set[str]) -> None:
        """Those that were not told before; then they were. Raises OSError, RefusedError."""
        with _connected(self._folder) as warden:
            for run in warden.ask(ListRuns())["runs"]:
                if run["run"] not in told:
                    ladder = tuple((name, wait_s) for name, wait_s in run["ladder"])
                    warden.ask(Stop(run["run"], REASON, ladder))
                    told.add(run["run"])


class _Connection:
    def __init__(self, door: socket.socket) -> None:
        self._door = door
        self._lines = Lines()

    def ask(self, request: Request) -> dict[str, Any]:
        """Raises RefusedError; OSError when it does not answer."""
        self._door.sendall(encode({"id": 1, **as_json(request)}))
        found: list[bytes] = []
        while not found:
            data = self._door.recv(1 << 16)
            if not data:
                raise ConnectionError("the warden closed the connection")
            found = self._lines.feed(data)
        answer = cast("dict[str, Any]", decode(found[0]))
        if "error" in answer:
            raise RefusedError(answer["error"]["code"], answer["error"]["detail"])
        return answer["ok"]


@contextmanager
def _connected(folder: Path) -> Generator[_Connection]:
    with socket.socket(socket.AF_UNIX) as door:
        door.settimeout(ANSWER_S)
        door.connect(str(folder / SOCKET))
        yield _Connection(door)


def check(folder: Path) -> int:
    """The exit code."""
    try:
        with _connected(folder) as warden:
            warden.ask(Hello())
    except (OSError, RefusedError) as error:
        sys.stderr.write(f"the warden does not answer: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    *options, place = sys.argv[1:]
    if options == ["--check"]:
        sys.exit(check(Path(place)))
    Keeping(Path(place)).until_asked_to_leave()
