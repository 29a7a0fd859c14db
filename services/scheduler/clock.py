"""Notices that the wall clock jumped: it was set, or the host was suspended. Pure."""

from datetime import datetime, timedelta

TOLERANCE = timedelta(seconds=2)
"""More than a clock is slewed between two looks, and less than matters to a schedule."""


class ClockWatch:
    """Compares the wall clock with one that only goes on; `monotonic` counts seconds.

    That one may or may not count a suspend. If it does not, a suspend looks like a clock set
    forward, and is one to whoever waited for an instant.
    """

    def __init__(self, wall: datetime, monotonic: float) -> None:
        self._wall = wall
        self._monotonic = monotonic

    def jump(self, wall: datetime, monotonic: float) -> timedelta | None:
        """By how much the wall clock jumped since the last look; none if it did not."""
        passed = timedelta(seconds=monotonic - self._monotonic)
        jumped = wall - self._wall - passed
        self._wall, self._monotonic = wall, monotonic
        return jumped if abs(jumped) > TOLERANCE else None
