"""What stays of logs, and what goes first."""

import asyncio
import contextlib
import errno
import os
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbell.settings import LogSettings
from services.runner.logs import archives, files, retention, runlog
from services.runner.logs.doomed import Part, doomed, oldest_first, until_enough
from services.runner.logs.ranges import window
from services.runner.logs.retention import DAY_S, PACK_AFTER_S, Retention
from services.runner.logs.runlog import RunLog
from tests.fixtures.logs import RUN, Written, disk_bytes

CAP = 64 * 1024
PLENTY = 2**40
PARTS = st.lists(
    st.builds(
        Part,
        st.sampled_from("ab"),
        st.integers(0, 9),
        st.floats(0, 9),
        st.integers(0, 9),
    ),
    unique_by=lambda part: (part.run_id, part.begin),
)


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Written]:
    monkeypatch.setattr(runlog, "STEP", 16 * 1024)
    monkeypatch.setattr(retention, "TAIL_BYTES", 8192)
    made = Written(tmp_path)
    yield made
    made.close()


class Host:
    """Its clock, its disk, and what runs on it."""

    def __init__(self, written: Written, **settings: int) -> None:
        self.now = written.path.stat().st_mtime + 1
        self.elapsed = 0.0
        self.free = PLENTY
        self.live: frozenset[str] | None = frozenset({RUN})
        self.settings = LogSettings.model_validate({"cap_bytes": CAP, **settings})
        self.retention = Retention(
            written.book,
            self.settings,
            lambda: self.live,
            free=lambda _: self.free,
            clock=lambda: self.now,
            elapsed=lambda: self.elapsed,
        )

    def passes(self, seconds: float) -> None:
        self.now += seconds
        self.elapsed += seconds

    def turn(self) -> None:
        asyncio.run(self.retention.turn())


linux = pytest.mark.skipif(sys.platform != "linux", reason="holes are Linux's")


@linux
def test_a_live_log_is_kept_at_its_cap_and_whole(written: Written) -> None:
    host = Host(written)
    written.write_lines(20_000)
    host.turn()
    assert written.held() <= CAP + 16 * 1024
    found = window(written.log, 0, len(written.all))
    assert (found.first, found.data) == (0, written.all)


@linux
@pytest.mark.parametrize("restarted", [False, True])
def test_a_flood_that_ends_before_it_is_archived_loses_nothing(
    written: Written, *, restarted: bool
) -> None:
    """As it lay there it took up more than its strategy may: all of it was dropped."""
    host = Host(written, archive_bytes=3 * CAP)
    host.turn()
    written.write_lines(20_000)
    assert written.held() > 3 * CAP
    host.live = frozenset()
    if restarted:
        written.again()
        host = Host(written, archive_bytes=3 * CAP)
        host.live = frozenset()
    host.passes(retention.SWEEP_S)
    host.turn()
    assert written.held() <= CAP + 16 * 1024
    found = window(written.log, 0, len(written.all))
    assert (found.first, found.data) == (0, written.all)


@linux
def test_after_a_restart_the_cap_holds_as_before(written: Written) -> None:
    written.write_lines(20_000)
    Host(written).turn()
    written.again()
    host = Host(written)
    written.write_lines(20_000)
    host.turn()
    assert written.held() <= CAP + 16 * 1024
    assert window(written.log, 0, len(written.all)).data == written.all


@linux
def test_a_log_that_nobody_can_keep_up_with_is_dropped_but_for_its_end(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "FLOOD_BYTES", 2 * CAP)
    host = Host(written)
    written.write_lines(20_000)
    host.turn()
    assert written.held() <= CAP + 4096
    found = window(written.log, 0, len(written.all))
    assert found.first > 2 * CAP
    assert found.data == written.all[found.first :]


@linux
def test_who_writes_without_end_keeps_no_other_log_waiting(written: Written) -> None:
    host = Host(written)
    other = written.book.folder / "other-1a2b3c" / "other-1a2b3c-1.log"
    other.parent.mkdir()
    other.write_bytes(b"x" * 4 * CAP)
    host.live = frozenset({RUN, other.stem})
    written.write_lines(20_000)

    def later() -> float:
        """Each step takes 0.1 s, in which more is written than was archived."""
        written.write(b"y" * 32 * 1024)
        host.passes(0.1)
        return host.elapsed

    host.retention._elapsed = later  # pyright: ignore[reportPrivateUsage]
    assert not asyncio.run(host.retention.turn())
    assert disk_bytes(other) <= CAP + 16 * 1024


