"""Masks secret values where they would be seen. Pure; works on bytes, and keeps every length.

What is masked does not depend on how a log is cut into pieces: a byte is masked when it lies in
any occurrence of a value in the whole log. So whoever reads a piece looks `Mask.reach` bytes
further on both sides.

Masked are values of SHORTEST characters or more, as they are and without the space around them;
of a value with several lines also each line of SHORTEST_LINE characters or more by itself, since
whatever prints it may put something between them.
"""

from array import array
from collections.abc import Iterable, Sequence
from functools import cached_property, lru_cache

SHORTEST = 4
SHORTEST_LINE = 8
STAR = b"*"
PROBE = 8
TRIES = 64
"""So many places are looked at one by one in the time of a pass over the pattern."""
FEW = 256
"""So many are searched for one by one in the time of a pass over the data."""


class Mask:
    """Hides these values, and whatever part of a log is one of them."""

    def __init__(self, values: Iterable[str]) -> None:
        patterns = {piece.encode() for value in values for piece in pieces(value)}
        self.patterns = tuple(sorted(patterns, key=lambda one: (-len(one), one)))

    @cached_property
    def reach(self) -> int:
        """How many bytes beyond a piece decide on what is masked in it."""
        return max((len(pattern) - 1 for pattern in self.patterns), default=0)

    def masked(self, data: bytes) -> bytes:
        """The same number of bytes, with a star for each that belongs to a value."""
        masked = bytearray(data)
        for pattern in self._candidates(data):
            for start, end in _occurrences(data, pattern):
                masked[start:end] = STAR * (end - start)
        return bytes(masked)

    def _candidates(self, data: bytes) -> Iterable[bytes]:
        """Those to search for: of many, only those whose beginning is there, which one pass over
        the data tells of all.
        """
        if len(self.patterns) <= FEW:
            return self.patterns
        there = {data[at : at + PROBE] for at in range(len(data) - PROBE + 1)}
        return [p for p in self.patterns if len(p) < PROBE or p[:PROBE] in there]

    def text(self, text: str) -> str:
        return self.masked(text.encode(errors="replace")).decode(errors="replace")

    def unfinished(self, data: bytes) -> int:
        """How many bytes at the end may be the beginning of a value that is still being written."""
        longest = 0
        for pattern in self.patterns:
            longest = max(longest, _unfinished(data, pattern, longest))
        return longest

    def beheaded(self, data: bytes) -> int:
        """How many bytes at the beginning may be the end of a value whose beginning was dropped."""
        turned, longest = data[: self.reach][::-1], 0
        for pattern in self.patterns:
            longest = max(longest, _unfinished(turned, pattern[::-1], longest))
        return longest


NOTHING_TO_HIDE = Mask(())


def pieces(value: str) -> set[str]:
    """What is masked of a value: itself, and its lines."""
    stripped = value.strip()
    if len(stripped) < SHORTEST:
        return set()
    lines = (line.strip() for line in stripped.splitlines())
    return {stripped, *(line for line in lines if len(line) >= SHORTEST_LINE)}


def _occurrences(data: bytes, pattern: bytes) -> Iterable[tuple[int, int]]:
    """From where to where the pattern lies, alone or overlapping itself.

    In time that grows with the data alone, also for a pattern like `aaaaaaaa`: that it lies one
    period further too is told by one period's bytes, and else it lies further than all but one.
    """
    start = data.find(pattern)
    while start >= 0:
        period, end = _period(pattern), start + len(pattern)
        while data[end : end + period] == pattern[-period:]:
            end += period
        yield start, end
        start = data.find(pattern, end - period + 1)


@lru_cache(256)
def _period(pattern: bytes) -> int:
    """The smallest distance at which the pattern can follow itself."""
    return len(pattern) - _borders(pattern)[-1]


@lru_cache(16)
def _borders(pattern: bytes) -> Sequence[int]:
    """For each byte, how long a prefix ends there that does not begin at the beginning: the prefix
    function of Knuth, Morris and Pratt.
    """
    borders = array("I", bytes(4 * len(pattern)))
    border = 0
    for index in range(1, len(pattern)):
        while border and pattern[index] != pattern[border]:
            border = borders[border - 1]
        border += pattern[index] == pattern[border]
        borders[index] = border
    return borders


def _unfinished(data: bytes, pattern: bytes, at_least: int) -> int:
    """The longest proper prefix of the pattern, of more than `at_least`, that ends the data; or
    one that is shorter.

    In time that grows with the pattern alone, also for one that repeats itself.
    """
    tail = data[max(0, len(data) - len(pattern) + 1) :]
    probe, tries = pattern[:PROBE], 0
    start = tail.find(probe)
    while 0 <= start < len(tail) - at_least:
        if pattern.startswith(tail[start:]):
            return len(tail) - start
        tries += 1
        if tries >= TRIES:
            return _prefix_at_end(tail[start:], pattern)
        start = tail.find(probe, start + 1)
    shorter = min(len(probe) - 1, len(tail))
    return next((n for n in range(shorter, at_least, -1) if tail.endswith(pattern[:n])), 0)


def _prefix_at_end(data: bytes, pattern: bytes) -> int:
    """How long the longest prefix of the pattern is that ends the data, which is shorter."""
    borders, length = _borders(pattern), 0
    for byte in data:
        while length and byte != pattern[length]:
            length = borders[length - 1]
        length += byte == pattern[length]
    return length
