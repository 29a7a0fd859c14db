"""Keeps logs within their bounds, in the background and in small steps.

Every second the logs of live runs are looked at: what is beyond the cap is archived, and dropped
of a log that grows faster than it can be archived. Every minute those of all runs are: what ended
runs have left is archived whole, then what is too old, or too much for its strategy, goes. When
the disk is almost full, archives go first, then old lines of live runs.
"""

import asyncio
import contextlib
import shutil
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass
from pathlib import Path

import structlog

from openbell.contracts.errors import UnknownRun
from openbell.settings import LogSettings
from services.runner.logs import archives, files, holes
from services.runner.logs.doomed import Part, doomed, until_enough
from services.runner.logs.files import ARCHIVES, LOG, strategy_of
from services.runner.logs.runlog import LogBook, RunLog

LOOK_S = 1.0
AGAIN_S = 0.05
"""Until the next look, while a log is beyond its cap."""
TURN_S = 2.0
"""How long a look may archive before it does the rest."""
SWEEP_S = 60.0
FRESH_S = 60.0
"""A log that was written so lately is not removed, though nobody knows of its run."""
DAY_S = 86_400.0
JUMP_S = 3600.0
"""When the clock jumps further forward, nothing is held to be old for a day: it may be wrong."""
PACK_AFTER_S = 3600.0
"""An ended run's log is archived once it has not been written for so long."""
PACK_BYTES = 256 * 1024
"""A smaller one stays as it is."""
FLOOD_BYTES = 1024**3
"""So far beyond its cap nothing is archived any more: a script can fill a disk faster than anybody
can compress it. That also goes for what was written while no runner was there."""
TAIL_BYTES = 1024**2
"""What a live run keeps of its log when the disk is almost full."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Kept:
    """An old part of a log, and how it is let go."""

    part: Part
    path: Path
    drop: Callable[[], bool]
    """Whether it is gone."""


def elapsed() -> float:
    """Seconds that have passed, also while the host slept."""
    if sys.platform == "win32":
        return time.monotonic()
    return time.clock_gettime(
        time.CLOCK_BOOTTIME if sys.platform == "linux" else time.CLOCK_MONOTONIC
    )


class Retention:
    def __init__(
        self,
        book: LogBook,
        settings: LogSettings,
        live: Callable[[], Set[str] | None],
        *,
        free: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
        clock: Callable[[], float] = time.time,
        elapsed: Callable[[], float] = elapsed,
    ) -> None:
        """`live` tells the runs that may still write; None, as long as that is not known."""
        self._book = book
        self._settings = settings
        self._live = live
        self._free = free
        self._clock = clock
        self._elapsed = elapsed
        self._ahead = clock() - elapsed()
        """By how much the clock was ahead of the seconds that have passed."""
        self._right_from = float("-inf")
        """When the clock is trusted again."""
        self._held: dict[str, RunLog] = {}
        """The logs of live runs: what was seen of each is remembered."""
        self._swept_at = float("-inf")
        self.punches = holes.can_punch(book.folder)

    async def run(self) -> None:
        """For ever."""
        while True:
            all_kept = True
            try:
                all_kept = await self.turn()
            except Exception:
                log.exception("logs were not kept within their bounds; it is tried again")
            await asyncio.sleep(LOOK_S if all_kept else AGAIN_S)

    async def turn(self) -> bool:
        """One look. Each step is short, and takes a thread alone. Whether all caps are kept."""
        live = self._live()
        if live is None:
            return True
        await asyncio.to_thread(self._hold, live)
        excess = await self._keep_caps() if self.punches else []
        if self._elapsed() - self._swept_at >= SWEEP_S:
            self._swept_at = self._elapsed()
            await self._sweep()
        await asyncio.to_thread(self._keep_reserve)
        return not excess

    async def _keep_caps(self) -> list[RunLog]:
        """A step of each in turn: whoever writes without end keeps no other's log waiting.

        Those that are beyond their cap when the time is over.
        """
        until = self._elapsed() + TURN_S
        excess = list(self._held.values())
        while excess and self._elapsed() < until:
            excess = [one for one in excess if await asyncio.to_thread(self._archive_excess, one)]
        return excess

    def _hold(self, live: Set[str]) -> None:
        cap = self._settings.cap_bytes
        self._held = {
            run: held
            for run, held in self._held.items()
            # What it wrote last, faster than it could be archived, is archived all the same.
            if run in live or _held_bytes(held) > cap
        }
        for run_id in live:
            if run_id not in self._held:
                with contextlib.suppress(UnknownRun, OSError):
                    self._held[run_id] = self._book.of(strategy_of(run_id), run_id)
        for held in self._held.values():
            try:
                with contextlib.suppress(FileNotFoundError), held.opened():
                    pass  # whether its script has cut it
            except OSError as error:
                log.warning("a log could not be looked at", log=str(held.path), reason=str(error))

    def _archive_excess(self, held: RunLog) -> bool:
        """Whether there may be more to do."""
        try:
            cap = self._settings.cap_bytes
            excess = _held_bytes(held) - cap
            if excess > FLOOD_BYTES:
                dropped = held.drop(keep=cap)
                log.warning("a log grows too fast to be kept", log=str(held.path), dropped=dropped)
                return True
            return excess > 0 and held.archive(cap)
        except OSError as error:
            log.warning("a log could not be archived", log=str(held.path), reason=str(error))
            return False

    async def _sweep(self) -> None:
        """What is beyond its cap is archived before anything is dropped: as it lies there, it could
        take up all that its strategy may.
        """
        for path in await asyncio.to_thread(self._beyond_cap) if self.punches else []:
            with contextlib.suppress(UnknownRun):
                beyond = self._book.of(path.parent.name, path.stem)
                while await asyncio.to_thread(self._archive_excess, beyond):
                    pass
        for path in await asyncio.to_thread(self._unpacked):
            while await asyncio.to_thread(self._pack, path):
                pass
        not_before = self._not_before()
        for strategy_id, kept in (await asyncio.to_thread(self._kept)).items():
            most = self._settings.archive_bytes
            gone = set(doomed((one.part for one in kept), most=most, not_before=not_before))
            dropped = 0
            for one in kept:
                if one.part in gone:
                    dropped += await asyncio.to_thread(self._drop, one)
            if dropped:
                log.info("old logs were dropped", strategy=strategy_id, parts=dropped)

    def _not_before(self) -> float:
        """What was written before is too old; nothing is, while the clock may be wrong."""
        now, passed = self._clock(), self._elapsed()
        if now - passed > self._ahead + JUMP_S:
            self._right_from = passed + DAY_S
            log.warning("the clock jumped: no log is held to be old for a day")
        self._ahead = now - passed
        if passed < self._right_from:
            return float("-inf")
        return now - self._settings.max_age_days * DAY_S

    def _may_write(self, run_id: str) -> bool:
        """Asked anew before each step: a run may have started meanwhile."""
        live = self._live()
        return live is None or run_id in live

    def _beyond_cap(self) -> list[Path]:
        """Logs of ended runs, that were ended or killed before all of it could be archived."""
        found: list[Path] = []
        for path in self._book.folder.glob(f"*/*{LOG}"):
            with contextlib.suppress(OSError):
                held = getattr(path.lstat(), "st_blocks", 0) * 512
                if held > self._settings.cap_bytes and not self._may_write(path.stem):
                    found.append(path)
        return found

    def _unpacked(self) -> list[Path]:
        """Logs of ended runs that are worth archiving."""
        before = self._clock() - PACK_AFTER_S
        found: list[Path] = []
        for path in self._book.folder.glob(f"*/*{LOG}"):
            with contextlib.suppress(OSError):
                status = path.lstat()
                if not self._may_write(path.stem) and files.written_at(status) < before:
                    packed = files.archive_folder(path).is_dir()
                    if status.st_size >= PACK_BYTES or packed:
                        found.append(path)
        return found

    def _pack(self, path: Path) -> bool:
        """Whether there may be more to do."""
        if self._may_write(path.stem):
            return False
        try:
            ended = self._book.of(path.parent.name, path.stem)
            return ended.archive(0, align=1) or (ended.forget_file() and False)
        except (UnknownRun, OSError) as error:
            log.warning("a log could not be archived", log=str(path), reason=str(error))
            return False

    def _kept(self) -> dict[str, list[Kept]]:
        """By strategy, what may be let go."""
        found: defaultdict[str, list[Kept]] = defaultdict(list)
        for folder in self._book.folder.iterdir():
            if folder.is_dir() and not folder.is_symlink():
                try:
                    for path in folder.iterdir():
                        found[folder.name] += self._kept_at(path)
                except OSError as error:
                    log.warning("logs could not be looked at", reason=str(error))
        return found

    def _kept_at(self, path: Path) -> Iterable[Kept]:
        if path.suffix == ARCHIVES:
            yield from self._archived(path)
        elif path.suffix == LOG and not self._may_write(path.stem):
            with contextlib.suppress(OSError):
                status = path.lstat()
                takes = getattr(status, "st_blocks", status.st_size // 512) * 512
                part = Part(path.stem, status.st_size, files.written_at(status), takes)
                yield Kept(part, path, lambda: self._remove(path))

    def _archived(self, folder: Path) -> Iterable[Kept]:
        for archive in archives.found(folder):
            with contextlib.suppress(OSError):
                status = (folder / archive.name).lstat()
                part = Part(folder.stem, archive.begin, files.written_at(status), status.st_size)

                def drop(archive: archives.Archive = archive) -> bool:
                    self._book.of(folder.parent.name, folder.stem).drop_archive(archive)
                    return True

                yield Kept(part, folder, drop)

    def _remove(self, path: Path) -> bool:
        fresh = abs(self._clock() - files.written_at(path.lstat())) < FRESH_S
        if fresh or self._may_write(path.stem):
            return False
        self._book.of(path.parent.name, path.stem).remove()
        return True

    def _drop(self, kept: Kept) -> bool:
        try:
            return kept.drop()
        except (UnknownRun, FileNotFoundError):
            return True
        except OSError as error:
            log.warning("a log could not be dropped", log=str(kept.path), reason=str(error))
            return False

    def _keep_reserve(self) -> None:
        """The oldest archives first, then the older lines of live logs, the longest ones first."""
        needed = self._settings.disk_reserve_bytes - self._free(self._book.folder)
        if needed <= 0:
            return
        kept = [one for its in self._kept().values() for one in its]
        gone = set(until_enough((one.part for one in kept), needed))
        freed = sum(one.part.takes for one in kept if one.part in gone and self._drop(one))
        dropped = self._cut_live(needed - freed) if self.punches else 0
        if freed or dropped:
            log.warning(
                "old lines were dropped: the disk is almost full", archived=freed, live=dropped
            )

    def _cut_live(self, needed: int) -> int:
        dropped = 0
        for held in sorted(self._held.values(), key=_held_bytes, reverse=True):
            if dropped >= needed:
                break
            with contextlib.suppress(OSError):
                dropped += held.drop(keep=TAIL_BYTES)
        return dropped


def _held_bytes(held: RunLog) -> int:
    with contextlib.suppress(FileNotFoundError), held.opened() as (shape, _):
        return shape.size - shape.live_from
    return 0
