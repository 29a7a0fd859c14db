"""One run's log: the file that the strategy appends to, and the archives of its old parts.

The file is the strategy's; we only give its old blocks back to the disk, after they have been
archived. An offset means the same before and after. `live_from` divides them: what lies before it
is in archives or dropped, what lies after it is in the file. It is moved before a block goes, so
that whoever has read the file tells by it whether what was read was still there.

The order makes a kill at any point harmless: archive, durable and whole; then the hole. Of an
archive that is there the file is not read, whether or not the hole is. What is dropped is written
down first, in `state.json`; on a full disk afterwards, since only what goes makes the room for it.
"""

import contextlib
import errno
import json
import os
import threading
from collections import deque
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakValueDictionary

import structlog

from openbell.contracts.errors import UnknownRun
from services.runner.logs import archives, files, holes
from services.runner.logs.archives import Archive

STEP = 4 * 1024**2
"""Bytes of one archive: compressed in some 50 ms, and unpacked, to be read, in fewer."""
STATE = "state.json"
FULL = {errno.ENOSPC, errno.EDQUOT}
RECENT = 256

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Shape:
    """A log at one moment."""

    generation: int
    live_from: int
    size: int
    archives: tuple[Archive, ...]
    written_at: float = 0.0

    @property
    def first(self) -> int:
        """The first byte that is still there."""
        return self.archives[0].begin if self.archives else self.live_from


