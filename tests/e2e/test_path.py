"""The whole path, as its users walk it: one body of tests for every shape of Openbell."""

import signal
from collections.abc import Generator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.fixtures.processes import main_of, members
from tests.fixtures.stack import START, Stack, end_all, eventually, processes_of

TICKER = """
import os, time
print("started", os.getpid(), os.environ["STRATEGY_NAME"], os.environ.get("SYMBOL"))
try:
    while True:
        time.sleep(0.05)
except KeyboardInterrupt:
    print("closing the position")
"""


@pytest.fixture(scope="module", params=list(START))
def openbell(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Stack]:
    home = tmp_path_factory.mktemp("path") / "home"
    try:
        stack = START[request.param](home)
        yield stack
        codes = stack.stop(signal.SIGTERM)
        assert set(codes) <= {0, 1}, codes  # nats-server ends with 1 on SIGTERM
        assert processes_of(home) == []
    finally:
        end_all(home)


def test_upload_start_watch_log_stop(openbell: Stack) -> None:
    with openbell.events() as events:
        assert next(events)[1] == "hello"
        strategy = openbell.upload(TICKER, "Ticker", parameters={"SYMBOL": "SBIN"})
        assert strategy.startswith("ticker-")
        assert openbell.status(strategy)["status"] == "stopped"

        started = openbell.post(f"/python/start/{strategy}", params={"wait": 10})["strategy"]
        assert (started["status"], started["run"]["epoch"]) == ("running", 1)
        log = openbell.wait_log(strategy, "started")
        assert log.split()[2:] == ["Ticker", "SBIN"]
        process = main_of(openbell, strategy)

        stopped = openbell.post(f"/python/stop/{strategy}", params={"wait": 10})["strategy"]
        run = stopped["run"]
        assert (run["reason"], run["exit_code"]) == ("stopped_by_user", 0)
        assert not process.is_running()
        assert "closing the position" in openbell.log(strategy)

        kinds: list[str] = []
        for _, kind, data in events:
            assert data["strategy_id"] == strategy
            kinds.append(kind)
            if kind == "run_exited":
                break
        wanted = ["strategy_uploaded", "intent_changed", "run_granted", "run_started"]
        assert [kind for kind in kinds if kind in wanted] == [*wanted[:1], *wanted[1:], wanted[1]]
    openbell.http.delete(f"/python/delete/{strategy}").raise_for_status()
    assert openbell.http.get(f"/python/status/{strategy}").status_code == 404


def test_exit_code_3_is_a_crash_with_its_last_line(openbell: Stack) -> None:
    crash = "import sys; print('no contract for today', file=sys.stderr); sys.exit(3)"
    strategy = openbell.upload(crash, "Crash", restart="never")
    openbell.post(f"/python/start/{strategy}")
    view = openbell.wait_status(strategy, "crashed")
    assert view["run"]["exit_code"] == 3
    assert "exit code 3: no contract for today" in view["reason"]
    openbell.http.delete(f"/python/delete/{strategy}").raise_for_status()


def test_a_crash_is_started_again_after_a_pause(openbell: Stack) -> None:
    script = """
    import pathlib, sys, time
    mark = pathlib.Path("came")
    if not mark.exists():
        mark.touch()
        sys.exit("first time")
    print("second time")
    time.sleep(600)
    """
    lines = "\n".join(line[4:] for line in script.splitlines())
    strategy = openbell.upload(lines, "Flaky")
    openbell.post(f"/python/start/{strategy}")
    view = eventually(
        lambda: v if (v := openbell.status(strategy))["run"] and v["run"]["epoch"] == 2 else None,
        lambda: str(openbell.status(strategy)),
    )
    assert view["run"]["cause"] == "restart"
    openbell.wait_log(strategy, "second time")
    assert openbell.status(strategy)["reason"] == "restarted after it had failed"
    runs = openbell.http.get(f"/python/runs/{strategy}").json()
    assert [run["reason"] for run in runs] == [None, "crashed"]
    openbell.http.delete(f"/python/delete/{strategy}", params={"stop": True}).raise_for_status()


def test_restart_makes_a_new_run_when_the_old_is_gone(openbell: Stack) -> None:
    strategy = openbell.upload(TICKER, "Restart")
    openbell.post(f"/python/start/{strategy}", params={"wait": 10})
    openbell.wait_log(strategy, "started")
    first = main_of(openbell, strategy)
    view = openbell.post(f"/python/restart/{strategy}", params={"wait": 10})["strategy"]
    assert (view["status"], view["run"]["epoch"]) == ("running", 2)
    assert view["reason"] == "restarted"
    assert not first.is_running()
    openbell.wait_log(strategy, "started")
    openbell.http.delete(f"/python/delete/{strategy}", params={"stop": True}).raise_for_status()


