"""What a host has left for more runs: of memory, by control groups, and of processors."""

import asyncio
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import psutil
import pytest

from openbell.contracts.room import FORKED_BYTES, UNKNOWN_BYTES, Room
from services.runner.monitor.room import Busy, Expected, Memory, Rooms, Share, available, room
from services.runner.warden import cgroup_ceilings
from services.runner.warden.cgroup_ceilings import Ceiling, tightest

MB, GB = 1024**2, 1024**3
HOST = Memory(2 * GB, GB)


# ---- the sum


def test_a_reserve_is_kept() -> None:
    assert Memory(GB, GB // 2).left == GB // 2 - 64 * MB
    assert Memory(64 * GB, 10 * GB).left == 10 * GB - 64 * GB // 20


def test_what_runs_are_expected_to_grow_by_is_promised() -> None:
    runs = {
        "new-1": Share(64 * MB, 0),
        "grown-3": Share(64 * MB, 90 * MB),
        "found-2": Share(64 * MB, None),
        "half-1": Share(100 * MB, 40 * MB),
    }
    told = room(HOST, runs, None, None)
    assert told.memory_promised_bytes == (64 + 0 + 0 + 60) * MB
    assert told.memory_free_bytes == HOST.left - 124 * MB
    assert told.run_ids == ("found-2", "grown-3", "half-1", "new-1")
    assert told.each_bytes == (64 + 90 + 64 + 100) // 4 * MB + MB // 2


def test_small_runs_are_reckoned_like_unknown_ones() -> None:
    assert room(HOST, {"s-1": Share(MB, MB)}, None, None).each_bytes == UNKNOWN_BYTES
    assert room(HOST, {}, None, None).each_bytes == UNKNOWN_BYTES
    assert room(HOST, {}, None, None, forks=True).each_bytes == FORKED_BYTES


@pytest.mark.parametrize(
    ("free_mb", "runs", "most", "fits"),
    [
        (640, 3, None, 10),
        (639, 3, None, 9),
        (-100, 3, None, 0),
        (-100, 0, None, 1),
        (640, 3, 5, 2),
        (640, 7, 5, 0),
    ],
)
def test_how_many_more_fit(free_mb: int, runs: int, most: int | None, fits: int) -> None:
    told = Room(
        memory_total_bytes=GB,
        memory_free_bytes=free_mb * MB,
        most_runs=most,
        run_ids=tuple(f"s-{number}" for number in range(runs)),
    )
    assert told.fits == fits


@pytest.mark.parametrize(("ceiling", "total"), [((4 * GB, 50 * MB), 4 * GB), (None, 0)])
def test_whatever_has_less_left_counts(ceiling: tuple[int, int] | None, total: int) -> None:
    machine = psutil.virtual_memory().total
    assert available(ceiling).total == (total or machine)
    assert available((2**50, 2**50)).total == machine


# ---- the looks


@dataclass
class Host:
    """Whose groups say what they are told to say."""

    used: dict[str, int | None] = field(default_factory=dict[str, int | None])

    def group(self, run_id: str) -> Any:
        return SimpleNamespace(used=lambda: self._used(run_id)) if self.used else None

    def ceiling(self) -> tuple[int, int]:
        return 2 * GB, GB

    def _used(self, run_id: str) -> Any:
        if run_id not in self.used:
            raise FileNotFoundError
        return SimpleNamespace(memory=self.used[run_id])


def looked(
    host: Host,
    watched: dict[str, list[int]],
    *expected: str,
    as_seen: bool = True,
    age_s: float = 1000,
) -> int:
    """What is promised to these, each of which is expected to need 64 MB."""
    runs = {
        run_id: (
            None,
            [SimpleNamespace(reading=SimpleNamespace(memory=m), age_s=age_s) for m in memory],
        )
        for run_id, memory in watched.items()
    }

    def most(run_id: str) -> int:
        return max(watched[run_id])

    monitor = cast("Any", SimpleNamespace(runs=runs, working_memory=most))
    need = Expected(64 * MB, as_seen)
    rooms = Rooms(host, monitor, lambda: dict.fromkeys(expected, need), most_runs=7)
    told = asyncio.run(rooms.look())
    assert (told.run_ids, told.most_runs) == (tuple(sorted(expected)), 7)
    return told.memory_promised_bytes


def test_what_a_run_uses_is_what_it_was_seen_to_use_last() -> None:
    assert looked(Host(), {"s-1": [60 * MB, 40 * MB]}, "s-1") == 24 * MB


def test_a_guess_is_good_until_the_run_was_seen_for_a_while() -> None:
    seen = {"s-1": [12 * MB, 10 * MB]}
    assert looked(Host(), seen, "s-1", as_seen=False, age_s=59) == 54 * MB
    assert looked(Host(), seen, "s-1", as_seen=False, age_s=60) == 2 * MB
    assert looked(Host(), seen, "s-1", as_seen=True, age_s=60) == 54 * MB


def test_to_a_run_that_is_prepared_all_is_promised_but_what_its_group_has() -> None:
    assert looked(Host(), {}, "s-1") == 64 * MB
    assert looked(Host({"s-1": 8 * MB}), {}, "s-1", "t-1") == (56 + 64) * MB


def test_to_a_run_that_was_found_nothing_is_promised_before_it_was_looked_at() -> None:
    """What it uses is gone from what is available: it would be taken off twice."""
    assert looked(Host(), {"s-1": []}, "s-1") == 0
    assert looked(Host({"s-1": 60 * MB}), {"s-1": []}, "s-1") == 4 * MB
    assert looked(Host({"s-1": None}), {"s-1": []}, "s-1") == 0


def test_processors_are_busy_when_they_were_for_a_minute() -> None:
    busy = Busy()
    assert busy.look(0, {"user": 0, "idle": 0}) is None
    assert busy.look(59, {"user": 100, "idle": 18}) is None
    assert busy.look(60, {"user": 114, "idle": 6}) == 95
    assert busy.look(121, {"user": 120, "idle": 130}) == 4.62
    told = room(HOST, {}, None, 90.5)
    assert told.is_busy
    assert not room(HOST, {}, None, 90).is_busy
    assert not room(HOST, {}, None, None).is_busy


# ---- control groups


def v1(folder: Path, limit: int, used: int) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "memory.usage_in_bytes").write_text(f"{used + 30 * MB}\n")
    stat = f"hierarchical_memory_limit {limit}\ntotal_inactive_file {10 * MB}\n"
    (folder / "memory.stat").write_text(f"{stat}total_active_file {20 * MB}\n")


