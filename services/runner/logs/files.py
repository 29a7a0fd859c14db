"""Where a run's log and its archives lie, and how they are opened.

A strategy runs as the runner's own user, and may put anything where its log was: nothing but a
plain file is read, and no link is followed.
"""

import os
import re
import stat
import sys
from pathlib import Path

from openbell.contracts.errors import UnknownRun

SAFE = re.compile(r"[a-z0-9][a-z0-9-]{0,100}")
LOG, ARCHIVES = ".log", ".archive"


def log_file(folder: Path, strategy_id: str, run_id: str) -> Path:
    """Raises UnknownRun for an id that could name anything but a file of its own."""
    if not SAFE.fullmatch(strategy_id) or not SAFE.fullmatch(run_id):
        raise UnknownRun(f"there is no run {run_id[:100]!r}")
    return folder / strategy_id / f"{run_id}{LOG}"


def archive_folder(path: Path) -> Path:
    return path.with_suffix(ARCHIVES)


def strategy_of(run_id: str) -> str:
    """A run is named after its strategy and its epoch."""
    return run_id.rpartition("-")[0]


def open_plain(path: Path, flags: int = os.O_RDONLY) -> int:
    """A descriptor. Raises FileNotFoundError for what is no file that could be a log."""
    if sys.platform == "win32":
        flags |= os.O_BINARY
    else:
        flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        raise FileNotFoundError(f"{path}: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileNotFoundError(f"{path}: it is no file")
    return descriptor


def read_at(descriptor: int, begin: int, end: int) -> bytes:
    """Bytes `begin` to `end`, as far as there are any."""
    if sys.platform == "win32":
        os.lseek(descriptor, begin, os.SEEK_SET)
        return _read(descriptor, end - begin)
    pieces: list[bytes] = []
    while begin < end and (piece := os.pread(descriptor, end - begin, begin)):
        pieces.append(piece)
        begin += len(piece)
    return b"".join(pieces)


def written_at(status: os.stat_result) -> float:
    """When it was written last, in seconds. A script can set when its log was modified, but not
    when it was changed; of that Windows knows nothing.
    """
    return status.st_mtime if sys.platform == "win32" else status.st_ctime


def write_durably(path: Path, body: bytes) -> None:
    """Whole or not at all, also if the power goes. A draft that is left over is nobody's. Raises
    OSError.
    """
    draft = path.with_name(f"{path.name}{DRAFT}")
    try:
        with draft.open("wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)  # on a full disk it takes what room there is
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """So that a name in it survives a power cut; Windows has no such thing."""
    if sys.platform != "win32":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


DRAFT = ".draft"


def _read(descriptor: int, most: int) -> bytes:
    pieces: list[bytes] = []
    while most > 0 and (piece := os.read(descriptor, most)):
        pieces.append(piece)
        most -= len(piece)
    return b"".join(pieces)
