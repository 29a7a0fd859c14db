"""How much the folders of runs hold, counted a little at a time.

A folder may hold millions of files: a walk goes on where it had stopped, and what it has found by
then counts as soon as that alone is too much.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from math import inf
from pathlib import Path

import structlog

from services.runner.monitor.walk import Walk

MB = 1024**2
EVERY_S = 5
SOONEST_S = 1
SHARE = 20
"""A walk that takes long is made so much more seldom: it has a twentieth of one processor."""

log = structlog.get_logger()


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
