"""The last lines of a run's log, masked: what is told of how it ended."""

from pathlib import Path

from openbell.redaction import SHORTEST, STAR, Mask
from services.runner.logs import files

MOST_BYTES = 16_384
LINES = 50


def last_lines(path: Path, mask: Mask, n: int = LINES) -> tuple[str, ...]:
    """The newest `n` lines, as far as they fit into MOST_BYTES; none, if there is no log.

    Masked before anything is cut. Of a line that does not fit, its end.
    """
    try:
        text = _tail(path, mask).decode(errors="replace")
    except FileNotFoundError:
        return ()
    bounded = text.encode()[-MOST_BYTES:].decode(errors="ignore")  # a bad byte became three
    lines = bounded.splitlines()
    return tuple(lines[max(0, len(lines) - n) :])


def _tail(path: Path, mask: Mask) -> bytes:
    """Raises FileNotFoundError. What was dropped reads as NULs, and what is left may begin with
    the end of a secret. Who was killed in the middle of a write leaves the beginning of one.
    """
    descriptor = files.open_plain(path)
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor, not a path
        size = file.seek(0, 2)
        begin = max(0, size - MOST_BYTES - mask.reach)
        data = files.read_at(file.fileno(), begin, size)
    there = data.lstrip(b"\0")
    masked = mask.masked(there)
    if len(there) < len(data):
        cut = mask.beheaded(there)
        masked = STAR * cut + masked[cut:]
    half = mask.unfinished(there)
    if half >= SHORTEST:
        masked = masked[:-half] + STAR * half
    return masked[-MOST_BYTES:]
