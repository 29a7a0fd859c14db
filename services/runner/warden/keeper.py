"""PID 1 of a cell: it reaps, passes signals on, and writes down how the strategy ended.

When it ends, the kernel ends all that is left in the cell, however it hid. It outlives the
warden, and what it writes down is there for the next one: with a keeper no end goes unseen.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from typing import NoReturn

assert sys.platform == "linux"

PASSED_ON = (
    *(signal.SIGHUP, signal.SIGINT, signal.SIGQUIT),
    *(signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM),
)
FAREWELL_S = 5.0
"""How long what a strategy left behind may take to end, once it is told to."""
PAUSE_S = 0.02
EVERYBODY = -1
"""Of the PID namespace that the caller is in: outside of a cell, that is the whole host."""


def be_first() -> None:
    """Raises OSError unless we are PID 1 of a cell. Nothing here may act before, or without it."""
    if os.getpid() != 1:
        raise OSError("the cell has no processes of its own")


def keep(main: int, record: int) -> NoReturn:
    """For as long as there is anybody. Signals are blocked until they can be passed on."""
    be_first()
    for number in PASSED_ON:
        signal.signal(number, _pass_on)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    while True:
        pid, status = os.wait()
        if pid == main:
            break
    with suppress(OSError):  # the disk broke: who is left is sent away all the same
        os.write(record, f"end {status} {time.time()}\n".encode())
    _say_farewell()
    os._exit(0)


def _pass_on(number: int, _frame: object) -> None:
    be_first()
    with suppress(ProcessLookupError):
        os.kill(EVERYBODY, number)


def _say_farewell() -> None:
    _pass_on(signal.SIGTERM, None)
    until = time.monotonic() + FAREWELL_S
    with suppress(ChildProcessError):  # nobody is left
        while time.monotonic() < until:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(PAUSE_S)
