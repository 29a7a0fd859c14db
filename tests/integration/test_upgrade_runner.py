"""The runner is replaced, without a word to what runs: nothing is lost, nothing comes twice."""

import re
import sys
import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.fixtures.processes import main_of, members
from tests.fixtures.stack import (
    SERVICES,
    Stack,
    add_service,
    end_all,
    eventually,
    processes_of,
    start_five_processes,
)

SEVERAL, ENDING = 60, 25
RUNNER = 1 + SERVICES.index("runner")
COUNTER = """
import fcntl, os, pathlib, signal, sys, time
lock = open("alone", "w")
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    pathlib.Path("twice").touch()
print("begun", flush=True)
number = 0
while not os.path.exists("end"):
    number += 1
    print("line", number, flush=True)
    time.sleep(0.1)
print("last", number, flush=True)
code = int(pathlib.Path("end").read_text())
if code < 0:
    os.kill(os.getpid(), -code)
sys.exit(code)
"""
"""Numbers its lines; ends as the file `end` says: with a code, or by a signal of its own."""
SLOW_TO_STOP = """
import time
print("begun", flush=True)
try:
    time.sleep(600)
except KeyboardInterrupt:
    print("cleaning up", flush=True)
    time.sleep(1)
    print("clean", flush=True)
"""


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Generator[Stack]:
    home = tmp_path_factory.mktemp("upgrade") / "home"
    try:
        stack = start_five_processes(home)
        yield stack
        stack.stop()
        assert processes_of(home) == []
    finally:
        end_all(home)


def kill_runner(stack: Stack) -> None:
    runner = stack.processes[RUNNER]
    runner.kill()
    runner.wait()


def started(stack: Stack, source: str, names: list[str], **form: Any) -> list[str]:
    ids = [stack.upload(source, name, restart="never", **form) for name in names]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(partial(start, stack), ids))
    for strategy in ids:
        stack.wait_log(strategy, "begun")
    return ids


def start(stack: Stack, strategy: str) -> None:
    stack.post(f"/python/start/{strategy}", params={"wait": 30})


def ending(number: int) -> tuple[int, dict[str, Any]]:
    """What a script is told, and what must be told of it."""
    if number % 5 == 4 and sys.platform != "win32":
        return -11, {"reason": "crashed", "signal": "SIGSEGV", "exit_code": None}
    code = number % 5
    reason = "crashed" if code else "completed"
    return code, {"reason": reason, "signal": None, "exit_code": code}


def tell_to_end(stack: Stack, strategy: str, code: int) -> None:
    end = stack.home / "strategies" / strategy / "end"
    end.with_suffix(".new").write_text(str(code))
    end.with_suffix(".new").rename(end)


def whole_log(stack: Stack, strategy: str) -> str:
    text, offset = "", 0
    while True:
        params = {"offset": offset, "run": f"{strategy}-1"}
        chunk = stack.http.get(f"/python/logs/{strategy}", params=params).json()
        text += chunk["content"]
        if chunk["next_offset"] == offset:
            return text
        offset = chunk["next_offset"]


def test_sixty_are_found_again_while_25_of_them_end(apart: Stack) -> None:
    ids = started(apart, COUNTER, [f"counter {n}" for n in range(SEVERAL)])
    mains = {strategy: main_of(apart, strategy) for strategy in ids}
    gone, alive = ids[:ENDING], ids[ENDING:]
    kill_runner(apart)
    ended = {strategy: ending(number) for number, strategy in enumerate(gone)}
    for strategy in gone[::2]:
        tell_to_end(apart, strategy, ended[strategy][0])
    psutil.wait_procs([mains[strategy] for strategy in gone[::2]])
    adding = threading.Thread(target=add_service, args=(apart, "runner"))
    adding.start()  # the others end while it comes up
    for strategy in gone[1::2]:
        tell_to_end(apart, strategy, ended[strategy][0])
    adding.join()
    for strategy, (_, told) in ended.items():
        run = apart.wait_status(strategy, "stopped", "crashed")["run"]
        assert {name: run[name] for name in told} == told
    for strategy in alive:
        view = apart.status(strategy)
        assert (view["status"], view["run"]["epoch"]) == ("running", 1)
        assert main_of(apart, strategy) == mains[strategy]
        tell_to_end(apart, strategy, 0)
    for strategy in alive:
        run = apart.wait_status(strategy, "stopped", "crashed")["run"]
        assert (run["reason"], run["exit_code"]) == ("completed", 0)
    assert list(apart.home.glob("strategies/*/twice")) == []
    for strategy in ids:
        assert len(apart.http.get(f"/python/runs/{strategy}").json()) == 1
        lines = whole_log(apart, strategy).splitlines()
        last = int(lines[-1].removeprefix("last "))
        assert lines == ["begun", *(f"line {n}" for n in range(1, last + 1)), f"last {last}"]


