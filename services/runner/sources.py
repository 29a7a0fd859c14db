"""Checked-out sources: `strategies/<id>/<file>`, fetched by hash when what lies there differs.

The folder is the strategy's own: it may hold links, pipes and folders by any name, made to have
its host read or write somewhere else. Nothing here follows a link, or waits for a pipe.
"""

import asyncio
import hashlib
import os
import re
import secrets
import stat
from pathlib import Path

from openbell.bus import Bus
from openbell.contracts.errors import RunnerRefused
from services.runner.artifacts import Artifacts

SAFE_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,100}")
SAFE_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9 ._-]{0,100}\.py")
CAREFUL = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
MOST_BYTES = 64 * 1024**2
"""Of a source: more than any api takes."""
READABLE = 0o644
"""By the strategy, whoever's user it is. Others cannot get at its folder."""


class Sources:
    def __init__(self, folder: Path, bus: Bus) -> None:
        self._folder = folder
        self._artifacts = Artifacts(bus)

    async def check_out(self, strategy_id: str, sha256: str, filename: str) -> Path:
        """The strategy's own folder, with this source in it.

        Raises ServiceUnavailable when the source cannot be had, RunnerRefused for an unsafe name.
        """
        if not SAFE_ID.fullmatch(strategy_id) or not SAFE_FILE.fullmatch(filename):
            raise RunnerRefused(f"unsafe name: {strategy_id!r:.100}, {filename!r:.100}")
        folder = (self._folder / strategy_id).resolve()
        if await asyncio.to_thread(_hash, folder / filename) != sha256:
            body = await self._artifacts.get(sha256)
            await asyncio.to_thread(_write, folder / filename, body)
        return folder


def _hash(path: Path) -> str | None:
    body = read(path)
    return None if body is None else hashlib.sha256(body).hexdigest()


def read(path: Path) -> bytes | None:
    """None for whatever is no plain file that a strategy can read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | CAREFUL)
    except OSError:
        return None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size > MOST_BYTES:
            return None  # of holes alone it could be endless
        if os.name == "posix" and stat.S_IMODE(found.st_mode) != READABLE:
            return None
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(MOST_BYTES)
    finally:
        os.close(descriptor)


def _write(path: Path, body: bytes) -> None:
    """Whole or not at all: a run may be starting from the file that lies there.

    A folder of this name is moved aside: it may be deeper than what can be removed.
    """
    path.parent.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}.draft")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | CAREFUL, READABLE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(body)
            if os.name == "posix":
                os.fchmod(descriptor, READABLE)
        if path.is_dir() and not path.is_symlink():
            path.rename(path.with_name(f"{path.name}.{secrets.token_hex(8)}.folder"))
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