def test_always_starts_at_once_and_stays_stopped_when_stopped(openbell: Stack) -> None:
    strategy = openbell.upload(TICKER, "Always")
    openbell.post(f"/python/schedule/{strategy}", json={"kind": "always"})
    view = openbell.wait_status(strategy, "running")
    assert view["run"]["cause"] == "schedule"
    stopped = openbell.post(f"/python/stop/{strategy}", params={"wait": 10})["strategy"]
    assert stopped["status"] == "paused"
    openbell.post(f"/python/schedule/{strategy}", json={"kind": "always"})
    assert openbell.status(strategy)["status"] == "paused"
    openbell.post(f"/python/resume/{strategy}")
    openbell.wait_status(strategy, "running")
    openbell.post(f"/python/stop/{strategy}", params={"wait": 10})
    openbell.http.delete(f"/python/delete/{strategy}").raise_for_status()


def test_a_market_schedule_tells_what_comes_next(openbell: Stack) -> None:
    strategy = openbell.upload(TICKER, "Market")
    closed = "mon" if datetime.now(UTC).weekday() >= 2 else "fri"  # not now, whatever day it is
    hours = {"start": "09:15", "stop": "15:30", "weekdays": [closed]}
    spec = {"kind": "market", "exchange": "nse", **hours}
    answer = openbell.post(f"/python/schedule/{strategy}", json=spec)
    view = answer["strategy"]
    assert view["schedule"]["exchange"] == "NSE"
    assert view["next_start"].endswith("T03:45:00Z")
    assert view["next_stop"].endswith("T10:00:00Z")
    openbell.post(f"/python/stop/{strategy}")
    openbell.http.delete(f"/python/schedule/{strategy}").raise_for_status()
    assert openbell.status(strategy)["schedule"] is None
    openbell.http.delete(f"/python/delete/{strategy}").raise_for_status()


def test_the_whole_tree_is_gone_before_it_is_called_stopped(openbell: Stack) -> None:
    script = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
child = subprocess.Popen(sleep, start_new_session=True)
print("tree", os.getpid(), child.pid)
time.sleep(600)
"""
    strategy = openbell.upload(script, "Stubborn", stop_grace_s="0.4")
    openbell.post(f"/python/start/{strategy}", params={"wait": 10})
    openbell.wait_log(strategy, "tree")
    tree = members(openbell.status(strategy)["run"]["id"])
    assert len(tree) == 2
    run = openbell.post(f"/python/stop/{strategy}", params={"wait": 20})["strategy"]["run"]
    assert (run["state"], run["signal"], run["reason"]) == ("exited", "SIGKILL", "stopped_by_user")
    assert not any(process.is_running() for process in tree)
    openbell.http.delete(f"/python/delete/{strategy}").raise_for_status()


def test_a_log_is_read_by_offset_and_never_cuts_a_character(openbell: Stack) -> None:
    strategy = openbell.upload("print('₹' * 100)", "Rupees")
    openbell.post(f"/python/start/{strategy}")
    openbell.wait_status(strategy, "stopped")
    text, offset = "", 0
    while True:
        chunk = openbell.http.get(
            f"/python/logs/{strategy}", params={"offset": offset, "limit": 7}
        ).json()
        text += chunk["content"]
        if chunk["next_offset"] == offset:
            break
        offset = chunk["next_offset"]
    assert text == "₹" * 100 + "\n"
    openbell.http.delete(f"/python/delete/{strategy}").raise_for_status()


def test_events_resume_where_a_client_left_them(openbell: Stack) -> None:
    with openbell.events() as events:
        last_id, kind, _ = next(events)
        assert kind == "hello"
    strategy = openbell.upload("pass", "While you were away")
    with openbell.events(last_id) as events:
        assert next(events)[1] == "hello"
        _, kind, data = next(events)
        assert (kind, data["strategy_id"]) == ("strategy_uploaded", strategy)
    with openbell.events("0-17") as events:
        assert next(events)[1] == "reset"
    openbell.http.delete(f"/python/delete/{strategy}").raise_for_status()


def test_one_home_has_one_folder_for_each_kind_of_thing(openbell: Stack) -> None:
    strategy = openbell.upload("print(__file__)", "Folders")
    openbell.post(f"/python/start/{strategy}")
    openbell.wait_status(strategy, "stopped")
    source = openbell.home / "strategies" / strategy / "script.py"
    assert source.read_text() == "print(__file__)"
    log = openbell.home / "log" / "strategies" / strategy / f"{strategy}-1.log"
    assert Path(log.read_text().strip()) == source
    assert log.stat().st_mode & 0o077 == 0
    openbell.http.delete(f"/python/delete/{strategy}").raise_for_status()
