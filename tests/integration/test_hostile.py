"""Strategies that do their worst, beside two that behave: each ends as it should, and alone.

What the host itself must enforce is tested as enforced; elsewhere those tests are skipped.
"""

import os
from pathlib import Path

import pytest

from tests.fixtures import attacked
from tests.fixtures.hostile import CAP_BYTES, Ground
from tests.fixtures.logs import disk_bytes
from tests.fixtures.stack import eventually
from tests.hostile import attacks
from tests.hostile.endings import ENDINGS, STAYING

MB = 1024**2
SHADOW = Path("/etc/shadow")


def test_attacks_come_up_as_they_are_meant_to(ground: Ground) -> None:
    source = "import sys; print('forked' if 'socket' in sys.modules else 'executed')"
    strategy = ground.start(source, "itself")
    assert ground.stack.wait_log(strategy, "ed\n") == ("forked\n" if ground.forks else "executed\n")


@pytest.mark.parametrize("name", ENDINGS)
def test_who_takes_more_than_its_share_is_ended(ground: Ground, name: str) -> None:
    attacked.is_ended(ground, name)


def test_who_spins_at_its_limit_can_be_stopped(ground: Ground) -> None:
    ground.needs("pids_limit")
    limits = {"limits": {"processes": 64}}
    with ground.at_peace():
        strategy = ground.start(attacks.THREADS_AGAIN_AND_AGAIN, "spinning", limits=limits)
        ground.stack.wait_log(strategy, "begun")
        assert ground.stop(strategy)["reason"] == "stopped_by_user"
    ground.is_gone(strategy)


@pytest.mark.parametrize("name", STAYING)
def test_who_would_stay_is_stopped_with_all_it_has(ground: Ground, name: str) -> None:
    attacked.is_stopped(ground, name)


def test_a_daemon_that_hears_nothing_ends_soon_after_its_run(ground: Ground) -> None:
    attacked.is_outlived_by_nobody(ground)


def test_who_signals_everybody_reaches_itself_alone(ground: Ground) -> None:
    attacked.signals_itself_alone(ground)


# ---- traps


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_a_trap_in_its_folder_catches_nobody(ground: Ground, kind: str) -> None:
    """The same script is started again, from where another thing lies by its name."""
    before = SHADOW.stat() if SHADOW.exists() else None
    known = {"KIND": kind, "RUNNER": str(ground.stack.processes[0].pid)}
    strategy = ground.upload(
        attacks.PLANTED,
        f"planted {kind}",
        parameters=known,
        limits={"watchdogs": {"heartbeat_s": 600}},
    )
    with ground.at_peace():
        for epoch in (1, 2):
            ground.stack.post(f"/python/start/{strategy}", params={"wait": 10})
            eventually(
                lambda e=epoch: "planted" in ground.stack.log(strategy, f"{strategy}-{e}") or None,
                lambda: f"{ground.stack.status(strategy)} {ground.stack.log(strategy)}",
            )
            ground.stop(strategy)
    after = SHADOW.stat() if SHADOW.exists() else None
    assert before == after or (before and after and _alike(before, after))
    ground.is_gone(strategy)
    ground.stack.http.delete(f"/python/delete/{strategy}").raise_for_status()


def _alike(before: os.stat_result, after: os.stat_result) -> bool:
    """All but when it was read last."""
    return all(
        getattr(before, name) == getattr(after, name)
        for name in ("st_mode", "st_uid", "st_gid", "st_size", "st_mtime_ns", "st_ctime_ns")
    )


def test_a_crowded_folder_is_started_and_stopped_as_any(ground: Ground) -> None:
    with ground.at_peace():
        strategy = ground.start(attacks.CROWD, "crowd")
        ground.stack.wait_log(strategy, "crowded")
        ground.stop(strategy)
        view = ground.stack.post(f"/python/start/{strategy}", params={"wait": 10})["strategy"]
        assert view["status"] == "running"
        ground.stop(strategy)
    ground.is_gone(strategy)


# ---- logs


def test_a_flood_of_output_takes_up_little_more_than_its_cap(ground: Ground) -> None:
    with ground.at_peace():
        strategy = ground.start(attacks.FLOOD, "flood", parameters={"MEGABYTES": "200"})
        ground.stack.wait_log(strategy, "flooded")
        assert log_of(ground, strategy).stat().st_size > 200 * 10**6
        is_capped(ground, strategy)
        tail = ground.stack.http.get(f"/python/logs/{strategy}", params={"offset": -8}).json()
        assert tail["content"] == "flooded\n"
        ground.stop(strategy)
    ground.is_gone(strategy)


def test_a_log_of_four_terabytes_of_nothing_keeps_nobody_busy(ground: Ground) -> None:
    with ground.at_peace():
        strategy = ground.start(attacks.INFLATED, "inflated")
        ground.stack.wait_log(strategy, "inflated")
        other = ground.start(attacks.FLOOD, "beside", parameters={"MEGABYTES": "20"})
        ground.stack.wait_log(other, "flooded")
        is_capped(ground, other)
        for one in (strategy, other):
            ground.stop(one)
    ground.is_gone(strategy)
    ground.is_gone(other)


def is_capped(ground: Ground, strategy: str) -> None:
    log = log_of(ground, strategy)
    eventually(
        lambda: disk_bytes(log) < CAP_BYTES + 2 * MB or None,
        lambda: f"{log} takes up {disk_bytes(log) // MB} MB",
    )


def log_of(ground: Ground, strategy: str) -> Path:
    return ground.stack.home / "log" / "strategies" / strategy / f"{strategy}-1.log"


def test_a_log_that_is_cut_and_locked_by_its_script_is_read_on(ground: Ground) -> None:
    strategy = ground.start(attacks.CUT, "cut")
    before = ground.stack.wait_log(strategy, "before")
    assert before
    (ground.stack.home / "strategies" / strategy / "seen").touch()
    assert "before" not in ground.stack.wait_log(strategy, "after")
    ground.stop(strategy)
    ground.is_gone(strategy)


def test_what_is_no_text_is_served_as_text(ground: Ground) -> None:
    with ground.at_peace():
        strategy = ground.start(attacks.TWISTED, "twisted")
        run = ground.ended(strategy)
    assert run["reason"] == "crashed"
    view = ground.stack.status(strategy)
    assert "red" in view["reason"]
    shown = [view["reason"], run["headline"]]
    assert all(text.isprintable() for text in shown), shown
    beginning = ground.stack.http.get(f"/python/logs/{strategy}", params={"offset": 0}).json()
    assert "\x1b]0;owned" in beginning["content"]
    ground.is_gone(strategy)


def test_nothing_went_wrong_within_the_product(ground: Ground) -> None:
    """Last of all: what it has met was foreseen."""
    ground.has_met_no_surprise()
