"""How a run is walked off the stage, with the time passed in."""

import pytest

from services.runner.warden.host import End, Identity, Usage
from services.runner.warden.protocol import Steps
from services.runner.warden.runs import Run, exit_reason

POLITE: Steps = (("SIGINT", 7.5), ("SIGTERM", 7.5), ("SIGKILL", 0.0))
HARD: Steps = (("SIGKILL", 0.0),)


def a_run() -> Run:
    main = Identity(100, 1)
    return Run("r", "s", 1, main, 0.0, frozenset({main}))


def test_a_quiet_run_has_nothing_due():
    run = a_run()
    assert run.state == "running"
    assert run.signals(1e9) == ()
    assert run.next_at == float("inf")


def test_the_ladder_is_climbed_one_wait_at_a_time():
    run = a_run()
    assert run.stop("stopped_by_user", POLITE, now=100)
    assert run.state == "stopping"
    assert run.signals(100) == ("SIGINT",)
    assert run.signals(107.4) == ()
    assert run.signals(107.5) == ("SIGTERM",)
    assert run.signals(115) == ("SIGKILL",)


def test_a_kill_is_repeated_until_nobody_is_left():
    run = a_run()
    run.stop("stopped_by_user", HARD, now=0)
    assert [run.signals(0), run.signals(0.25), run.signals(0.5)] == [("SIGKILL",)] * 3


def test_a_late_step_gives_the_full_wait_to_the_next():
    run = a_run()
    run.stop("stopped_by_user", POLITE, now=0)
    assert run.signals(50) == ("SIGINT",)
    assert run.signals(57) == ()
    assert run.signals(57.5) == ("SIGTERM",)


def test_steps_without_a_wait_fall_due_together():
    run = a_run()
    run.stop("stopped_by_user", (("SIGINT", 0.0), ("SIGTERM", 1.0)), now=0)
    assert run.signals(0) == ("SIGINT", "SIGTERM")


def test_a_later_stop_counts_only_if_it_ends_sooner_and_the_first_reason_stays():
    run = a_run()
    run.stop("stopped_by_schedule", POLITE, now=0)
    assert run.signals(0) == ("SIGINT",)
    assert not run.stop("stopped_by_user", POLITE, now=1)
    assert not run.stop("stopped_by_user", (("SIGTERM", 0.0),), now=1), "it never kills"
    assert run.signals(1) == ()
    assert run.stop("stopped_by_user", HARD, now=2)
    assert run.signals(2) == ("SIGKILL",)
    assert run.asked == "stopped_by_schedule"


def test_a_ladder_that_ran_out_without_a_kill_gives_way_to_any():
    run = a_run()
    run.stop("stopped_by_user", (("SIGINT", 1.0),), now=0)
    assert run.signals(0) == ("SIGINT",)
    assert run.stop("stopped_by_user", (("SIGTERM", 1.0),), now=5)
    assert run.signals(5) == ("SIGTERM",)


def test_a_ladder_of_an_earlier_warden_goes_on_where_it_was():
    """Its first signal was sent: nobody who cleans up is interrupted twice."""
    run = a_run()
    run.stop("stopped_by_user", POLITE, now=100, ago=5)
    assert run.signals(100) == ()
    assert run.next_at == 102.5
    assert run.signals(102.5) == ("SIGTERM",)
    assert run.signals(110) == ("SIGKILL",)


def test_a_ladder_whose_next_step_was_due_without_a_warden_gives_it_the_full_wait():
    run = a_run()
    run.stop("stopped_by_user", POLITE, now=100, ago=60)
    assert run.signals(100) == ("SIGTERM",)
    assert run.signals(107) == ()
    assert run.signals(107.5) == ("SIGKILL",)


def test_a_kill_of_an_earlier_warden_is_sent_again():
    run = a_run()
    run.stop("stopped_by_user", HARD, now=100, ago=60)
    assert run.signals(100) == ("SIGKILL",)


def test_what_the_main_process_leaves_behind_is_ended():
    run = a_run()
    run.ended(End(exit_code=0), now=10)
    assert run.signals(10) == ("SIGTERM",)
    assert run.signals(14.9) == ()
    assert run.signals(15) == ("SIGKILL",)


def test_a_stop_of_what_is_left_behind_does_not_change_why_it_ended():
    run = a_run()
    run.ended(End(exit_code=3), now=10)
    run.stop("stopped_by_user", HARD, now=11)
    assert run.asked is None
    assert run.signals(11) == ("SIGKILL",)


def test_a_worker_that_outlives_its_launcher_keeps_the_grace_of_the_stop():
    run = a_run()
    run.stop("stopped_by_user", POLITE, now=0)
    assert run.signals(0) == ("SIGINT",)
    run.ended(End(exit_code=0), now=1)
    assert run.signals(7) == ()
    assert run.signals(7.5) == ("SIGTERM",)


def test_a_worker_of_a_stop_that_never_kills_is_ended_all_the_same():
    run = a_run()
    run.stop("stopped_by_user", (("SIGINT", 1.0),), now=0)
    assert run.signals(0) == ("SIGINT",)
    run.ended(End(exit_code=0), now=3)
    assert run.signals(3) == ("SIGTERM",)
    assert run.signals(8) == ("SIGKILL",)


@pytest.mark.parametrize(
    ("asked", "end", "reason"),
    [
        (None, End(exit_code=0), "completed"),
        (None, End(exit_code=3), "crashed"),
        (None, End(signal="SIGSEGV"), "crashed"),
        (None, End(signal="SIGSYS"), "crashed"),
        (None, End(signal="SIGKILL"), "killed"),
        (None, End(signal="SIGINT"), "killed"),
        (None, End(detail="unseen"), "lost"),
        ("stopped_by_user", End(exit_code=1), "stopped_by_user"),
        ("stopped_by_user", End(detail="unseen"), "stopped_by_user"),
        (None, End(detail="no such file", executed=False), "start_failed"),
        ("stopped_by_user", End(detail="no such file", executed=False), "stopped_by_user"),
        (None, End(signal="SIGKILL", usage=Usage(out_of_memory=1)), "memory_limit"),
        (None, End(exit_code=1, usage=Usage(out_of_memory=1)), "memory_limit"),
        (None, End(exit_code=0, usage=Usage(out_of_memory=1)), "completed"),
    ],
)
def test_every_end_has_its_reason(asked: str | None, end: End, reason: str):
    assert exit_reason(asked, end) == reason
