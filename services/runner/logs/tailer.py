"""Tells that a file has changed: inotify where there is one, a look now and then elsewhere."""

import asyncio
import contextlib
import ctypes
import errno
import os
import struct
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

from services.runner.logs.reading import POLL_S

COALESCE_S = 0.02
"""A script that prints a line a microsecond wakes us fifty times a second."""
IN_MODIFY = 0x002
IN_NONBLOCK, IN_CLOEXEC = os.O_NONBLOCK if sys.platform != "win32" else 0, 0o2000000
HEAD = struct.Struct("iIII")
MOST_READ = 65_536


class Watched:
    """One file, watched by whoever asked `Watches` for it."""

    def __init__(self, path: Path, *, told: bool) -> None:
        self.path = path
        self._told = told
        """Whether we are told of each change, and need not look."""
        self._changed = asyncio.Event()
        self._seen = self._look()

    def wake(self) -> None:
        self._changed.set()

    async def change(self, within_s: float) -> None:
        """Return soon after the file has changed since the last time, or when the time is over."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within_s
        if self._told:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    await self._changed.wait()
            if self._changed.is_set():
                await asyncio.sleep(COALESCE_S)
            self._changed.clear()
            return
        while (now := self._look()) == self._seen and loop.time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)
        self._seen = now

    def _look(self) -> tuple[int, int]:
        try:
            status = self.path.stat()
        except OSError:
            return 0, 0
        return status.st_size, status.st_mtime_ns


class Watches:
    """All files that this process watches, with one inotify instance: a user has but 128."""

    def __init__(self) -> None:
        self._inotify = -1
        self._watched: dict[int, Watched] = {}

    @contextlib.asynccontextmanager
    async def watching(self, path: Path) -> AsyncGenerator[Watched]:
        """The file need not be there yet. One path is watched once at a time."""
        number = self._add(path)
        watched = Watched(path, told=number is not None)
        if number is not None:
            self._watched[number] = watched
        try:
            yield watched
        finally:
            if number is not None and self._watched.pop(number, None):
                _libc().inotify_rm_watch(self._inotify, number)

    def close(self) -> None:
        if self._inotify >= 0:
            asyncio.get_running_loop().remove_reader(self._inotify)
            os.close(self._inotify)
            self._inotify = -1

    def _add(self, path: Path) -> int | None:
        """None where there is no inotify, no file, or no watch left: then we look."""
        if sys.platform != "linux":
            return None
        if self._inotify < 0 and not self._open():
            return None
        number = _libc().inotify_add_watch(self._inotify, os.fsencode(path), IN_MODIFY)
        return None if number < 0 or number in self._watched else number

    def _open(self) -> bool:
        try:
            self._inotify = _libc().inotify_init1(IN_NONBLOCK | IN_CLOEXEC)
            if self._inotify < 0:
                return False
            asyncio.get_running_loop().add_reader(self._inotify, self._read)
        except (AttributeError, NotImplementedError):
            return False
        return True

    def _read(self) -> None:
        try:
            events = os.read(self._inotify, MOST_READ)
        except OSError as error:
            if error.errno == errno.EAGAIN:
                return
            raise
        at = 0
        while at < len(events):
            number, _mask, _cookie, length = HEAD.unpack_from(events, at)
            at += HEAD.size + length
            if number in self._watched:
                self._watched[number].wake()
            elif number == -1:  # too many to tell: any may have changed
                for watched in self._watched.values():
                    watched.wake()


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
