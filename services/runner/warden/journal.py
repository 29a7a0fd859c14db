"""What happened, on disk before anybody is told.

One JSON line an entry. An entry is pending until a commit has written and fsynced it; a
commit that fails (a full disk) takes nothing back and is tried again. A torn end is cut
off when reading. Epochs are remembered for good; a run, until its exit is acknowledged.
"""

from __future__ import annotations

import os
import sys
import time
from bisect import bisect_right
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from .protocol import Entry, Json, RefusedError, decode, encode

LIMIT = 1 << 20
COMPACTED = "compacted"
FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)


class Journal:
    def __init__(self, path: Path, *, limit: int = LIMIT) -> None:
        self._path = path
        self._limit = self._bound = limit
        self.acknowledged = self._noted = 0
        self._entries: list[Entry] = []
        self._pending: list[Entry] = []
        self._runs: defaultdict[str, list[Entry]] = defaultdict(list)
        self.epochs: dict[str, int] = {}
        self.seq = 0
        self._file = os.open(path, FLAGS, 0o600)
        self._size = self._read()
        os.ftruncate(self._file, self._size)
        sync_folder(path.parent)

    def append(self, kind: str, run: str, strategy: str, epoch: int, **facts: Any) -> Entry:
        self.seq += 1
        entry = Entry(self.seq, time.time(), kind, run, strategy, epoch, **facts)
        self._pending.append(entry)
        self._runs[run].append(entry)
        return entry

    def withdraw(self, entry: Entry) -> None:
        self._pending.remove(entry)
        self._runs[entry.run].remove(entry)

    def commit(self) -> bool:
        """False when nothing could be written; then nobody may be told."""
        if not self._pending:
            return True
        data = b"".join(encode(entry.to_json()) for entry in self._pending)
        try:
            _write_all(self._file, self._size, data)
            os.fsync(self._file)
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._file, self._size)
            return False
        self._size += len(data)
        for entry in self._pending:
            self._remember(entry)
        self._pending.clear()
        return True

    def after(self, seq: int, at_most: int) -> list[Entry]:
        first = bisect_right(self._entries, seq, key=lambda entry: entry.seq)
        return self._entries[first : first + at_most]

    def of(self, run: str) -> list[Entry]:
        return self._runs.get(run, [])

    def is_pending(self, run: str) -> bool:
        """Whether anything of this run is not on disk."""
        return any(entry.run == run for entry in self._pending)

    def unfinished(self) -> dict[str, list[Entry]]:
        return {run: list(told) for run, told in self._runs.items() if not _is_over(told)}

    def acknowledge(self, seq: int) -> None:
        self.acknowledged = max(self.acknowledged, seq)
        if self._size > self._bound:
            self._compact()

    def close(self) -> None:
        """Compacted, so that a later life does not tell again what is known."""
        if self.acknowledged > self._noted and not self._pending:
            self._compact()
        os.close(self._file)

    def _remember(self, entry: Entry) -> None:
        self._entries.append(entry)
        self.epochs[entry.strategy] = max(entry.epoch, self.epochs.get(entry.strategy, -1))

    def _read(self) -> int:
        """How much of the file is good: all up to the last line that can be read."""
        *lines, _torn = self._path.read_bytes().split(b"\n")
        good = at = 0
        for line in lines:
            at += len(line) + 1
            with suppress(RefusedError):
                self._recall(decode(line))
                good = at
        return good

    def _recall(self, message: Json) -> None:
        if message.get("kind") == COMPACTED:
            self.seq = cast("int", message["seq"])
            self.epochs = cast("dict[str, int]", message["epochs"])
            self.acknowledged = self._noted = cast("int", message["acknowledged"])
            return
        entry = Entry.from_json(message)
        self._remember(entry)
        self._runs[entry.run].append(entry)
        self.seq = max(self.seq, entry.seq)

    def _compact(self) -> None:
        done = {run for run, told in self._runs.items() if self._is_done(told)}
        kept = [entry for entry in self._entries if entry.run not in done]
        head: Json = {
            "kind": COMPACTED,
            "seq": self.seq,
            "acknowledged": self.acknowledged,
            "epochs": self.epochs,
        }
        lines = [encode(head), *(encode(entry.to_json()) for entry in kept)]
        if not self._replace(b"".join(lines)):
            return
        self._entries = kept
        self._noted = self.acknowledged
        for run in done:
            del self._runs[run]
        self._bound = max(self._limit, 2 * self._size)

    def _is_done(self, told: list[Entry]) -> bool:
        return _is_over(told) and told[-1].seq <= self.acknowledged

    def _replace(self, data: bytes) -> bool:
        draft = self._path.with_suffix(".draft")
        try:
            _write_new(draft, data)
            os.close(self._file)  # Windows replaces no open file
            try:
                draft.replace(self._path)
                self._size = len(data)
            finally:
                self._file = os.open(self._path, FLAGS, 0o600)
            sync_folder(self._path.parent)
        except OSError:
            return False
        return True


def _is_over(told: list[Entry]) -> bool:
    return any(entry.kind == "exited" for entry in told)


def _write_new(path: Path, data: bytes) -> None:
    file = os.open(path, FLAGS | os.O_TRUNC, 0o600)
    try:
        _write_all(file, 0, data)
        os.fsync(file)
    finally:
        os.close(file)


def _write_all(file: int, at: int, data: bytes) -> None:
    """At a place, not at the end: a failed write may have left a piece of a line there."""
    os.lseek(file, at, os.SEEK_SET)
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(file, rest) :]


def sync_folder(folder: Path) -> None:
    if sys.platform != "win32":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