@linux
@pytest.mark.parametrize("ended", [False, True])
def test_a_log_made_of_nothing_is_passed_over(written: Written, *, ended: bool) -> None:
    host = Host(written)
    written.write_lines(10)
    written.cut(2**40)
    written.write(b"the end\n")
    if ended:
        host.live = frozenset()
        host.passes(PACK_AFTER_S + 1)
    assert asyncio.run(host.retention.turn())
    found = window(written.log, -8, 8)
    assert (found.data, found.size) == (b"the end\n", 2**40 + 8)


def test_before_it_is_known_what_runs_nothing_is_touched(written: Written) -> None:
    host = Host(written, archive_bytes=0)
    host.live = None
    written.write_lines(20_000)
    host.passes(400 * DAY_S)
    host.turn()
    assert written.path.read_bytes() == written.all


@linux
def test_archives_beyond_the_budget_go_the_oldest_first(written: Written) -> None:
    host = Host(written, archive_bytes=20_000)
    written.write_lines(40_000)
    host.turn()
    kept = archives.found(written.log.folder)
    takes = sum((written.log.folder / one.name).stat().st_size for one in kept)
    assert 0 < takes <= 20_000
    found = window(written.log, 0, len(written.all))
    assert found.first == kept[0].begin > 0
    assert found.data == written.all[found.first :]


@linux
def test_what_is_too_old_goes_but_not_what_a_live_run_still_has(written: Written) -> None:
    host = Host(written)
    written.write_lines(20_000)
    host.turn()
    host.passes(31 * DAY_S)
    host.turn()
    assert archives.found(written.log.folder) == []
    found = window(written.log, 0, len(written.all))
    assert 0 < len(written.all) - found.first <= CAP + 4096
    assert found.data == written.all[found.first :]


def test_an_ended_log_is_archived_after_a_while_and_gone_when_it_is_old(written: Written) -> None:
    host = Host(written)
    written.write_lines(20_000)
    host.live = frozenset()
    host.turn()
    assert written.path.exists()
    host.passes(PACK_AFTER_S + 1)
    host.turn()
    assert not written.path.exists()
    assert window(written.log, 0, len(written.all)).data == written.all
    host.passes(31 * DAY_S)
    host.turn()
    assert list(written.path.parent.iterdir()) == []


def test_a_small_ended_log_stays_as_it_is_until_it_is_old(written: Written) -> None:
    host = Host(written)
    written.write_lines(10)
    host.live = frozenset()
    host.passes(29 * DAY_S)
    host.turn()
    assert written.path.read_bytes() == written.all
    host.passes(2 * DAY_S)
    host.turn()
    assert list(written.path.parent.iterdir()) == []


@linux
def test_on_a_full_disk_archives_go_first_then_old_lines_of_live_runs(written: Written) -> None:
    host = Host(written, disk_reserve_bytes=2**20)
    written.write_lines(20_000)
    host.turn()
    host.free = 2**20 - 1
    host.turn()
    kept = archives.found(written.log.folder)
    assert kept
    assert kept[0].begin > 0
    assert written.held() > 32 * 1024
    host.free = 0
    host.turn()
    assert archives.found(written.log.folder) == []
    found = window(written.log, 0, len(written.all))
    assert 0 < len(written.all) - found.first <= 2 * 8192
    assert found.data == written.all[found.first :]
    assert written.held() <= 3 * 8192


@contextlib.contextmanager
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """Nothing can be written, whatever was removed."""

    def full(path: Path, body: bytes) -> None:
        raise OSError(errno.ENOSPC, f"no room for {len(body)} bytes of {path}")

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_durably", full)
        patch.setattr(archives, "write_durably", full)
        yield


