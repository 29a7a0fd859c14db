"""Who takes one more run, and why nobody does; and what a run is expected to need."""

import pytest

from openbell.contracts.room import FORKED_BYTES, UNKNOWN_BYTES, Room
from services.scheduler import needs
from services.scheduler.vacancies import Vacancy, choose, vacancy, why_none

MB, GB = 1024**2, 1024**3


def room(free_mb: int, *run_ids: str, most_runs: int | None = None, total: int = 2 * GB) -> Room:
    return Room(
        memory_total_bytes=total,
        memory_free_bytes=free_mb * MB,
        run_ids=run_ids,
        most_runs=most_runs,
    )


def of(name: str, told: Room | None) -> Vacancy:
    """Where nothing has happened since it was told."""
    return vacancy(name, told, dict.fromkeys(told.run_ids, 0) if told else {}, {})


# ---- one runner


@pytest.mark.parametrize(("free_mb", "fits"), [(64, True), (63, False), (-500, False)])
def test_what_is_no_larger_than_the_room_fits(free_mb: int, fits: bool) -> None:
    assert of("a", room(free_mb, "s-1")).fits(64 * MB) is fits


def test_each_grant_takes_its_room() -> None:
    there = of("a", room(200, "s-1"))
    taken = 0
    while there.fits(64 * MB):
        there.take(64 * MB)
        taken += 1
    assert taken == 3


def test_a_runner_where_nothing_runs_takes_anything() -> None:
    there = of("a", room(-100))
    assert there.fits(4 * GB)
    there.take(4 * GB)
    assert not there.fits(MB)


def test_a_runner_that_tells_no_room_has_room_for_all() -> None:
    there = of("old", None)
    for _ in range(1000):
        assert there.fits(64 * GB)
        there.take(64 * GB)


def test_what_was_granted_since_it_was_told_is_taken_off() -> None:
    told = room(200, "s-1", "t-4")
    live = {"s-1": 64 * MB, "t-4": 500 * MB, "u-1": 150 * MB}
    there = vacancy("a", told, live, {})
    assert (there.free, there.runs) == (50 * MB, 3)


def test_what_has_ended_since_it_was_told_is_given_back_once() -> None:
    told = room(10, "s-1", "t-4", most_runs=2)
    there = vacancy("a", told, {"t-4": 64 * MB}, {"s-1": 90 * MB, "of-before-3": 900 * MB})
    assert (there.free, there.runs) == (100 * MB, 1)
    assert there.fits(100 * MB)


def test_a_restart_finds_the_room_of_the_run_before() -> None:
    told = room(0, "s-1", "t-1")
    assert vacancy("a", told, {"t-1": 64 * MB}, {"s-1": 64 * MB}).fits(64 * MB)


def test_a_cap_holds_whatever_memory_there_is() -> None:
    assert of("a", room(9000, "s-1", most_runs=2)).fits(MB)
    full = of("a", room(9000, "s-1", "t-1", most_runs=2))
    assert not full.fits(MB)
    assert full.why(MB) == "no room on a: 2 runs are there, and it takes 2 at most"
    one = of("a", room(9000, "s-1", most_runs=1))
    assert one.why(MB) == "no room on a: 1 run is there, and it takes 1 at most"


@pytest.mark.parametrize(
    ("free_mb", "total", "words"),
    [
        (102, 2 * GB, "1.9 of 2.0 GB are taken or promised, and it needs 160 MB"),
        (100, 512 * MB, "412 of 512 MB are taken or promised, and it needs 160 MB"),
        (-800, 2 * GB, "2.0 of 2.0 GB are taken or promised, and it needs 160 MB"),
    ],
)
def test_why_it_does_not_fit(free_mb: int, total: int, words: str) -> None:
    assert of("local", room(free_mb, "s-1", total=total)).why(160 * MB - 1) == (
        f"no room on local: {words}"
    )


# ---- several


def test_the_runner_that_had_the_last_run_goes_before_a_roomier_one() -> None:
    both = [of("a", room(900, "s-1")), of("b", room(100, "t-1"))]
    assert choose(both, "b", 64 * MB) is both[1]
    assert choose(both, "b", 200 * MB) is both[0]
    assert choose(both, None, 64 * MB) is both[0]
    assert choose(both, "gone", 64 * MB) is both[0]
    assert choose(both, "b", GB) is None


def test_of_equals_the_first_by_name_is_taken() -> None:
    both = [of("b", room(100, "s-1")), of("a", room(100, "t-1"))]
    assert choose(both, None, MB) is both[1]


def test_why_none_of_several_has_room() -> None:
    both = [of("a", room(90, "s-1")), of("b", room(20, "t-1"))]
    assert why_none(both, None, 160 * MB).startswith("no room on a: 1.9 of 2.0 GB")
    assert why_none(both, "b", 160 * MB).startswith("no room on b: 2.0 of 2.0 GB")
    assert why_none(both, "b", 160 * MB).endswith("and it needs 160 MB; nor on 1 more")


# ---- needs


def test_what_nobody_has_seen_is_taken_for_64_mb() -> None:
    assert needs.expected(None, None) == 64 * MB == UNKNOWN_BYTES


def test_never_more_is_expected_than_it_may_use() -> None:
    assert needs.expected(None, 32) == 32 * MB
    assert needs.expected(None, None, forked=True) == 16 * MB == FORKED_BYTES
    assert needs.expected(90 * MB, None, forked=True) == 90 * MB
    assert needs.expected(900 * MB, 512) == 512 * MB
    assert needs.expected(900 * MB, None) == 900 * MB


def test_more_is_believed_at_once_and_less_within_a_few_runs() -> None:
    assert needs.learn(None, 30, failed=False) == 30
    assert needs.learn(30, 90, failed=False) == 90
    after, runs = 800 * MB, 0
    while after > 60 * MB:  # it needs 50 by now
        learned = needs.learn(after, 50 * MB, failed=False)
        assert learned is not None
        after, runs = learned, runs + 1
    assert 2 < runs < 8


def test_a_run_that_failed_tells_what_is_needed_at_least() -> None:
    assert needs.learn(80, 10, failed=True) == 80
    assert needs.learn(80, 100, failed=True) == 100
    assert needs.learn(None, 10, failed=True) == 10


def test_a_run_that_nobody_saw_teaches_nothing() -> None:
    assert needs.learn(80, None, failed=False) == 80
    assert needs.learn(None, None, failed=False) is None
