"""Gives blocks of a file back to the disk while it is being written, and keeps its size.

fallocate(2) with FALLOC_FL_PUNCH_HOLE: Linux, on ext4, XFS, Btrfs, tmpfs and others. Elsewhere
a log stays as it is until its run has ended.
"""

import ctypes
import errno
import os
import sys
import tempfile
from functools import cache
from pathlib import Path

KEEP_SIZE, PUNCH_HOLE = 0x01, 0x02
BLOCK = 4096
PROBE = 16 * BLOCK
ZEROS = bytes(2**20)


def can_punch(folder: Path) -> bool:
    """Whether the file system of this folder gives blocks back. Tried out, on a file of ours."""
    if sys.platform != "linux":
        return False
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(os.urandom(PROBE))
            file.flush()
            os.fsync(file.fileno())
            before = os.fstat(file.fileno()).st_blocks
            punch(file.fileno(), 0, PROBE - BLOCK)
            status = os.fstat(file.fileno())
            return status.st_blocks < before and status.st_size == PROBE
    except OSError:
        return False


def punch(descriptor: int, begin: int, end: int) -> None:
    """Make these bytes a hole, which reads as zeros. Raises OSError where that cannot be done."""
    if end <= begin:
        return
    if _fallocate()(descriptor, PUNCH_HOLE | KEEP_SIZE, begin, end - begin) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def first_data(descriptor: int, size: int, begin: int = 0) -> int:
    """Where the file is no hole for the first time from `begin` on."""
    if sys.platform != "linux":
        return begin
    try:
        return os.lseek(descriptor, begin, os.SEEK_DATA)
    except OSError as error:
        return size if error.errno == errno.ENXIO else begin


def erase(descriptor: int, begin: int, end: int) -> None:
    """Overwrite these bytes with zeros, for where no holes can be punched."""
    os.lseek(descriptor, begin, os.SEEK_SET)
    while begin < end:
        begin += os.write(descriptor, ZEROS[: end - begin])


@cache
def _fallocate() -> "ctypes._NamedFuncPointer":  # pyright: ignore[reportPrivateUsage]
    """Raises OSError where the C library has none."""
    if sys.platform != "linux":
        raise OSError("this system punches no holes")
    library = ctypes.CDLL(None, use_errno=True)
    for name in ("fallocate64", "fallocate"):  # musl has the second alone, with 64 bits
        if hasattr(library, name):
            function = getattr(library, name)
            function.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
            return function
    raise OSError("the C library has no fallocate")
