"""How much the folders of runs hold, counted a little at a time.

A folder may hold millions of files: a walk goes on where it had stopped, and what it has found by
then counts as soon as that alone is too much.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import time
from collections.abc import Callable, Iterator
from math import inf
from pathlib import Path
from typing import Protocol

import structlog

MB = 1024**2
EVERY_S = 5
SOONEST_S = 1
SHARE = 20
"""A walk that takes long is made so much more seldom: it has a twentieth of one processor."""
STEP = 2_000
"""Entries that are looked at before other folders have their turn."""
MOST_PENDING = 100_000
"""Folders found and not looked into yet. Those beyond are left out: they are far more than any
strategy makes, and would take up our memory."""

log = structlog.get_logger()


class Entries(Protocol):
    """What `os.scandir` gives."""

    def __next__(self) -> os.DirEntry[str]: ...
    def __iter__(self) -> Iterator[os.DirEntry[str]]: ...
    def close(self) -> None: ...


class Walk:
    """The sum of what a folder holds, each file once, whatever its names. Links are not followed,
    other file systems not entered, and nothing is opened but folders, one at a time.
    """

    def __init__(self, folder: Path) -> None:
        self.bytes = 0
        self.took_s = 0.0
        self._pending = [folder]
        self._open: Entries | None = None
        self._device: int | None = None
        self._linked: set[int] = set()

    def step(self, most: int = STEP) -> bool:
        """Look at so many entries more. True when all of it was seen."""
        began = time.perf_counter()
        for _ in range(most):
            entry = next(self._open, None) if self._open else None
            if entry is not None:
                self._look(entry)
                continue
            self.close()
            if not self._pending:
                break
            self._enter(self._pending.pop())
        self.took_s += time.perf_counter() - began
        return not self._open and not self._pending

    def close(self) -> None:
        if self._open:
            self._open.close()
            self._open = None

    def _enter(self, folder: Path) -> None:
        """A folder that may not be read, or has gone, holds nothing."""
        with contextlib.suppress(OSError):
            told = folder.lstat()
            if self._device is None:
                self._device = told.st_dev
            if _is_folder(told) and told.st_dev == self._device:
                self._open = os.scandir(folder)

    def _look(self, entry: os.DirEntry[str]) -> None:
        try:
            told = entry.stat(follow_symlinks=False)
        except OSError:
            return
        if stat.S_ISDIR(told.st_mode):
            if len(self._pending) < MOST_PENDING:
                self._pending.append(Path(entry.path))
        elif told.st_nlink > 1:
            if told.st_ino in self._linked:
                return
            self._linked.add(told.st_ino)
        self.bytes += _held(told)


def _is_folder(told: os.stat_result) -> bool:
    """And no junction, which Windows shows as a folder."""
    junction = getattr(told, "st_file_attributes", 0) & stat.FILE_ATTRIBUTE_REPARSE_POINT
    return stat.S_ISDIR(told.st_mode) and not junction


def _held(told: os.stat_result) -> int:
    """What it takes up on the disk: a file of holes takes up little."""
    return getattr(told, "st_blocks", told.st_size // 512) * 512


def pause(before: int | None, now: int, since_s: float, took_s: float, most: int) -> float:
    """Seconds until the next walk: half of those after which it would hold too much, if it went on
    growing as it just did.
    """
    usual = max(EVERY_S, SHARE * took_s)
    if before is None or now <= before:
        return usual
    until_full = (most - now) * since_s / (now - before)
    return min(usual, max(SOONEST_S, until_full / 2, SHARE * took_s))


class _Folder:
    def __init__(self, folder: Path, most: int) -> None:
        self.folder = folder
        self.most = most
        self.size: int | None = None
        self.walk: Walk | None = None
        self.next_at = -inf
        self._seen_at = -inf

    def advance(self, clock: Callable[[], float]) -> None:
        """Take one step of the walk that is under way, or of a new one."""
        walk = self.walk = self.walk or Walk(self.folder)
        if walk.step():
            now = clock()
            self.next_at = now + pause(
                self.size, walk.bytes, now - self._seen_at, walk.took_s, self.most
            )
            self.size, self._seen_at, self.walk = walk.bytes, now, None
        elif walk.bytes > self.most:
            self.size = walk.bytes

    def close(self) -> None:
        if self.walk:
            self.walk.close()


class Folders:
    """The folders of all live runs."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._folders: dict[str, _Folder] = {}
        self._dropped: list[_Folder] = []
        self._leaving = False

    def watch(self, run_id: str, folder: Path, disk_mb: int) -> None:
        known = self._folders.get(run_id)
        if known is not None and known.folder == folder:
            known.most = disk_mb * MB
            return
        self.forget(run_id)
        self._folders[run_id] = _Folder(folder, disk_mb * MB)

    def forget(self, run_id: str) -> None:
        """Closed later: just now a thread may be in it."""
        if folder := self._folders.pop(run_id, None):
            self._dropped.append(folder)

    def size(self, run_id: str) -> int | None:
        """As of the last walk; None before the first has come to its end."""
        folder = self._folders.get(run_id)
        return folder.size if folder else None

    async def run(self) -> None:
        """Walk for ever. A folder on a disk that hangs stops this, and nothing else."""
        walking: asyncio.Future[None] | None = None
        try:
            while True:
                self._close_dropped()
                due = [one for one in self._folders.values() if one.next_at <= self._clock()]
                if due:
                    walking = asyncio.ensure_future(asyncio.to_thread(self._advance, due))
                    await asyncio.shield(walking)
                else:
                    await asyncio.sleep(SOONEST_S)
        finally:
            self._leaving = True
            if walking is not None:
                await asyncio.wait([walking])
            self._dropped += self._folders.values()
            self._close_dropped()

    def _advance(self, due: list[_Folder]) -> None:
        for folder in due:
            if self._leaving:
                return
            try:
                folder.advance(self._clock)
            except Exception:
                log.exception("a folder could not be measured", folder=str(folder.folder))
                folder.next_at = self._clock() + EVERY_S

    def _close_dropped(self) -> None:
        while self._dropped:
            self._dropped.pop().close()
