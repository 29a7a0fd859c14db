"""Checked-out sources: `strategies/<id>/<file>`, fetched by hash when what lies there differs."""

import asyncio
import hashlib
import os
import re
from pathlib import Path

from openbell.bus import Bus
from openbell.contracts.commands import PublishArtifact
from openbell.contracts.errors import RunnerRefused, ServiceUnavailable

SAFE_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,100}")
SAFE_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9 ._-]{0,100}\.py")


class Sources:
    def __init__(self, folder: Path, bus: Bus) -> None:
        self._folder = folder
        self._bus = bus

    async def check_out(self, strategy_id: str, sha256: str, filename: str) -> Path:
        """The strategy's own folder, with this source in it.

        Raises ServiceUnavailable when the source cannot be had, RunnerRefused for an unsafe name.
        """
        if not SAFE_ID.fullmatch(strategy_id) or not SAFE_FILE.fullmatch(filename):
            raise RunnerRefused(f"unsafe name: {strategy_id!r:.100}, {filename!r:.100}")
        folder = (self._folder / strategy_id).resolve()
        if await asyncio.to_thread(_hash, folder / filename) != sha256:
            body = await self._fetch(sha256)
            await asyncio.to_thread(_write, folder / filename, body)
        return folder

    async def _fetch(self, sha256: str) -> bytes:
        body = await self._bus.get_artifact(sha256)
        if body is None:
            await self._bus.request(PublishArtifact(sha256=sha256))
            body = await self._bus.get_artifact(sha256)
        if body is None or hashlib.sha256(body).hexdigest() != sha256:
            raise ServiceUnavailable("the artifact store does not hold this source")
        return body


def _hash(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        return None


def _write(path: Path, body: bytes) -> None:
    """Whole or not at all: a run may be starting from the file that lies there."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}.draft")
    draft.write_bytes(body)
    draft.replace(path)
