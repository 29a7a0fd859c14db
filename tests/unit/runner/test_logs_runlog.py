"""No byte of a log is lost or told twice, wherever it lies, and whenever its keeper is killed."""

import asyncio
import gzip
import sys
from collections.abc import Generator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbell.contracts.errors import ServiceUnavailable
from openbell.contracts.logs import ClearLog
from openbell.settings import Settings
from services.runner.logs import archives, files, holes, ranges, runlog
from services.runner.logs.archives import Archive
from services.runner.logs.ranges import parts, window
from services.runner.logs.runlog import RunLog
from services.runner.logs.service import RunLogs
from tests.fixtures.logs import RUN, STRATEGY, Written

BLOCK = holes.BLOCK
STEP = 4 * BLOCK
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="holes are Linux's")


class Killed(BaseException):
    """A kill -9 at this point."""


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Written]:
    monkeypatch.setattr(runlog, "STEP", STEP)
    made = Written(tmp_path)
    yield made
    made.close()


def whole(log: RunLog) -> tuple[int, bytes]:
    """All that is there, in pieces of an odd size, and where it begins."""
    first = window(log, 0, 1).first
    data, offset = b"", first
    while (found := window(log, offset, 5000)).data:
        assert found.start == offset
        data, offset = data + found.data, found.end
    return first, data


def archive_all(log: RunLog, keep: int) -> int:
    steps = 0
    while log.archive(keep):
        steps += 1
    return steps


def test_old_blocks_are_given_back_and_nothing_is_lost(written: Written) -> None:
    written.write_lines(6000)
    size, before = len(written.all), written.held()
    assert archive_all(written.log, 2 * BLOCK) > 3
    assert written.held() < before - (size - 4 * BLOCK)
    assert written.path.stat().st_size == size
    assert whole(written.log) == (0, written.all)
    assert whole(written.again()) == (0, written.all)
    written.write_lines(1000)
    assert whole(written.log) == (0, written.all)
    assert window(written.log, -100, 1000).data == written.all[-100:]


def test_an_archive_is_a_gzip_file_that_anybody_can_read(written: Written) -> None:
    written.write_lines(2000)
    assert written.log.archive(BLOCK)
    (file,) = written.log.folder.glob("*.gz")
    assert gzip.decompress(file.read_bytes()) == written.all[:STEP]
    assert file.stat().st_mode & 0o077 == 0 or written.log.folder.stat().st_mode & 0o077 == 0


KILLS: list[tuple[Any, str]] = [
    (files, "sync_folder"),
    (Path, "replace"),
    (archives.zlib, "compressobj"),
    (holes, "punch"),
    (RunLog, "_move_on"),
    (RunLog, "_give_back"),
]