def v2(folder: Path, limit: str, used: int) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used + 35 * MB}\n")
    stat = f"inactive_file {10 * MB}\nactive_file {20 * MB}\nslab_reclaimable {5 * MB}\n"
    (folder / "memory.stat").write_text(stat)


@pytest.mark.skipif(sys.platform == "win32", reason="control groups are Linux's")
class TestGroups:
    def test_the_least_that_is_left_up_the_tree_counts(self, tmp_path: Path) -> None:
        top, own = tmp_path / "top", tmp_path / "top" / "own"
        v2(top, str(GB), 900 * MB)
        v2(own, str(512 * MB), 100 * MB)
        below = own / "openbell-x"
        below.mkdir()
        assert tightest(2, str(below)) == Ceiling(GB, GB - 900 * MB)
        v2(top, "max", 900 * MB)
        assert tightest(2, str(below)) == Ceiling(512 * MB, 412 * MB)
        v2(own, "max", 100 * MB)
        assert tightest(2, str(below)) is None

    def test_v1_has_a_number_for_no_bound(self, tmp_path: Path) -> None:
        v1(tmp_path / "top", 2**63 - 4096, 900 * MB)
        assert tightest(1, str(tmp_path / "top")) is None
        v1(tmp_path / "top" / "own", 512 * MB, 100 * MB)
        assert tightest(1, str(tmp_path / "top" / "own")) == Ceiling(512 * MB, 412 * MB)

    @pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc")
    def test_it_is_found_for_this_process(self) -> None:
        found = cgroup_ceilings.of_this_process()
        assert found is None or found.free <= found.total
