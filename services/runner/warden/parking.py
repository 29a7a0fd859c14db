"""Prepared starts that wait for their instant. The wall clock is passed in.

An instant is a moment of the wall clock, which may be set, and which goes on while the host
sleeps; what wakes us counts neither. So we look at the clock again at least once a second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import inf

from .protocol import Start

GLANCE = 1.0


class Parking:
    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._parked: dict[str, Start] = {}

    def __len__(self) -> int:
        return len(self._parked)

    def __iter__(self) -> Iterator[Start]:
        return iter(self._parked.values())

    def __contains__(self, run: str) -> bool:
        return run in self._parked

    def hold(self, request: Start) -> None:
        self._parked[request.run] = request

    def of(self, run: str) -> Start | None:
        return self._parked.get(run)

    def take(self, run: str) -> Start | None:
        return self._parked.pop(run, None)

    def due(self) -> list[Start]:
        """By their instants; of one instant, as they came."""
        now = self._clock()
        return sorted((one for one in self if _at(one) <= now), key=_at)

    def next_in(self) -> float:
        """Seconds until something is due, by a clock that may be set meanwhile."""
        return max(0.0, min(map(_at, self), default=inf) - self._clock())

    def wait(self, is_prepared: Callable[[str], bool]) -> float:
        """Seconds until the clock must be looked at. What is not prepared by then has to wait for
        that, which an event tells.
        """
        if not self._parked:
            return inf
        prepared = (_at(one) for one in self if is_prepared(one.run))
        return min(max(0.0, min(prepared, default=inf) - self._clock()), GLANCE)


def _at(request: Start) -> float:
    return -inf if request.at is None else request.at
