"""Reads any range of a log, wherever its bytes are by now."""

from collections.abc import Sequence
from dataclasses import dataclass

from services.runner.logs import archives, files
from services.runner.logs.archives import Archive, Broken
from services.runner.logs.runlog import RunLog, Shape


@dataclass(frozen=True, slots=True)
class Window:
    """Bytes of a log, unmasked, from `begin` on."""

    begin: int
    data: bytes
    start: int
    """Where what was asked for begins; `begin` lies before it, for the sake of masking."""
    size: int
    first: int
    generation: int
    written_at: float
    reset: bool = False

    @property
    def end(self) -> int:
        return self.begin + len(self.data)


def window(
    log: RunLog, offset: int, limit: int, around: int = 0, generation: int | None = None
) -> Window:
    """Up to `limit` bytes from `offset`, and up to `around` more on both sides.

    An offset of another generation means nothing here: it is answered from the beginning. Raises
    FileNotFoundError when all of it is gone.
    """
    while True:
        with log.opened() as (shape, descriptor):
            reset = generation not in {None, shape.generation}
            start = shape.first if reset else start_of(shape, offset)
            begin = max(shape.first, start - around)
            end = min(shape.size, start + limit + around)
            try:
                data = _read(log, shape, descriptor, begin, end)
            except _Gone as gone:
                log.drop_archive(gone.archive)
                continue
            if log.has_moved(shape):
                continue
        return Window(
            begin=begin,
            data=data,
            start=start,
            size=shape.size,
            first=shape.first,
            generation=shape.generation,
            written_at=shape.written_at,
            reset=reset,
        )


def start_of(shape: Shape, offset: int) -> int:
    """Where a range begins that is asked for by this offset."""
    wanted = min(offset, shape.size) if offset >= 0 else shape.size + offset
    return max(shape.first, wanted)


class _Gone(Exception):
    """An archive was dropped while we read, or does not hold what it should."""

    def __init__(self, archive: Archive) -> None:
        super().__init__(archive.name)
        self.archive = archive


def _read(log: RunLog, shape: Shape, descriptor: int | None, begin: int, end: int) -> bytes:
    pieces = [_unpacked(log, *part) for part in parts(shape.archives, begin, end)]
    if descriptor is not None and end > shape.live_from:
        pieces.append(files.read_at(descriptor, max(begin, shape.live_from), end))
    return b"".join(pieces)


def parts(there: Sequence[Archive], begin: int, end: int) -> Sequence[tuple[Archive, int, int]]:
    """Which archive holds which part of a range. What two of them hold is read from the first."""
    found: list[tuple[Archive, int, int]] = []
    for archive in there:
        start, stop = max(begin, archive.begin), min(end, archive.end)
        if start < stop:
            found.append((archive, start, stop))
            begin = stop
    return found


def _unpacked(log: RunLog, archive: Archive, begin: int, end: int) -> bytes:
    try:
        return archives.read(log.folder, archive, begin, end)
    except (Broken, OSError) as error:
        if (log.folder / archive.name).exists() and isinstance(error, OSError):
            raise
        raise _Gone(archive) from None


def size_of(log: RunLog) -> tuple[int, int]:
    """How many bytes were written, and which is the first that is still there."""
    with log.opened() as (shape, _):
        return shape.size, shape.first
