"""When a run has broken what its policy says, and what its end is put down to."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from openbell.contracts.limits import Limits, Usage, Watchdogs
from openbell.contracts.model import ExitReason
from services.runner.monitor.host import default_memory_mb
from services.runner.monitor.samples import UNCOUNTABLE, WATCHED_ONLY, Enforced, Reading, Sample
from services.runner.monitor.verdicts import KEPT_S, MB, Verdict, concluded, judge

LIMITS = Limits(memory_mb=512, processes=64, disk_mb=100)
OFF = Watchdogs()
ENFORCED = Enforced(memory=True, processes=True)
CALM = Reading(memory=100 * MB, processes=2, cpu_s=1)


def looks(*readings: Reading, every_s: float = 1, age_s: float = 100) -> list[Sample]:
    """One after another; the first one, of a run of this age."""
    return [
        Sample(at=1000 + n * every_s, age_s=age_s + n * every_s, reading=reading)
        for n, reading in enumerate(readings)
    ]


def using(memory: int) -> Reading:
    return replace(CALM, memory=memory)


def having(processes: int, refused: int = 0) -> Reading:
    return replace(CALM, processes=processes, refused=refused)


def verdict(samples: Sequence[Sample], enforced: Enforced = WATCHED_ONLY) -> Verdict | None:
    return judge(LIMITS, OFF, samples, enforced)


@pytest.mark.parametrize("enforced", [WATCHED_ONLY, ENFORCED])
def test_a_run_that_keeps_to_its_policy_goes_on(enforced: Enforced) -> None:
    assert verdict([], enforced) is None
    assert verdict(looks(CALM), enforced) is None
    assert verdict(looks(CALM, CALM, CALM), enforced) is None


# ---- memory


def test_too_much_memory_at_two_looks_on_end_is_watched() -> None:
    over = using(612 * MB)
    assert verdict(looks(over)) is None
    assert verdict(looks(over, CALM, over)) is None
    wanted = Verdict(ExitReason.MEMORY_LIMIT, "used 612 MB of 512 MB")
    assert verdict(looks(CALM, over, over)) == wanted
    assert wanted.at_once


def test_all_of_its_memory_is_not_too_much() -> None:
    assert verdict(looks(using(512 * MB), using(512 * MB))) is None
    found = verdict(looks(using(512 * MB + 1), using(512 * MB + 1)))
    assert found is not None
    assert found.detail == "used 513 MB of 512 MB"


def test_where_the_host_enforces_memory_it_is_not_watched() -> None:
    """Its group counts file cache, which the kernel takes back."""
    assert verdict(looks(using(600 * MB), using(600 * MB)), ENFORCED) is None


def test_a_process_ended_for_want_of_memory_ends_the_run() -> None:
    """Where the kernel ends one alone, of control groups of the first version."""
    short = replace(CALM, out_of_memory=1, peak_memory=512 * MB)
    found = verdict(looks(short), ENFORCED)
    told = "a process of it was ended: it may use 512 MB"
    assert found == Verdict(ExitReason.MEMORY_LIMIT, told)
    two = replace(short, out_of_memory=2, peak_memory=None)
    found = verdict(looks(two), ENFORCED)
    assert found is not None
    assert found.detail == "2 processes of it were ended: it may use 512 MB"


def test_a_host_without_memory_is_not_called_its_limit() -> None:
    short = replace(CALM, out_of_memory=1, peak_memory=120 * MB)
    found = verdict(looks(short), ENFORCED)
    assert found is not None
    assert "the host had no memory left; it had used 120 MB of 512 MB at most" in found.detail


def test_no_limit_of_memory_is_none() -> None:
    limits = Limits(memory_mb=None)
    over = using(2**50)
    assert judge(limits, OFF, looks(over, over), WATCHED_ONLY) is None


# ---- processes


def test_too_many_processes_at_two_looks_on_end_are_watched() -> None:
    assert verdict(looks(having(65))) is None
    assert verdict(looks(having(64), having(64))) is None
    assert verdict(looks(having(65), having(64), having(65))) is None
    found = verdict(looks(CALM, having(65), having(70)))
    assert found == Verdict(ExitReason.PROCESS_LIMIT, "had 70 of 64 processes and threads")


def test_a_fork_bomb_is_refused_for_ten_seconds() -> None:
    bomb = looks(*(having(64, refused=100 * n) for n in range(11)))
    assert verdict(bomb[:10], ENFORCED) is None
    found = verdict(bomb, ENFORCED)
    assert found is not None
    assert found.reason is ExitReason.PROCESS_LIMIT
    assert found.detail == "asked for more than 64 processes and threads for 10 s"
    assert verdict(bomb) is None  # a host that does not enforce it refuses nothing


def test_one_look_without_a_refusal_is_a_pause() -> None:
    counts = [0, 1, 2, 3, 4, 5, 5, 6, 7, 8, 9, 10]
    assert verdict(looks(*(having(64, refused=n) for n in counts)), ENFORCED) is None


def test_it_must_be_at_its_limit_all_the_time() -> None:
    """Nearly: the processes of a bomb come and go."""
    nearly = looks(*(having(58, refused=n) for n in range(11)))
    assert verdict(nearly, ENFORCED) is not None
    below = [replace(one, reading=having(57, refused=n)) for n, one in enumerate(nearly)]
    assert verdict(below, ENFORCED) is None
    once = [*nearly[:5], below[5], *nearly[6:]]
    assert verdict(once, ENFORCED) is None


def test_rare_looks_count_by_their_time() -> None:
    assert verdict(looks(CALM, having(64, refused=1), every_s=10), ENFORCED) is not None
    assert verdict(looks(CALM, having(64, refused=1), every_s=9.5), ENFORCED) is None


def test_what_is_kept_is_enough_to_judge() -> None:
    assert KEPT_S > 10


# ---- disk


def test_a_folder_that_holds_too_much() -> None:
    look = looks(CALM)[0]
    assert verdict([replace(look, folder_bytes=100 * MB)]) is None
    found = verdict([replace(look, folder_bytes=150 * MB)], ENFORCED)
    assert found == Verdict(ExitReason.DISK_LIMIT, "its folder holds 150 MB of 100 MB")
    found = verdict([replace(look, folder_bytes=UNCOUNTABLE)])
    told = "its folder holds more folders than can be counted"
    assert found == Verdict(ExitReason.DISK_LIMIT, told)


# ---- watchdogs


def test_a_quiet_run_has_stalled() -> None:
    watchdogs = Watchdogs(quiet_s=60)
    look = looks(CALM)[0]
    assert judge(LIMITS, watchdogs, [replace(look, quiet_s=59.9)], ENFORCED) is None
    wanted = Verdict(ExitReason.STALLED, "wrote nothing for 60 s")
    assert judge(LIMITS, watchdogs, [replace(look, quiet_s=60)], ENFORCED) == wanted
    assert not wanted.at_once


def test_a_run_without_a_heartbeat_has_stalled() -> None:
    watchdogs = Watchdogs(heartbeat_s=30)
    look = looks(CALM)[0]
    assert judge(LIMITS, watchdogs, [replace(look, unbeaten_s=29.9)], ENFORCED) is None
    found = judge(LIMITS, watchdogs, [replace(look, unbeaten_s=31)], ENFORCED)
    assert found == Verdict(ExitReason.STALLED, "did not touch its heartbeat file for 31 s")


def test_watchdogs_are_off_unless_they_are_set() -> None:
    look = replace(looks(CALM)[0], quiet_s=10**6, unbeaten_s=10**6)
    assert judge(LIMITS, OFF, [look], ENFORCED) is None


def test_a_limit_goes_before_a_watchdog() -> None:
    """It ends at once, where a ladder would let it go on."""
    over = [replace(one, quiet_s=100) for one in looks(using(600 * MB), using(600 * MB))]
    found = judge(LIMITS, Watchdogs(quiet_s=60), over, WATCHED_ONLY)
    assert found is not None
    assert found.reason is ExitReason.MEMORY_LIMIT


# ---- how it ended


def end(
    refused: int, samples: Sequence[Sample], reason: ExitReason = ExitReason.CRASHED
) -> Verdict | None:
    return concluded(reason, Usage(refused=refused), samples, LIMITS)


def test_a_crash_after_a_refusal_is_put_down_to_it() -> None:
    samples = looks(*(having(2, refused=3) for _ in range(8)))
    found = end(4, samples)
    assert found is not None
    assert found.reason is ExitReason.PROCESS_LIMIT
    assert "64 may be there at one time" in found.detail
    assert end(3, samples) is None


def test_a_refusal_that_it_survived_for_five_seconds_is_not() -> None:
    counts = [0, 1, 1, 1, 1, 1, 1]
    assert end(1, looks(*(having(2, n) for n in counts))) is None
    assert end(1, looks(*(having(2, n) for n in counts[:-1]))) is not None


def test_a_run_that_ended_before_any_look() -> None:
    assert end(0, []) is None
    assert end(1, []) is not None


def test_a_young_run_was_refused_by_now() -> None:
    assert end(1, looks(having(2, 1), having(2, 1), age_s=0.5)) is not None


def test_of_a_run_that_was_found_running_the_first_look_counts() -> None:
    assert end(1, looks(having(2, 1), age_s=1000)) is None
    assert end(2, looks(having(2, 1), age_s=1000)) is not None


@pytest.mark.parametrize(
    "reason", [reason for reason in ExitReason if reason is not ExitReason.CRASHED]
)
def test_other_ends_have_another_cause(reason: ExitReason) -> None:
    assert end(5, [], reason) is None


@pytest.mark.parametrize("reason", [ExitReason.CRASHED, ExitReason.KILLED])
def test_a_run_that_the_kernel_ended_ran_out_of_memory(reason: ExitReason) -> None:
    usage = Usage(out_of_memory=3, peak_memory_bytes=512 * MB)
    found = concluded(reason, usage, [], LIMITS)
    assert found == Verdict(
        ExitReason.MEMORY_LIMIT, "3 processes of it were ended: it may use 512 MB"
    )


@pytest.mark.parametrize(
    "reason", [ExitReason.COMPLETED, ExitReason.STOPPED_BY_USER, ExitReason.STALLED]
)
def test_a_run_that_did_without_them_ended_as_it_said(reason: ExitReason) -> None:
    usage = Usage(out_of_memory=1, refused=1)
    assert concluded(reason, usage, [], LIMITS) is None


# ---- the host


@pytest.mark.parametrize(
    ("gib", "wanted"),
    [
        (0.25, 128),
        (0.95, 128),
        (1.9, 256),
        (2, 256),
        (2.9, 384),
        (3.7, 512),
        (4, 512),
        (6, 768),
        (7.5, 1024),
        (8, 1024),
        (64, 1024),
    ],
)
def test_the_memory_of_a_run_is_by_the_size_of_its_host(gib: float, wanted: int) -> None:
    """A machine of 4 GB tells of 3.7 to 3.9."""
    assert default_memory_mb(int(gib * 1024**3)) == wanted