def test_what_was_told_to_stop_stops_though_its_runner_is_killed(apart: Stack) -> None:
    ids = started(apart, SLOW_TO_STOP, [f"stopping {n}" for n in range(5)])
    for strategy in ids:
        apart.post(f"/python/stop/{strategy}")
    for strategy in ids:
        apart.wait_log(strategy, "cleaning up")
    kill_runner(apart)
    add_service(apart, "runner")
    for strategy in ids:
        run = apart.wait_status(strategy, "stopped")["run"]
        assert (run["reason"], run["exit_code"]) == ("stopped_by_user", 0)
        assert whole_log(apart, strategy).endswith("clean\n")


def test_a_stop_that_comes_while_there_is_no_runner_is_done_by_the_next(apart: Stack) -> None:
    ids = started(apart, COUNTER, [f"unheard {n}" for n in range(3)])
    kill_runner(apart)
    for strategy in ids:
        apart.post(f"/python/stop/{strategy}")
    add_service(apart, "runner")
    for strategy in ids:
        assert apart.wait_status(strategy, "stopped")["run"]["reason"] == "stopped_by_user"
        assert members(f"{strategy}-1") == []


def test_a_start_that_is_stopped_at_once_leaves_nothing(apart: Stack) -> None:
    """However far it has come: granted, fetched, prepared, executed."""
    ids = [apart.upload(COUNTER, f"hasty {n}", restart="never") for n in range(12)]
    for number, strategy in enumerate(ids):
        apart.post(f"/python/start/{strategy}")
        threading.Event().wait(0.005 * number)  # the moment of the stop is this test's parameter
        apart.post(f"/python/stop/{strategy}")
    for strategy in ids:
        view = apart.wait_status(strategy, "stopped")
        assert view["run"]["state"] == "exited"
        assert view["run"]["reason"] == "stopped_by_user", view
        assert members(f"{strategy}-1") == []


def test_a_start_that_is_held_for_its_instant_is_taken_back(apart: Stack) -> None:
    strategy = apart.upload(COUNTER, "held")
    due = (datetime.now(UTC) + timedelta(seconds=14)).isoformat()  # within the lead of a grant
    apart.post(f"/python/schedule/{strategy}", json={"kind": "once", "at": due})
    journal = apart.home / "data" / "warden" / "journal.jsonl"
    parked = f'"kind":"parked","run":"{strategy}-1"'
    eventually(lambda: parked in journal.read_text() or None, lambda: str(apart.status(strategy)))
    kill_runner(apart)
    add_service(apart, "runner")
    view = apart.post(f"/python/stop/{strategy}", params={"wait": 20})["strategy"]
    assert (view["run"]["state"], view["run"]["reason"]) == ("exited", "stopped_by_user")
    assert members(f"{strategy}-1") == []
    assert not (apart.home / "strategies" / strategy / "alone").exists()


def test_a_crash_and_a_stop_at_one_time_are_one_end(apart: Stack) -> None:
    """Whoever comes first gives the reason; afterwards it stays stopped."""
    ids = started(apart, COUNTER, [f"both {n}" for n in range(6)])
    for strategy in ids:
        tell_to_end(apart, strategy, 3)
        apart.post(f"/python/stop/{strategy}")
    for strategy in ids:
        view = apart.wait_status(strategy, "stopped", "crashed")
        assert view["run"]["reason"] in {"crashed", "stopped_by_user"}
        assert (view["intent"], view["retry_at"]) == ("stop", None)
        assert len(apart.http.get(f"/python/runs/{strategy}").json()) == 1


def test_everything_is_stopped_while_the_runner_comes_up(apart: Stack) -> None:
    ids = started(apart, COUNTER, [f"all {n}" for n in range(10)])
    mains = [main_of(apart, strategy) for strategy in ids]
    kill_runner(apart)
    with ThreadPoolExecutor(1) as pool:
        adding = pool.submit(add_service, apart, "runner")
        path, params = "/python/stop-all", {"wait": 25}
        stopped = apart.post(path, params=params)
        adding.result()
    assert stopped["all_gone"], stopped
    assert not any(main.is_running() for main in mains)


def test_nothing_went_wrong_within(apart: Stack) -> None:
    """Last of all: what the services have met was foreseen."""
    for log in sorted(Path(apart.home).glob("*.stderr")):
        assert not re.search("Traceback|failed; it begins anew", log.read_text()), log.name
