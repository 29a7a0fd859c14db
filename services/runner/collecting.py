"""Which environments are given back to the disk, and how: never one that may be in use."""

import asyncio
import contextlib
import secrets
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog
from filelock import FileLock, Timeout

from openbell.settings import EnvironmentSettings
from services.runner.environments import LOCKS, READY, USED

log = structlog.get_logger()

DAY_S = 86_400
EVERY_S = 3600
GONE = ".gone"


@dataclass(frozen=True, slots=True)
class Built:
    """An environment on the disk; one that was never whole has no bytes."""

    key: str
    used_at: float
    """Seconds since the epoch."""
    size: int


def superfluous(
    found: Iterable[Built], in_use: Collection[str], keep: EnvironmentSettings, now: float
) -> list[Built]:
    """Those to remove: too old, then the longest unused until the rest is small enough. Pure.

    What is in use, or was used in the last `keep_days`, stays, however large.
    """
    idle = sorted(
        (
            one
            for one in found
            if one.key not in in_use and now - one.used_at > keep.keep_days * DAY_S
        ),
        key=lambda one: one.used_at,
    )
    total = sum(one.size for one in found)
    removed: list[Built] = []
    for one in idle:
        if now - one.used_at > keep.max_age_days * DAY_S or total > keep.max_bytes:
            removed.append(one)
            total -= one.size
    return removed


class Collector:
    """`in_use` tells the keys of those that something runs with; None, until that is known."""

    def __init__(
        self,
        folder: Path,
        keep: EnvironmentSettings,
        in_use: Callable[[], Collection[str] | None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._folder = folder
        self._keep = keep
        self._in_use = in_use
        self._clock = clock

    async def run(self) -> None:
        """From now on, once an hour."""
        while True:
            try:
                await self.collect()
            except OSError as error:
                log.warning("old environments are not removed", reason=str(error))
            await asyncio.sleep(EVERY_S)

    async def collect(self) -> Sequence[str]:
        """The keys of those that were removed."""
        in_use = self._in_use()
        if in_use is None:
            return ()
        found = await asyncio.to_thread(_found, self._folder)
        chosen = superfluous(found, in_use, self._keep, self._clock())
        removed = [one.key for one in chosen if await self._removed(one)]
        await asyncio.to_thread(self._remove_old_locks)
        if removed:
            log.info("environments that nobody used were removed", keys=removed)
        return removed

    async def _removed(self, one: Built) -> bool:
        in_use = self._in_use()
        if in_use is None or one.key in in_use:
            return False
        return await asyncio.to_thread(_remove, self._folder, one)

    def _remove_old_locks(self) -> None:
        """They can be had again."""
        oldest = self._clock() - self._keep.max_age_days * DAY_S
        for file in (self._folder / LOCKS).glob("*"):
            if file.stat().st_mtime < oldest:
                file.unlink()


def _remove(folder: Path, one: Built) -> bool:
    """Under the lock of who builds it. First it is moved away, so that nobody finds half of one;
    if a start has taken it by then, it is moved back: the start has not got to it yet.
    """
    path, gone = folder / one.key, folder / f"{one.key}.{secrets.token_hex(4)}{GONE}"
    with contextlib.suppress(Timeout), FileLock(f"{path}.lock", timeout=0):
        path.rename(gone)
        if _used_at(gone) != one.used_at:
            gone.rename(path)
            return False
        shutil.rmtree(gone, ignore_errors=True)
        return True
    return False


def _found(folder: Path) -> list[Built]:
    """What an earlier removal left behind is removed on the way."""
    if not folder.is_dir():
        return []
    for left in folder.glob(f"*{GONE}"):
        shutil.rmtree(left, ignore_errors=True)
    inside = [path for path in folder.iterdir() if path.is_dir() and path.name != LOCKS]
    return [Built(path.name, _used_at(path), _size(path)) for path in inside]


def _used_at(folder: Path) -> float:
    for name in (USED, READY, "."):
        with contextlib.suppress(FileNotFoundError):
            return (folder / name).stat().st_mtime
    return 0


def _size(folder: Path) -> int:
    try:
        return int((folder / READY).read_text() or 0)
    except (OSError, ValueError):
        return 0
