"""The journal: torn lines, full disks, and what compaction may forget."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from services.runner.warden.journal import Journal
from services.runner.warden.protocol import Entry


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


def live(journal: Journal, run: str, *, epoch: int = 1) -> None:
    journal.append("starting", run, f"strategy of {run}", epoch, boot_id="b")
    journal.append("started", run, f"strategy of {run}", epoch, pid=7, start_ticks=8, boot_id="b")


def over(journal: Journal, run: str, *, epoch: int = 1) -> None:
    live(journal, run, epoch=epoch)
    journal.append("exited", run, f"strategy of {run}", epoch, reason="completed", exit_code=0)


def all_of(journal: Journal) -> list[Entry]:
    return journal.after(0, 1_000_000)


def reopened(path: Path, use: Callable[[Journal], None] = lambda _: None) -> list[Entry]:
    journal = Journal(path)
    use(journal)
    journal.commit()
    journal.close()
    return all_of(journal)


def test_what_was_committed_is_read_back(path: Path):
    def write(journal: Journal) -> None:
        live(journal, "a", epoch=4)
        journal.append(
            "stopping", "a", "strategy of a", 4, reason="stopped_by_user", ladder=(("SIGINT", 1.5),)
        )

    before = reopened(path, write)
    assert [entry.seq for entry in before] == [1, 2, 3]
    assert reopened(path) == before


def test_nobody_hears_of_an_entry_before_it_is_committed(path: Path):
    journal = Journal(path)
    live(journal, "a")
    assert all_of(journal) == []
    assert journal.commit()
    assert [entry.kind for entry in all_of(journal)] == ["starting", "started"]
    journal.close()


def test_a_line_torn_at_any_byte_costs_that_line_alone(path: Path):
    before = reopened(path, lambda journal: over(journal, "a"))
    whole = path.read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    for cut in range(last, len(whole)):
        path.write_bytes(whole[:cut])
        assert reopened(path) == before[:-1]
        assert path.stat().st_size == last
        assert reopened(path, lambda journal: live(journal, "b"))[-1].seq == 4


def test_zeros_after_a_power_failure_are_cut_off(path: Path):
    before = reopened(path, lambda journal: over(journal, "a"))
    size = path.stat().st_size
    path.write_bytes(path.read_bytes() + b"\0" * 100 + b"\n")
    assert reopened(path) == before
    assert path.stat().st_size == size


def test_a_bad_line_in_the_middle_hides_nothing_after_it(path: Path):
    before = reopened(path, lambda journal: over(journal, "a"))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"#garbage\n" + b"".join(lines[1:]))
    assert reopened(path) == before


def test_a_full_disk_loses_nothing_and_tells_nobody(path: Path, monkeypatch: pytest.MonkeyPatch):
    journal = Journal(path)
    over(journal, "a")
    write = os.write

    def half(file: int, data: bytes) -> int:
        if len(data) < 100:
            raise OSError(errno.ENOSPC, "full")
        return write(file, data[: len(data) // 2])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", half)
        assert not journal.commit()
    assert all_of(journal) == []
    assert path.stat().st_size == 0
    assert journal.commit()
    journal.close()
    assert reopened(path) == all_of(journal)


def test_a_start_that_could_not_be_written_uses_up_no_epoch(path: Path):
    journal = Journal(path)
    starting = journal.append("starting", "a", "s", 9)
    journal.withdraw(starting)
    assert journal.commit()
    assert journal.epochs == {}
    assert journal.of("a") == []
    journal.close()


def test_compaction_keeps_the_living_the_unacknowledged_and_every_epoch(path: Path):
    journal = Journal(path, limit=100)
    over(journal, "acknowledged", epoch=5)
    live(journal, "living", epoch=6)
    over(journal, "unacknowledged", epoch=7)
    journal.commit()
    size = path.stat().st_size
    journal.acknowledge(7)
    assert path.stat().st_size < size
    live(journal, "later", epoch=8)
    journal.commit()
    journal.close()

    again = Journal(path)
    assert all_of(again) == all_of(journal)
    assert {entry.run for entry in all_of(again)} == {"living", "unacknowledged", "later"}
    assert set(again.unfinished()) == {"living", "later"}
    assert sorted(again.epochs.values()) == [5, 6, 7, 8]
    assert again.seq == 10
    again.close()


def test_numbers_never_restart_even_when_all_is_forgotten(path: Path):
    journal = Journal(path, limit=10)
    over(journal, "a")
    journal.commit()
    journal.acknowledge(3)
    assert all_of(journal) == []
    journal.close()
    assert reopened(path, lambda again: live(again, "b"))[0].seq == 4


def test_a_small_journal_is_left_alone(path: Path):
    journal = Journal(path)
    over(journal, "a")
    journal.commit()
    journal.acknowledge(3)
    assert len(all_of(journal)) == 3
    journal.close()


def test_a_failed_compaction_leaves_the_journal_as_it_was(
    path: Path, monkeypatch: pytest.MonkeyPatch
):
    journal = Journal(path, limit=10)
    over(journal, "a")
    journal.commit()

    def fail(_self: Path, _target: Path) -> None:
        raise OSError(errno.EIO, "no")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail)
        journal.acknowledge(3)
    assert len(all_of(journal)) == 3
    live(journal, "b")
    journal.commit()
    assert len(reopened(path)) == 5
    journal.close()


def test_what_was_acknowledged_is_not_told_again_by_a_later_life(path: Path):
    journal = Journal(path)
    over(journal, "a")
    live(journal, "b")
    journal.commit()
    journal.acknowledge(3)
    journal.close()
    later = Journal(path)
    assert later.acknowledged == 3
    assert {entry.run for entry in all_of(later)} == {"b"}
    later.close()
