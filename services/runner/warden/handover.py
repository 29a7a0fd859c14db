"""A warden becomes another release of itself: the same pid, with the same children.

What is only in its memory goes along in an anonymous file: the starts that it holds, whose
variables are written down nowhere else, and the descriptors that hold them. The rest is in the
journal, as after any death. Its clients lose their connections, and come back.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import IO, Any, NoReturn, cast

from .host import Cell, Identity
from .protocol import Start, Upgrade, request_from_json, request_to_json

POSSIBLE = sys.platform == "linux"
FLAGS = ("-I", "-S")
"""Of the interpreter: nothing of the user's environment or packages gets into a warden."""
PATIENCE_S = 5.0
"""How long its trial may take, in which nothing else is done."""


@dataclass(frozen=True, slots=True)
class Handover:
    lock: int | None = None
    held: tuple[Start, ...] = ()
    cells: Mapping[str, Cell] = field(default_factory=dict[str, Cell])


def check(successor: Upgrade) -> str | None:
    """Why it cannot be, found out by trying its program in a process apart: there is no way back
    from an exec.
    """
    command = [successor.python, *FLAGS, "-c", successor.program]
    try:
        tried = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE_S, check=False
        )
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        return str(error)
    if tried.returncode == 0:
        return None
    said = tried.stderr.decode(errors="replace").strip().rpartition("\n")[2]
    return f"{successor.python} ended with {tried.returncode}: {said[:500]}"


def pack(lock: IO[bytes], held: Iterable[Start], cells: Mapping[str, Cell]) -> int:
    """A descriptor that survives, with those that it names. OSError."""
    assert sys.platform == "linux"
    package = {
        "lock": lock.fileno(),
        "held": [request_to_json(request) for request in held],
        "cells": {run: [*cell.keeper, cell.go, cell.forked] for run, cell in cells.items()},
    }
    file = os.memfd_create("openbell-warden")
    with os.fdopen(file, "wb", closefd=False) as writer:
        writer.write(json.dumps(package).encode())
    return file


def become(successor: Upgrade, call: str, kept: Iterable[int]) -> NoReturn:
    """Runs `call` in the successor, which gets these descriptors. OSError, and we go on."""
    assert sys.platform == "linux"
    command = [successor.python, *FLAGS, "-c", f"{successor.program}{call}"]
    # A signal must find a handler, ours or the successor's: without one, it ends us.
    unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        for descriptor in kept:
            os.set_inheritable(descriptor, True)  # noqa: FBT003
        os.execv(successor.python, command)  # noqa: S606
    finally:
        for descriptor in kept:
            os.set_inheritable(descriptor, False)  # noqa: FBT003
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)


def unpack(file: int) -> Handover:
    with os.fdopen(file, "rb") as package:
        package.seek(0)
        told = cast("dict[str, Any]", json.load(package))
    held = tuple(cast("Start", request_from_json(request)) for request in told["held"])
    cells = {
        run: Cell(Identity(pid, ticks), go, *forked)
        for run, (pid, ticks, go, *forked) in told["cells"].items()
    }
    return Handover(told["lock"], held, cells)
