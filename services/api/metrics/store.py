"""What strategies used in the last 24 hours, in bounded memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from math import nan

from openbell.contracts.metrics import RunMetrics
from services.api.metrics.ring import COLUMNS, Ring, Row, merged

FINE_S, FINE = 5, 180
"""Of the last 15 minutes."""
COARSE_S, COARSE = 60, 1440
DAY_S = 86_400
MOST = 2_000
"""Strategies of which it is kept. One that ran all day takes up some 60 kB."""


class Series:
    """Of one strategy."""

    def __init__(self) -> None:
        self._fine = Ring(FINE_S, FINE)
        self._coarse = Ring(COARSE_S, COARSE)
        self.added_at = 0.0

    @property
    def room(self) -> int:
        """Bytes."""
        return self._fine.room + self._coarse.room

    def add(self, at: float, metrics: RunMetrics) -> None:
        values = {name: getattr(metrics, name) for name, _ in COLUMNS}
        point = [nan if values[name] is None else values[name] for name, _ in COLUMNS]
        self._fine.add(at, point)
        self._coarse.add(at, point)
        self.added_at = at

    def rows(self, since: float, step_s: int, now: float) -> tuple[int, Iterator[Row]]:
        """The step that is answered, and the rows: none finer than what is kept of that time.

        A caller's 15 minutes ago may be longer by the way to us, and by what its clock is behind.
        """
        fine = step_s < COARSE_S and since >= now - FINE_S * FINE - COARSE_S
        ring = self._fine if fine else self._coarse
        step_s = max(1, round(step_s / ring.step_s)) * ring.step_s
        return step_s, merged(ring.rows(since), step_s)


class Store:
    """By strategy. Whoever was told of least recently makes room."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._series: OrderedDict[str, Series] = OrderedDict()

    def __len__(self) -> int:
        return len(self._series)

    def add(self, at: float, metrics: RunMetrics) -> None:
        """`at` is in seconds since 1970, by our own clock."""
        series = self._series.pop(metrics.strategy_id, None) or Series()
        self._series[metrics.strategy_id] = series
        series.add(at, metrics)
        while len(self._series) > self._most or self._oldest.added_at < at - DAY_S:
            self._series.popitem(last=False)

    def of(self, strategy_id: str) -> Series:
        """An empty one, when nothing is known."""
        return self._series.get(strategy_id) or Series()

    @property
    def _oldest(self) -> Series:
        return next(iter(self._series.values()))
