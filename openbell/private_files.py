"""Small files that hold a key: readable by their owner alone, whole or not there at all.

On Windows a mode hides nothing: there it is the folder, below the user's profile, that does.
"""

import os
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from openbell.contracts.errors import ServiceUnavailable

REPLACE_TRIES, REPLACE_S = 50, 0.02


def kept(path: Path, make: Callable[[], str]) -> str:
    """What the file holds; made when it is missing, once, however many processes ask.

    Raises ServiceUnavailable when others could read it.
    """
    with locked(path):
        if not path.exists():
            write(path, make())
        return read(path)


def locked(path: Path) -> FileLock:
    """Held while the file is read and written anew."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return FileLock(path.with_name(f"{path.name}.lock"))


def read(path: Path) -> str:
    """Raises ServiceUnavailable when others could read it, or when it is no text."""
    try:
        if sys.platform != "win32" and stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise ServiceUnavailable(
                f"{path} holds a key that others may read; say: chmod 600 {path}"
            )
        return path.read_text("ascii")
    except UnicodeDecodeError:
        raise ServiceUnavailable(f"{path} holds no key; restore it from a backup") from None
    except OSError as error:
        raise ServiceUnavailable(f"{path} cannot be read: {error.strerror}") from None


def write(path: Path, text: str) -> None:
    """Whole or not at all, and on disk when this returns: what a key has sealed outlives us."""
    draft = path.with_name(f"{path.name}.draft")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    _replace(draft, path)
    _sync(path.parent)


def _replace(draft: Path, path: Path) -> None:
    """Windows refuses to replace a file while another process reads it, which is soon over."""
    for _ in range(REPLACE_TRIES):
        try:
            draft.replace(path)
        except PermissionError:
            time.sleep(REPLACE_S)
        else:
            return
    draft.replace(path)


def _sync(folder: Path) -> None:
    if sys.platform != "win32":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
