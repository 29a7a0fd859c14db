"""When a file last changed, by our own clock: the host's may jump."""

from __future__ import annotations

import os
from math import inf
from pathlib import Path


class Trace:
    """Looked at again and again. Before the first look its time counts, by the host's clock."""

    def __init__(self) -> None:
        self.at = -inf
        """Monotonic seconds; never, while there is no such file."""
        self._seen: int | None = None

    def look_at_size(self, file: Path, now: float, wall: float) -> None:
        """Its time would not do: dropping old lines of a log changes that, too."""
        if told := _stat(file):
            self._look(told.st_size, told.st_mtime, now, wall)

    def look_at_time(self, file: Path, now: float, wall: float) -> None:
        if told := _stat(file):
            self._look(told.st_mtime_ns, told.st_mtime, now, wall)

    def _look(self, seen: int, changed_at: float, now: float, wall: float) -> None:
        if self._seen is None:
            self.at = now - max(0.0, wall - changed_at)
        elif seen != self._seen:
            self.at = now
        self._seen = seen


def _stat(file: Path) -> os.stat_result | None:
    try:
        return file.stat(follow_symlinks=False)
    except OSError:
        return None
