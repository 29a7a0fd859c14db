"""Points of time in a fixed room: the newest push out the oldest."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from itertools import groupby
from math import isnan, nan
from typing import NamedTuple

COLUMNS = (
    ("cpu_percent", "mean"),
    ("cpu_percent", "max"),
    ("memory_bytes", "mean"),
    ("memory_bytes", "max"),
    ("processes", "max"),
    ("disk_bytes", "max"),
    ("read_bytes_s", "mean"),
    ("written_bytes_s", "mean"),
)
"""What is kept of each point: of which figure, and how several become one."""
WIDTH = len(COLUMNS)


class Row(NamedTuple):
    """`at` is where its span begins, in seconds since 1970; a value that nobody told is NaN."""

    at: int
    values: Sequence[float]


class Ring:
    """`size` rows of `step_s` seconds each, at 36 bytes. Values have seven digits."""

    def __init__(self, step_s: int, size: int) -> None:
        self.step_s = step_s
        self._size = size
        self._clear()

    def _clear(self) -> None:
        self._times = array("I")
        self._values = array("f")
        self._last = -1
        """Where the newest row is; after it comes the oldest, once all room is taken."""
        self._count = 0
        """How many points make up the newest row."""

    def __len__(self) -> int:
        return len(self._times)

    @property
    def room(self) -> int:
        """Bytes that its rows take up."""
        rows, values = self._times, self._values
        return len(rows) * rows.itemsize + len(values) * values.itemsize

    def add(self, at: float, point: Sequence[float]) -> None:
        """Seconds since 1970, and one value a column."""
        begins = int(at) // self.step_s * self.step_s
        newest = self._times[self._last] if self._times else -1
        if begins < newest - self.step_s:
            self._clear()  # the clock was set back: what lies ahead of it is no history
        elif begins <= newest:
            self._merge(point)
            return
        self._append(begins, point)

    def rows(self, since: float) -> Iterator[Row]:
        """Those that end after this, oldest first."""
        count = len(self._times)
        for n in range(self._last + 1, self._last + 1 + count):
            place = n % count
            if self._times[place] + self.step_s > since:
                values = self._values[place * WIDTH : (place + 1) * WIDTH]
                yield Row(self._times[place], values)

    def _append(self, begins: int, point: Sequence[float]) -> None:
        self._count = 1
        self._last = (self._last + 1) % self._size
        if self._last == len(self._times):
            self._times.append(begins)
            self._values.extend(point)
        else:
            self._times[self._last] = begins
            self._values[self._last * WIDTH : (self._last + 1) * WIDTH] = array("f", point)

    def _merge(self, point: Sequence[float]) -> None:
        self._count += 1
        first = self._last * WIDTH
        for column, value in enumerate(point):
            before = self._values[first + column]
            self._values[first + column] = _joined(column, before, value, self._count)


def merged(rows: Iterator[Row], step_s: int) -> Iterator[Row]:
    """Rows of longer spans."""
    for begins, group in groupby(rows, lambda row: row.at // step_s * step_s):
        values = [nan] * WIDTH
        for count, row in enumerate(group, start=1):
            values = [_joined(c, values[c], row.values[c], count) for c in range(WIDTH)]
        yield Row(begins, values)


def _joined(column: int, before: float, value: float, count: int) -> float:
    """Of `count` points with the newest. What nobody told changes nothing."""
    if isnan(before) or isnan(value):
        return value if isnan(before) else before
    if COLUMNS[column][1] == "max":
        return max(before, value)
    return before + (value - before) / count
