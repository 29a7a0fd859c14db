"""What a cell writes down of itself: a few short lines in a file of its own.

    cell <keeper's pid> <start ticks> <boot id> <whole or bare>
    go
    end <wait status> <Unix seconds>

The first line is the warden's. `go` means that the strategy was executed, or nearly so; `end`
is only in the record of a whole cell, whose keeper saw it. `error` says why it could not be
executed. A line without its end says nothing; zeros follow the last one.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

assert sys.platform == "linux"  # before what other platforms do not have

from .host import End, Identity
from .posix import end_of

SPACE = 4096
"""Bytes of a record, taken ahead: a disk that is full by then keeps no end from being told."""


@dataclass(frozen=True, slots=True)
class Record:
    keeper: Identity
    boot_id: str
    whole: bool
    went: bool = False
    status: int | None = None
    error: str | None = None

    @property
    def end(self) -> End | None:
        if self.error is not None:
            return End(detail=self.error, executed=False)
        return None if self.status is None else end_of(self.status)


def opened(path: Path) -> int:
    """Whoever inherits it writes on where the last one stopped. OSError: then nothing is left."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, SPACE)
    except OSError:
        os.close(descriptor)
        path.unlink()
        raise
    return descriptor


def begin(descriptor: int, keeper: Identity, boot_id: str, *, whole: bool) -> None:
    kind = "whole" if whole else "bare"
    os.write(descriptor, f"cell {keeper.pid} {keeper.ticks} {boot_id} {kind}\n".encode())


def line_of(error: BaseException) -> bytes:
    said = " ".join(f"error {str(error) or type(error).__name__}".split())
    return said.encode(errors="replace")[: SPACE // 2] + b"\n"


def read(path: Path) -> Record | None:
    """None when nothing was begun."""
    try:
        return parse(path.read_text(errors="replace"))
    except FileNotFoundError:
        return None


def parse(text: str) -> Record | None:
    record: Record | None = None
    *lines, _torn = text.split("\n")
    for line in lines:
        with suppress(ValueError, IndexError):
            record = _told(record, *line.split(" "))
    return record


def _told(record: Record | None, kind: str, *words: str) -> Record | None:
    if kind == "cell":
        return Record(Identity(int(words[0]), int(words[1])), words[2], words[3] == "whole")
    if record is None:
        return None
    match kind:
        case "go":
            return replace(record, went=True)
        case "end":
            return replace(record, status=int(words[0]))
        case "error":
            return replace(record, error=" ".join(words))
        case _:
            return record