@linux
def test_once_the_disk_is_really_full_room_is_made_all_the_same(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was dropped is found so by the next runner, whether or not it could be written down."""
    host = Host(written, disk_reserve_bytes=2**20)
    written.write_lines(20_000)
    host.turn()
    host.free = 0
    with full_disk(monkeypatch):
        host.turn()
        assert archives.found(written.log.folder) == []
        first = window(written.log, 0, 1).first
        assert len(written.all) - first <= 2 * 8192
        assert window(written.again(), 0, len(written.all)).data == written.all[first:]
    host.turn()
    assert window(written.again(), 0, 1).first == first


@linux
def test_a_log_that_is_cut_on_a_full_disk_is_reset_once_and_keeps_no_other_waiting(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = Host(written, disk_reserve_bytes=2**20)
    written.write_lines(20_000)
    host.turn()
    host.free = 0
    with full_disk(monkeypatch):
        written.cut()
        written.write(b"anew\n")
        host.turn()
        host.turn()
        assert window(written.log, 0, 100).generation == 1
    host.turn()
    found = window(written.again(), 0, 100, generation=1)
    assert (found.generation, found.reset, found.data) == (1, False, b"anew\n")


def test_a_log_that_cannot_be_dropped_keeps_no_other_waiting(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [written.path]
    for name in "abc":
        paths.append(written.book.folder / f"{name}-1a2b3c" / f"{name}-1a2b3c-1.log")
        paths[-1].parent.mkdir()
        paths[-1].write_bytes(b"x")
    host, tried = Host(written), list[Path]()
    host.live = frozenset()
    host.passes(400 * DAY_S)

    def refused(log: RunLog) -> None:
        tried.append(log.path)
        raise PermissionError(13, "not yours")

    monkeypatch.setattr(RunLog, "remove", refused)
    host.turn()
    assert sorted(tried) == sorted(paths)


def test_a_log_that_has_begun_to_be_written_meanwhile_is_not_removed(written: Written) -> None:
    """Its run started after the look had begun; or nobody knows of it yet."""
    host = Host(written, disk_reserve_bytes=2**20)
    written.write_lines(10)
    host.live = frozenset()
    host.passes(PACK_AFTER_S / 2)
    host.turn()

    starting = [frozenset({RUN})]

    def starts(_: Path) -> int:
        host.live = starting.pop() if starting else frozenset()
        return 0

    host.retention._free = starts  # pyright: ignore[reportPrivateUsage]
    host.turn()
    assert written.path.read_bytes() == written.all
    host.now = written.path.stat().st_mtime + 1
    host.turn()
    assert written.path.exists()
    host.passes(retention.FRESH_S)
    host.turn()
    assert not written.path.exists()


def test_a_clock_that_is_set_back_keeps_nothing_waiting(written: Written) -> None:
    host = Host(written, archive_bytes=0)
    written.write_lines(10)
    host.live = frozenset()
    host.turn()
    host.now -= 10 * DAY_S
    host.elapsed += retention.SWEEP_S
    host.turn()
    assert not written.path.exists()


def test_a_clock_that_jumps_ahead_is_not_believed_for_a_day(written: Written) -> None:
    host = Host(written)
    written.write_lines(10)
    host.live = frozenset()
    host.now += 31 * DAY_S
    host.turn()
    host.passes(DAY_S - 1)
    host.turn()
    assert written.path.exists()
    host.passes(retention.SWEEP_S)
    host.turn()
    assert not written.path.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="there a script can")
def test_a_script_does_not_say_how_old_its_log_is(written: Written) -> None:
    host = Host(written)
    written.write_lines(10)
    ahead = host.now + 100 * DAY_S
    os.utime(written.path, (ahead, ahead))
    host.live = frozenset()
    host.passes(31 * DAY_S)
    host.turn()
    assert not written.path.exists()


def test_a_strange_file_among_the_logs_is_left_alone(written: Written, tmp_path: Path) -> None:
    written.write_lines(10)
    (written.path.parent / "notes.txt").write_text("x")
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("/etc")
    host = Host(written, disk_reserve_bytes=2**20)
    host.passes(400 * DAY_S)
    host.free = 0
    host.turn()
    assert (written.path.parent / "notes.txt").exists()


# ---- what must go, by itself


@given(PARTS)
def test_of_a_run_no_later_part_goes_before_an_earlier_one(parts: list[Part]) -> None:
    for run in "ab":
        begins = [part.begin for part in oldest_first(parts) if part.run_id == run]
        assert begins == sorted(begins)


@given(PARTS, st.integers(0, 60), st.floats(0, 9))
def test_what_remains_fits_and_no_more_goes_than_must(
    parts: list[Part], most: int, not_before: float
) -> None:
    gone = doomed(parts, most=most, not_before=not_before)
    rest = [part for part in parts if part not in gone]
    assert sum(part.takes for part in rest) <= most
    if gone and gone[-1].at >= not_before:
        assert sum(part.takes for part in rest) + gone[-1].takes > most


@given(PARTS, st.integers(0, 60))
def test_as_much_goes_as_is_needed(parts: list[Part], needed: int) -> None:
    gone = until_enough(parts, needed)
    assert sum(part.takes for part in gone[:-1]) < max(1, needed)
    assert sum(part.takes for part in gone) >= min(needed, sum(part.takes for part in parts))
