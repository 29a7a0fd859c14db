"""The last lines of a run's log, masked: what is told of how it ended."""

from dataclasses import dataclass
from pathlib import Path

from openbell.redaction import SHORTEST, STAR, Mask
from services.runner.logs import files

MOST_BYTES = 16_384
LINES = 50
HEAD, TAIL = 1536, 512
"""Bytes that are told of a line that is longer than both."""
LEFT_OUT = b" ... "
BLOCK = 64 * 1024
FURTHEST = 64 * 1024**2
"""So far back the beginning of a line is looked for: some 20 ms."""
HOLE = 512
"""What was dropped reads as NULs, a multiple of a disk's block of them."""


def last_lines(path: Path, mask: Mask, n: int = LINES) -> tuple[str, ...]:
    """The newest `n` lines, as far as they fit into MOST_BYTES; none, if there is no log.

    Masked before anything is cut. Of a long line its beginning and its end: so that it hides
    neither what it says nor what was said before it.
    """
    try:
        descriptor = files.open_plain(path)
    except FileNotFoundError:
        return ()
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor, not a path
        text = _told(file.fileno(), file.seek(0, 2), mask, n).decode(errors="replace")
    bounded = text.encode()[-MOST_BYTES:].decode(errors="ignore")  # a bad byte became three
    lines = bounded.splitlines()
    return tuple(lines[max(0, len(lines) - n) :])


@dataclass(frozen=True, slots=True)
class _Line:
    begin: int
    end: int

    @property
    def left_out(self) -> tuple[int, int] | None:
        """From where to where it is not told."""
        fits = self.end - self.begin <= HEAD + TAIL
        return None if fits else (self.begin + HEAD, self.end - TAIL)


def _told(descriptor: int, size: int, mask: Mask, n: int) -> bytes:
    lines, dropped = _find(descriptor, size, n)
    if not lines:
        return b""
    gaps = [gap for line in lines if (gap := line.left_out)]
    begins = [lines[0].begin, *(gap[1] for gap in gaps)]
    ends = [*(gap[0] for gap in gaps), size]
    clear = _clear(descriptor, lines[0].begin if dropped else None, size, mask)
    pieces = zip(begins, ends, strict=True)
    return LEFT_OUT.join(_masked(descriptor, *piece, mask, clear) for piece in pieces)


def _find(descriptor: int, size: int, n: int) -> tuple[list[_Line], bool]:
    """The last lines, oldest first; no more than are told. And whether what lay before them was
    dropped.
    """
    found: list[_Line] = []
    takes, end, at = 0, size, size
    if size and files.read_at(descriptor, size - 1, size) == b"\n":
        end = at = size - 1
    while len(found) < n and takes < MOST_BYTES and at > size - FURTHEST:
        below = max(0, at - BLOCK, size - FURTHEST)
        data = files.read_at(descriptor, below, at)
        hole = _last_hole(data)
        newline = data.rfind(b"\n", hole + 1)
        if newline >= 0:
            begin = at = below + newline
            begin += 1
        elif hole >= 0:
            begin = _behind_nuls(descriptor, below + hole + HOLE)
        elif below in {0, size - FURTHEST}:
            begin = below
        else:
            at = below
            continue
        found.append(_Line(begin, end))
        takes += min(end - begin, HEAD + TAIL) + 1
        if newline < 0:
            return found[::-1], hole >= 0
        end = at
    return found[::-1], False


def _last_hole(data: bytes) -> int:
    """Where the last HOLE NULs begin; -1 when there are not so many in a row.

    So many hold one of each HOLE bytes: only around those that are NULs is looked. A search for
    them takes a second for a megabyte of what was made for it.
    """
    for at in range((len(data) - 1) // HOLE * HOLE, -1, -HOLE):
        if data[at]:
            continue
        before, behind = data[max(0, at - HOLE) : at], data[at : at + HOLE]
        begin = at - (len(before) - len(before.rstrip(b"\0")))
        end = at + len(behind) - len(behind.lstrip(b"\0"))
        if end - begin >= HOLE:
            return end - HOLE
    return -1


def _behind_nuls(descriptor: int, begin: int) -> int:
    """A block of ours may have ended in the middle of what was dropped."""
    data = files.read_at(descriptor, begin, begin + HOLE)
    return begin + len(data) - len(data.lstrip(b"\0"))


def _clear(descriptor: int, dropped: int | None, size: int, mask: Mask) -> range:
    """All but halves of secrets: what is left behind what was dropped may begin with the end of
    one, and who was killed in the middle of a write leaves the beginning of one.
    """
    begin, end = 0, size
    if dropped is not None:
        begin = dropped + mask.beheaded(files.read_at(descriptor, dropped, dropped + mask.reach))
    half = mask.unfinished(files.read_at(descriptor, max(0, size - mask.reach), size))
    if half >= SHORTEST:
        end = size - half
    return range(begin, end)


def _masked(descriptor: int, begin: int, end: int, mask: Mask, clear: range) -> bytes:
    """As it is masked in the whole log."""
    below = max(0, begin - mask.reach)
    data = mask.masked(files.read_at(descriptor, below, end + mask.reach))[begin - below :]
    cut = min(end, max(begin, clear.start)) - begin
    rest = max(cut, min(end, clear.stop) - begin)
    return STAR * cut + data[cut:rest] + STAR * (end - begin - rest)
