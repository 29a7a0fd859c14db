"""Run logs: one file a run, written by the strategy itself, read here by byte offset."""

import asyncio
import os
import re
import time
from pathlib import Path

from openbell.contracts.commands import LogChunk, ReadLog
from openbell.contracts.errors import UnknownRun
from openbell.redaction import Mask

POLL_S = 0.05
LAST_BYTES = 4096
LONGEST_LINE = 500
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
            chunk = await asyncio.to_thread(
                _read, path, command.offset, command.limit, command.around
            )
        except FileNotFoundError:
            if asyncio.get_running_loop().time() >= deadline:
                raise UnknownRun(f"{command.run_id} has no log on this runner") from None
        else:
            if chunk.size > max(0, command.offset) or asyncio.get_running_loop().time() >= deadline:
                return chunk
        await asyncio.sleep(POLL_S)


def last_line(path: Path, mask: Mask) -> str | None:
    """The last line that says something, masked: of a crash, usually the exception."""
    try:
        data = _read(path, -LAST_BYTES, LAST_BYTES, mask.reach).data
    except FileNotFoundError:
        return None
    text = mask.masked(data)[-LAST_BYTES:].decode(errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:LONGEST_LINE] if lines else None


def _read(path: Path, offset: int, limit: int, around: int) -> LogChunk:
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        size = status.st_size
        start = min(offset, size) if offset >= 0 else max(0, size + offset)
        begin, end = max(0, start - around), min(size, start + limit + around)
        file.seek(begin)
        data = file.read(end - begin)
    return LogChunk.model_construct(
        offset=begin,
        next_offset=begin + len(data),
        size=size,
        data=data,
        quiet_s=max(0, time.time() - status.st_mtime),
    )