class RunLog:
    """Any thread may use it. There is one for a run at a time: see `LogBook`."""

    def __init__(self, path: Path) -> None:
        """Raises FileNotFoundError when there is neither file nor archive."""
        self.path = path
        self.folder = files.archive_folder(path)
        self._work = threading.Lock()
        """One at a time moves `live_from`."""
        self._lock = threading.Lock()
        self._seen = 0
        self._owes_state = False
        """The disk was full when it was to be written."""
        self._generation, self._live_from = self._read_state()
        self._archives: tuple[Archive, ...] = ()
        self._settle()

    @contextlib.contextmanager
    def opened(self) -> Generator[tuple[Shape, int | None]]:
        """How it is now, and its file; none when all of it is archived.

        Raises FileNotFoundError when there is neither.
        """
        with self._lock:
            shape, descriptor = self._look()
        try:
            yield shape, descriptor
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def has_moved(self, since: Shape) -> bool:
        """Whether what was then read of the file may be a hole, or of another generation."""
        with self._lock:
            return (self._generation, self._live_from) != (since.generation, since.live_from)

    def archive(self, keep: int, *, align: int = holes.BLOCK) -> bool:
        """Move the oldest part of the file, a STEP at the most, into an archive, but for the
        newest `keep` bytes. Whether there was one. Raises OSError.

        A hole holds nothing: a script can make one of terabytes in no time. What lies before it is
        forgotten with it.
        """
        with self._work, self.opened() as (shape, descriptor):
            begin = shape.live_from
            if descriptor is not None:
                data = holes.first_data(descriptor, shape.size, begin)
                if data >= begin + STEP:
                    return self._forget_until(descriptor, shape, data)
            end = min(begin + STEP, shape.size - keep) // align * align
            if descriptor is None or end <= begin:
                return False
            data = files.read_at(descriptor, begin, end)
            if len(data) < end - begin:
                return False  # cut by its script meanwhile
            made = Archive(shape.generation, begin, end)
            archives.write(self.folder, made, data)
            if not self._move_on(descriptor, shape, end, (*shape.archives, made)):
                (self.folder / made.name).unlink(missing_ok=True)
                return False
            return True

    def drop(self, keep: int = 0) -> int:
        """Forget all but the newest `keep` bytes of the file, and the archives. How many bytes
        were dropped of the file.
        """
        with self._work, self.opened() as (shape, descriptor):
            if descriptor is None:
                self._remove()
                return 0
            end = shape.size
            if keep:
                end = max(shape.live_from, (end - keep) // holes.BLOCK * holes.BLOCK)
            forgotten = self._forget_until(descriptor, shape, end, erase=not keep)
            return end - shape.live_from if forgotten else 0

    def drop_archive(self, archive: Archive) -> None:
        """Forget this one, and what lies before it."""
        with self._work, self._lock:
            gone = [one for one in self._archives if one <= archive]
            self._write_state(self._generation, self._live_from)
            self._archives = tuple(one for one in self._archives if one > archive)
            self._unlink(gone)
            self._pay_state()
            if not self._archives and not self.path.exists():
                self._remove_folder()

    def forget_file(self) -> bool:
        """Of an ended run: remove the file once all of it is archived. Whether it was."""
        with self._work, self.opened() as (shape, descriptor):
            if descriptor is None or shape.live_from < shape.size:
                return False
            self.path.unlink(missing_ok=True)
            return True

    def remove(self) -> None:
        """Of an ended run: all of it is gone."""
        with self._work:
            self._remove()

    def _remove(self) -> None:
        with self._lock:
            self.path.unlink(missing_ok=True)
            self._archives = ()
            self._remove_folder()

    def _look(self) -> tuple[Shape, int | None]:
        """Locked: of two looks the later one knows more, else a log would seem to shrink."""
        try:
            descriptor = files.open_plain(self.path)
        except FileNotFoundError:
            if not self._archives:
                raise
            return self._shape(self._live_from, 0.0), None
        self._pay_state()
        status = os.fstat(descriptor)
        if status.st_size < max(self._seen, self._live_from):
            self._begin_generation(holes.first_data(descriptor, status.st_size))
        self._seen = status.st_size
        return self._shape(status.st_size, files.written_at(status)), descriptor

    def _shape(self, size: int, written_at: float) -> Shape:
        return Shape(self._generation, self._live_from, size, self._archives, written_at)

    def _begin_generation(self, live_from: int) -> None:
        """The script has cut its log: offsets begin anew, what it threw away is gone. What it kept
        of it may be a hole by now.
        """
        log.warning("a script made its log shorter", log=str(self.path), was=self._seen)
        gone, self._archives = self._archives, ()
        self._generation, self._live_from = self._generation + 1, live_from
        self._write_state(self._generation, live_from)
        self._unlink(gone)
        self._pay_state()

    def _move_on(
        self,
        descriptor: int,
        since: Shape,
        end: int,
        kept: tuple[Archive, ...],
        *,
        erase: bool = False,
    ) -> bool:
        """Let the file begin at `end`. Not, if the script has cut it meanwhile.

        It might cut it in the instant between our look and the hole: then the hole lies beyond
        its end, or takes what was written in that instant.
        """
        with self._lock:
            if self._generation != since.generation or os.fstat(descriptor).st_size < end:
                return False
            self._archives, self._live_from = kept, end
        self._give_back(end, erase=erase)
        return True

    def _give_back(self, end: int, *, erase: bool = False) -> None:
        """Where no hole can be punched, what was archived stays; what is to be gone is erased."""
        with contextlib.suppress(FileNotFoundError):
            descriptor = files.open_plain(self.path, os.O_RDWR)
            try:
                holes.punch(descriptor, 0, end)
            except OSError:
                if erase:
                    holes.erase(descriptor, 0, end)
            finally:
                os.close(descriptor)

    def _forget_until(
        self, descriptor: int, since: Shape, end: int, *, erase: bool = False
    ) -> bool:
        """Not, if the script has cut it meanwhile."""
        with self._lock:
            if self._generation != since.generation:
                return False
            self._write_state(since.generation, end)
            owed = self._owes_state
        if not self._move_on(descriptor, since, end, (), erase=erase):
            return False
        self._unlink(since.archives)
        if owed:
            with self._lock:
                self._write_state(self._generation, self._live_from)
        return True

    def _settle(self) -> None:
        """What an earlier runner left behind when it was killed, at whatever point."""
        archives.remove_drafts(self.folder)
        there = archives.found(self.folder)
        ours = [one.end for one in there if one.generation == self._generation]
        self._live_from = max((self._live_from, *ours))
        kept = archives.contiguous(there, self._generation, self._live_from)
        self._archives = tuple(kept)
        self._unlink(one for one in there if one not in kept)
        with self.opened() as (shape, descriptor):
            if descriptor is None:
                return
            if not kept:  # what was dropped may never have been written down
                self._live_from = holes.first_data(descriptor, shape.size, shape.live_from)
            if not shape.live_from:
                return
            held = getattr(os.fstat(descriptor), "st_blocks", 0) * 512
        if held > shape.size - shape.live_from + 2 * holes.BLOCK:
            self._give_back(shape.live_from)

    def _remove_folder(self) -> None:
        for file in self.folder.iterdir() if self.folder.is_dir() else ():
            file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def _unlink(self, gone: Iterable[Archive]) -> None:
        for archive in gone:
            (self.folder / archive.name).unlink(missing_ok=True)

    def _read_state(self) -> tuple[int, int]:
        """The generation, and where the file begins as far as no archive tells it."""
        try:
            state = json.loads((self.folder / STATE).read_bytes())
            return max(0, int(state["generation"])), max(0, int(state["live_from"]))
        except (OSError, ValueError, TypeError, KeyError):
            return 0, 0

    def _write_state(self, generation: int, live_from: int) -> None:
        """On a full disk it is owed until there is room again."""
        state = {"generation": generation, "live_from": live_from}
        try:
            self.folder.mkdir(mode=0o700, exist_ok=True)
            files.write_durably(self.folder / STATE, json.dumps(state).encode())
        except OSError as error:
            if error.errno not in FULL:
                raise
            self._owes_state = True
        else:
            self._owes_state = False

    def _pay_state(self) -> None:
        """Locked."""
        if self._owes_state:
            self._write_state(self._generation, self._live_from)


class LogBook:
    """The logs below a folder. Of each run there is one RunLog as long as somebody holds it, and
    somebody does for a while: it knows how large its log was, and so whether its script cuts it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._logs: WeakValueDictionary[Path, RunLog] = WeakValueDictionary()
        self._recent: deque[RunLog] = deque(maxlen=RECENT)

    def of(self, strategy_id: str, run_id: str) -> RunLog:
        """Raises UnknownRun when this host has no such log."""
        path = files.log_file(self.folder, strategy_id, run_id)
        with self._lock:
            known = self._logs.get(path)
            if known is None:
                try:
                    known = RunLog(path)
                except FileNotFoundError:
                    raise UnknownRun(f"{run_id} has no log on this runner") from None
                self._logs[path] = known
                self._recent.append(known)
            return known