@pytest.mark.parametrize(("where", "name"), KILLS, ids=[name for _, name in KILLS])
@pytest.mark.parametrize("at", [1, 2])
def test_a_kill_between_any_steps_loses_and_doubles_nothing(
    written: Written, monkeypatch: pytest.MonkeyPatch, where: Any, name: str, at: int
) -> None:
    written.write_lines(6000)
    real, calls = getattr(where, name), 0

    def killed(*given: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == at:
            raise Killed
        return real(*given, **named)

    log = written.log
    monkeypatch.setattr(where, name, killed)
    with pytest.raises(Killed):
        archive_all(log, 2 * BLOCK)
    monkeypatch.setattr(where, name, real)
    assert whole(written.again()) == (0, written.all)
    assert not list(written.log.folder.glob(f"*{files.DRAFT}"))
    archive_all(written.log, 2 * BLOCK)
    assert whole(written.again()) == (0, written.all)
    assert written.held() <= 5 * BLOCK
    ends = [one.end for one in archives.found(written.log.folder)]
    assert ends == sorted(set(ends))


@pytest.mark.parametrize("name", ["_move_on", "_give_back", "_unlink"])
def test_a_kill_while_lines_are_dropped_drops_them_or_not(
    written: Written, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    written.write_lines(4000)
    written.log.archive(0)

    def killed(*_: Any, **__: Any) -> Any:
        raise Killed

    log, real = written.log, getattr(RunLog, name)
    monkeypatch.setattr(RunLog, name, killed)
    with pytest.raises(Killed):
        log.drop(keep=2 * BLOCK)
    monkeypatch.setattr(RunLog, name, real)
    first, data = whole(written.again())
    assert first in {0, (len(written.all) - 2 * BLOCK) // BLOCK * BLOCK}
    assert data == written.all[first:]


def test_whoever_reads_while_blocks_go_never_reads_a_hole(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The block is archived and gone between the look and the read."""
    written.write_lines(4000)
    real, log = files.read_at, written.log
    in_between = [lambda: log.archive(0), lambda: log.archive(0)]

    def late(*given: Any) -> bytes:
        if in_between:
            in_between.pop()()
        return real(*given)

    monkeypatch.setattr(ranges, "files", SimpleNamespace(read_at=late))
    found = window(log, 0, len(written.all))
    assert found.data == written.all
    assert not in_between


def test_what_was_dropped_is_said_and_the_answer_begins_behind_it(written: Written) -> None:
    written.write_lines(4000)
    archive_all(written.log, BLOCK)
    oldest, second = archives.found(written.log.folder)[:2]
    written.log.drop_archive(oldest)
    found = window(written.log, 100, 50)
    assert (found.first, found.start, found.data) == (
        second.begin,
        second.begin,
        written.all[second.begin :][:50],
    )
    assert whole(written.again()) == (second.begin, written.all[second.begin :])
    for archive in archives.found(written.log.folder):
        written.log.drop_archive(archive)
    live_from = window(written.log, 0, 1).first
    assert whole(written.again()) == (live_from, written.all[live_from:])


def test_clearing_a_live_log_drops_all_until_then_and_offsets_go_on(written: Written) -> None:
    written.write(b"secret-of-old\n" * 1000)
    written.log.archive(0)
    size = len(written.all)
    assert written.log.drop() > 0
    assert whole(written.log) == (size, b"")
    written.write(b"after\n")
    assert whole(written.again()) == (size, b"after\n")
    assert b"secret" not in written.path.read_bytes()
    assert archives.found(written.log.folder) == []
    written.write_lines(3000)
    archive_all(written.log, 0)
    assert whole(written.again()) == (size, written.all[size:])


def test_clearing_a_log_that_is_wholly_archived_removes_the_archives(written: Written) -> None:
    written.write(b"secret-of-old\n" * 1000)
    while written.log.archive(0, align=1):
        pass
    assert written.log.forget_file()
    written.log.drop()
    assert list(written.path.parent.iterdir()) == []


def test_nothing_is_said_to_be_cleared_before_it_is_known_what_runs(
    tmp_path: Path,
) -> None:
    live: set[str] | None = None
    settings = Settings(home=tmp_path)
    written = Written(settings.logs)
    written.write(b"all of it\n")
    written.close()
    logs = RunLogs(settings, cast("Any", None), cast("Any", None), lambda: live)
    clear = ClearLog(strategy_id=STRATEGY, run_id=RUN)
    with pytest.raises(ServiceUnavailable):
        asyncio.run(logs.clear(clear))
    live = set()
    asyncio.run(logs.clear(clear))
    assert list(written.path.parent.iterdir()) == []


def test_where_no_hole_can_be_punched_what_is_cleared_is_erased(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any) -> None:
        raise OSError(95, "not supported")

    monkeypatch.setattr(holes, "punch", refused)
    assert not holes.can_punch(written.book.folder)
    written.write(b"secret-of-old\n" * 1000)
    written.log.drop()
    written.write(b"after\n")
    assert b"secret" not in written.path.read_bytes()
    assert whole(written.again()) == (len(written.all) - 6, b"after\n")


def test_a_log_that_its_script_cuts_begins_a_generation(written: Written) -> None:
    written.write_lines(2000)
    written.log.archive(0)
    assert window(written.log, 0, 1).generation == 0
    written.cut()
    written.write(b"anew\n")
    found = window(written.log, 50, 100, generation=0)
    assert (found.generation, found.reset, found.data) == (1, True, b"anew\n")
    assert archives.found(written.log.folder) == []
    found = window(written.again(), 0, 100, generation=1)
    assert (found.generation, found.reset, found.data) == (1, False, b"anew\n")


def test_a_log_that_was_cut_while_no_runner_looked_is_told_by_its_archives(
    written: Written,
) -> None:
    written.write_lines(2000)
    written.log.archive(0)
    written.cut(100)
    found = window(written.again(), 0, 1000)
    assert (found.generation, found.first, found.size, found.data) == (1, 100, 100, b"")
    written.write(b"x" * BLOCK)
    assert window(written.log, -10, 10).data == b"x" * 10


def test_a_script_that_cuts_its_log_while_it_is_archived_loses_nothing_of_the_new_one(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    written.write_lines(2000)
    real = archives.write

    def cut_meanwhile(*given: Any) -> None:
        real(*given)
        written.cut()
        written.write(b"anew\n")

    monkeypatch.setattr(archives, "write", cut_meanwhile)
    assert not written.log.archive(0)
    monkeypatch.undo()
    assert whole(written.log) == (0, b"anew\n")
    assert whole(written.again()) == (0, b"anew\n")


def test_a_broken_archive_is_as_if_it_had_been_dropped(written: Written) -> None:
    written.write_lines(4000)
    archive_all(written.log, BLOCK)
    broken, good = archives.found(written.log.folder)[:2]
    (written.log.folder / broken.name).write_bytes(b"nonsense")
    assert whole(written.log) == (good.begin, written.all[good.begin :])


def test_an_ended_log_is_archived_whole_and_its_file_removed(written: Written) -> None:
    written.write_lines(2500)
    while written.log.archive(0, align=1):
        pass
    assert written.log.forget_file()
    assert not written.path.exists()
    assert whole(written.log) == (0, written.all)
    assert whole(written.again()) == (0, written.all)
    written.log.remove()
    assert list(written.path.parent.iterdir()) == []


def test_nothing_but_a_plain_file_is_read(written: Written, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("the host's own")
    written.path.unlink()
    written.path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(runlog.UnknownRun):
        written.book.of(STRATEGY, RUN)


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 20)), max_size=6),
    st.integers(0, 60),
    st.integers(0, 60),
    st.integers(0, 60),
)
def test_of_archives_that_overlap_each_byte_is_read_once(
    spans: list[tuple[int, int]], live_from: int, begin: int, end: int
) -> None:
    there = [Archive(0, start, start + length) for start, length in spans]
    kept = archives.contiguous(there, 0, live_from)
    first = kept[0].begin if kept else live_from
    read = [n for _, start, stop in parts(kept, begin, end) for n in range(start, stop)]
    assert read == sorted(set(read))
    assert set(range(max(begin, first), min(end, live_from))) <= set(read)
