"""When a file last changed, by our own clock: the host's may jump, and tells nothing of the time in
which the whole machine stood still.
"""

from __future__ import annotations

import os
from math import inf
from pathlib import Path


class Trace:
    """Looked at again and again. What it was before the first look says nothing."""

    def __init__(self) -> None:
        self.at = -inf
        """Monotonic seconds; never, while there is no such file."""
        self._seen: int | None = None

    def look_at_size(self, file: Path, now: float) -> None:
        """Its time would not do: dropping old lines of a log changes that, too."""
        if told := _stat(file):
            self._look(told.st_size, now)

    def look_at_time(self, file: Path, now: float) -> None:
        if told := _stat(file):
            self._look(told.st_mtime_ns, now)

    def _look(self, seen: int, now: float) -> None:
        if seen != self._seen:
            self.at = now
        self._seen = seen


def _stat(file: Path) -> os.stat_result | None:
    try:
        return file.stat(follow_symlinks=False)
    except OSError:
        return None
