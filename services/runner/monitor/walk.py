"""What a folder holds, counted a little at a time, while its strategy changes it under our feet.

Each folder is reached by descriptors, from the first one down: no link that takes the place of a
folder is followed, and no path is too long.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from services.runner.monitor.samples import UNCOUNTABLE

STEP = 2_000
"""Entries that are looked at before other folders have their turn."""
LEAST = 4096
"""Bytes that an entry counts at least: files without a byte use up a disk, too."""
MOST_PENDING = 100_000
"""Folders found and not looked into yet."""
MOST_LINKED = 100_000
"""Files of several names that are counted once; of those beyond, each name counts."""
MOST_DEEP = 256
"""Folders in folders. More, or more pending, are UNCOUNTABLE: they would take our memory."""


class Place(NamedTuple):
    """A folder that was found, by its name in the one above."""

    name: str
    above: Place | None = None
    depth: int = 0

    @property
    def names(self) -> list[str]:
        """From the first folder down."""
        place, names = self, [self.name]
        while place := place.above:
            names.append(place.name)
        return names[::-1]


class Entries(Protocol):
    """What `os.scandir` gives."""

    def __next__(self) -> os.DirEntry[str]: ...
    def __iter__(self) -> Iterator[os.DirEntry[str]]: ...
    def close(self) -> None: ...


class Listing:
    """A folder that is open. OSError when there is none, or it may not be read."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._folder: int | None = None
        if sys.platform == "win32":
            path = os.path.join(*place.names)  # noqa: PTH118
            told = os.lstat(path)
            if told.st_file_attributes & stat.FILE_ATTRIBUTE_REPARSE_POINT:
                raise NotADirectoryError(path)  # a junction, which looks like a folder
            self.entries: Entries = os.scandir(path)
        else:
            self._folder = _descend(place.names)
            try:
                told = os.fstat(self._folder)
                # It copies the descriptor; looks at its entries go through ours.
                self.entries = os.scandir(self._folder)
            except OSError:
                os.close(self._folder)
                raise
        self.device = told.st_dev

    def close(self) -> None:
        self.entries.close()
        if self._folder is not None:
            os.close(self._folder)


class Walk:
    """The sum of what a folder holds, each file once, whatever its names. Links are not followed,
    other file systems not entered, and nothing is opened but folders, one at a time.
    """

    def __init__(self, folder: Path) -> None:
        self.bytes = 0
        self.took_s = 0.0
        self._pending = [Place(str(folder))]
        self._open: Listing | None = None
        self._device: int | None = None
        self._linked: set[int] = set()

    def step(self, most: int = STEP) -> bool:
        """Look at so many entries more. True when all of it was seen, or it is UNCOUNTABLE."""
        began = time.perf_counter()
        for _ in range(most):
            entry = next(self._open.entries, None) if self._open else None
            if entry is not None and self._open is not None:
                self._look(entry, self._open.place)
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

    def _enter(self, place: Place) -> None:
        """A folder that may not be read, or has gone, holds nothing."""
        with contextlib.suppress(OSError):
            self._open = Listing(place)
            if self._device is None:
                self._device = self._open.device
            if self._open.device != self._device:
                self.close()

    def _look(self, entry: os.DirEntry[str], within: Place) -> None:
        try:
            told = entry.stat(follow_symlinks=False)
        except OSError:
            return
        if stat.S_ISDIR(told.st_mode):
            if len(self._pending) >= MOST_PENDING or within.depth >= MOST_DEEP:
                self._give_up()
                return
            self._pending.append(Place(entry.name, within, within.depth + 1))
        elif told.st_nlink > 1:
            if told.st_ino in self._linked:
                return
            if len(self._linked) < MOST_LINKED:
                self._linked.add(told.st_ino)
        self.bytes += _held(told)

    def _give_up(self) -> None:
        self.bytes = UNCOUNTABLE
        self._pending.clear()
        self.close()


def _held(told: os.stat_result) -> int:
    """What it takes up on the disk: a file of holes takes up little."""
    return max(LEAST, getattr(told, "st_blocks", told.st_size // 512) * 512)


if sys.platform != "win32":
    FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW

    def _descend(names: list[str]) -> int:
        """A descriptor of the last of them. OSError, also when one of them is no folder now."""
        folder = os.open(names[0], FLAGS)
        for name in names[1:]:
            try:
                below = os.open(name, FLAGS, dir_fd=folder)
            finally:
                os.close(folder)
            folder = below
        return folder
