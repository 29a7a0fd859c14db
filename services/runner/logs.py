"""Run logs: one file a run, written by the strategy itself, read here by byte offset."""

import asyncio
import re
from pathlib import Path

from openbell.contracts.commands import LogChunk, ReadLog
from openbell.contracts.errors import UnknownRun

POLL_S = 0.05
SAFE = re.compile(r"[a-z0-9][a-z0-9-]{0,100}")


def log_file(folder: Path, strategy_id: str, run_id: str) -> Path:
    """Raises UnknownRun for an id that could name anything but a file of its own."""
    if not SAFE.fullmatch(strategy_id) or not SAFE.fullmatch(run_id):
        raise UnknownRun(f"there is no run {run_id[:100]!r}")
    return folder / strategy_id / f"{run_id}.log"


async def read(folder: Path, command: ReadLog) -> LogChunk:
    """Raises UnknownRun when this host has no such log."""
    path = log_file(folder, command.strategy_id, command.run_id)
    deadline = asyncio.get_running_loop().time() + command.wait_s
    while True:
        try:
            chunk = await asyncio.to_thread(_read, path, command.offset, command.limit)
        except FileNotFoundError:
            if asyncio.get_running_loop().time() >= deadline:
                raise UnknownRun(f"{command.run_id} has no log on this runner") from None
        else:
            if chunk.data or asyncio.get_running_loop().time() >= deadline:
                return chunk
        await asyncio.sleep(POLL_S)


def last_line(path: Path) -> str | None:
    """The last line that says something: of a crash, usually the exception."""
    try:
        text = _read(path, -4096, 4096).data.decode(errors="replace")
    except FileNotFoundError:
        return None
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:500] if lines else None


def _read(path: Path, offset: int, limit: int) -> LogChunk:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        start = min(offset, size) if offset >= 0 else max(0, size + offset)
        file.seek(start)
        data = file.read(limit)
    return LogChunk.model_construct(
        offset=start, next_offset=start + len(data), size=size, data=data
    )
