"""kill -9 of any part, at any moment: what should run goes on, and nothing runs twice."""

import contextlib
import itertools
import json
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from pathlib import Path

import httpx
import psutil
import pytest

from tests.fixtures.processes import main_of
from tests.fixtures.stack import (
    SERVICES,
    Stack,
    add_service,
    eventually,
    processes_of,
    start_five_processes,
    start_one_process,
)

ALONE = """
import fcntl, os, pathlib, sys, time
lock = open("alone", "w")
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    pathlib.Path("twice").touch()
print("pid", os.getpid(), flush=True)
stop = pathlib.Path("stop")
while not stop.exists():
    time.sleep(0.02)
sys.exit(int(stop.read_text()))
"""
"""Leaves a mark when a second copy of it lives; ends with the code that the test writes."""


def process_of(stack: Stack, strategy: str) -> psutil.Process:
    stack.wait_log(strategy, "pid")
    return main_of(stack, strategy)


def tell_to_end(home: Path, strategy: str, code: int) -> None:
    stop = home / "strategies" / strategy / "stop"
    stop.with_suffix(".new").write_text(str(code))
    stop.with_suffix(".new").rename(stop)


def ended_twice(home: Path) -> list[Path]:
    return list(home.glob("strategies/*/twice"))


def test_the_product_is_killed_and_its_strategies_go_on(home: Path) -> None:
    stack = start_one_process(home)
    ids = [stack.upload(ALONE, f"s{n}", restart="never") for n in range(6)]
    for strategy in ids:
        stack.post(f"/python/start/{strategy}", params={"wait": 10})
    processes = {strategy: process_of(stack, strategy) for strategy in ids}
    stack.kill()
    for code, strategy in enumerate(ids[:3]):
        tell_to_end(home, strategy, code)
    psutil.wait_procs([processes[strategy] for strategy in ids[:3]])

    again = start_one_process(home)
    for code, strategy in enumerate(ids[:3]):
        view = again.wait_status(strategy, "stopped", "crashed")
        reason = "crashed" if code else "completed"
        assert (view["run"]["exit_code"], view["run"]["reason"]) == (code, reason)
    for strategy in ids[3:]:
        view = again.status(strategy)
        assert (view["status"], view["run"]["epoch"]) == ("running", 1)
        assert processes[strategy].is_running()
    assert ended_twice(home) == []
    assert again.stop() == [0]
    assert processes_of(home) == []
    stack.http.close()


def test_ctrl_c_ends_strategies_and_the_next_up_continues_them(home: Path) -> None:
    stack = start_one_process(home)
    by_hand, always, stopped = (stack.upload(ALONE, name) for name in ("hand", "always", "stopped"))
    stack.post(f"/python/start/{by_hand}", params={"wait": 10})
    stack.post(f"/python/schedule/{always}", json={"kind": "always"})
    stack.wait_status(always, "running")
    stack.post(f"/python/start/{stopped}", params={"wait": 10})
    stack.post(f"/python/stop/{stopped}", params={"wait": 20})
    assert stack.stop(signal.SIGINT) == [0]
    assert processes_of(home) == []

    again = start_one_process(home)
    for strategy in (by_hand, always):
        view = eventually(
            lambda s=strategy: v if (v := again.status(s))["run"]["epoch"] == 2 else None,
            lambda s=strategy: str(again.status(s)),
        )
        assert view["run"]["cause"] == "resume"
        again.wait_status(strategy, "running")
        runs = again.http.get(f"/python/runs/{strategy}").json()
        assert [run["reason"] for run in runs] == [None, "host_shutdown"]
    assert again.status(stopped)["status"] == "stopped"
    assert ended_twice(home) == []
    assert again.stop(signal.SIGTERM) == [0]


def test_the_product_is_killed_again_and_again_while_it_starts_things(home: Path) -> None:
    """However far a start has come when everything is killed, the next life completes it, once."""
    stack = start_one_process(home)
    ids = [stack.upload(ALONE, f"s{n}") for n in range(5)]
    taken: set[str] = set()
    for n, strategy in enumerate(ids):
        request = threading.Thread(target=_start_quietly, args=(stack, strategy, taken))
        request.start()
        _after(0.004 * n)
        stack.kill()
        request.join()
        stack.http.close()
        stack = start_one_process(home)
    for strategy in ids:
        if strategy not in taken and stack.status(strategy)["run"] is None:
            continue  # killed before the request was taken: it was never acknowledged
        view = stack.wait_status(strategy, "running")
        assert process_of(stack, strategy).is_running(), view
    copies = [p for p in processes_of(home) if "script.py" in p.cmdline()]
    assert len(copies) == sum(stack.status(s)["status"] == "running" for s in ids)
    assert ended_twice(home) == []
    assert stack.stop() == [0]


def _start_quietly(stack: Stack, strategy: str, taken: set[str]) -> None:
    """The server is killed meanwhile; an answer that came all the same is a promise."""
    with contextlib.suppress(httpx.HTTPError):
        if stack.http.post(f"/python/start/{strategy}").status_code == 202:
            taken.add(strategy)


def _after(seconds: float) -> None:
    """The moment of the kill is the parameter of this test, not a wait for anything."""
    threading.Event().wait(seconds)


def test_the_runner_is_killed_and_a_new_one_adopts_everything(home: Path) -> None:
    stack = start_five_processes(home)
    ids = [stack.upload(ALONE, f"s{n}", restart="never") for n in range(8)]
    for strategy in ids:
        stack.post(f"/python/start/{strategy}", params={"wait": 10})
    processes = {strategy: process_of(stack, strategy) for strategy in ids}
    runner = stack.processes[1 + SERVICES.index("runner")]
    runner.kill()
    runner.wait()
    for code, strategy in enumerate(ids[:4]):
        tell_to_end(home, strategy, code)
    add_service(stack, "runner")
    for code, strategy in enumerate(ids[:4]):
        view = stack.wait_status(strategy, "stopped", "crashed")
        assert view["run"]["exit_code"] == code
    for strategy in ids[4:]:
        assert stack.status(strategy)["status"] == "running"
        assert process_of(stack, strategy) == processes[strategy]
    stopped = stack.post(f"/python/stop/{ids[4]}", params={"wait": 20})["strategy"]
    assert stopped["status"] == "stopped"
    assert ended_twice(home) == []
    stack.stop()
    assert processes_of(home) == []


def test_the_scheduler_is_killed_and_the_next_one_acts_on_what_came_meanwhile(home: Path) -> None:
    stack = start_five_processes(home)
    strategy = stack.upload(ALONE, "one", restart="never")
    stack.post(f"/python/start/{strategy}", params={"wait": 10})
    process_of(stack, strategy)
    scheduler = stack.processes[1 + SERVICES.index("scheduler")]
    scheduler.kill()
    scheduler.wait()
    answer = stack.http.post(f"/python/stop/{strategy}")
    assert (answer.status_code, answer.json()["code"]) == (503, "service_unavailable")
    tell_to_end(home, strategy, 7)
    kept = stack.post(f"/python/schedule/{strategy}", json={"kind": "always"})
    assert "takes effect later" in kept["note"]
    add_service(stack, "scheduler")
    view = eventually(
        lambda: v if (v := stack.status(strategy))["run"]["epoch"] == 2 else None,
        lambda: str(stack.status(strategy)),
    )
    assert view["run"]["cause"] == "schedule"
    runs = stack.http.get(f"/python/runs/{strategy}").json()
    assert (runs[1]["reason"], runs[1]["exit_code"]) == ("crashed", 7)
    stack.stop()
    assert processes_of(home) == []


def test_two_schedulers_start_one_copy(home: Path) -> None:
    stack = start_five_processes(home)
    add_service(stack, "scheduler", replace=False)
    ids = [stack.upload(ALONE, f"s{n}") for n in range(4)]
    due = (datetime.now(UTC) + timedelta(seconds=2)).strftime("%H:%M:%S")
    spec = {"kind": "market", "exchange": "CRYPTO", "start": due}
    for strategy in ids:
        stack.post(f"/python/schedule/{strategy}", json=spec)
    for strategy in ids:
        view = stack.wait_status(strategy, "running")
        assert view["run"]["epoch"] == 1, stack.http.get(f"/python/runs/{strategy}").text
        due_at = datetime.fromisoformat(view["run"]["due_at"])
        started_at = datetime.fromisoformat(view["run"]["started_at"])
        assert due_at <= started_at
        process_of(stack, strategy)
    assert ended_twice(home) == []
    assert all(len(stack.http.get(f"/python/runs/{s}").json()) == 1 for s in ids)
    stack.stop()
    assert processes_of(home) == []


def test_two_concurrent_starts_are_one_start_and_one_conflict(stack: Stack) -> None:
    strategy = stack.upload(ALONE, "concurrent")
    with ThreadPoolExecutor(8) as pool:
        path = f"/python/start/{strategy}"
        waiting = [pool.submit(stack.http.post, path) for _ in range(16)]
        answers = [one.result() for one in waiting]
    assert sorted(answer.status_code for answer in answers) == [202] + [409] * 15
    refused = {answer.json()["code"] for answer in answers if answer.status_code == 409}
    assert refused == {"strategy_is_running"}
    process_of(stack, strategy)
    assert stack.status(strategy)["run"]["epoch"] == 1
    stack.http.delete(f"/python/delete/{strategy}", params={"stop": True}).raise_for_status()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_stops_cleanly_while_clients_listen(home: Path, number: signal.Signals) -> None:
    stack = start_one_process(home)
    strategy = stack.upload(ALONE, "one")
    stack.post(f"/python/start/{strategy}", params={"wait": 10})
    with stack.events() as one, stack.events() as other:
        assert next(one)[1] == next(other)[1] == "hello"
        assert stack.stop(number) == [0]
        rest = list(itertools.chain(one, other))
    assert all(data.get("strategy_id") in {strategy, None} for _, _, data in rest)
    assert processes_of(home) == []


def test_a_second_openbell_does_not_take_a_home_in_use(home: Path) -> None:
    stack = start_one_process(home)
    with pytest.raises(AssertionError, match="did not come up"):
        start_one_process(home)
    assert "another Openbell uses" in (home / "up.stderr").read_text()
    assert stack.stop() == [0]


def test_it_stops_promptly_while_a_silent_log_is_followed(home: Path) -> None:
    stack = start_one_process(home)
    strategy = stack.upload("import time\ntime.sleep(600)", "silent")
    stack.post(f"/python/start/{strategy}", params={"wait": 10})
    following = HTTPConnection(stack.url.removeprefix("http://"))
    bearer = {"Authorization": f"Bearer {stack.token}"}
    following.request("GET", f"/python/logs/{strategy}?offset=0&wait=20", headers=bearer)
    stack.http.get("/healthz").raise_for_status()  # asked later, so that one is being served
    assert stack.stop() == [0]
    answer = following.getresponse()
    assert (answer.status, json.load(answer)["code"]) == (503, "service_unavailable")
    following.close()
    assert "Traceback" not in (home / "up.stderr").read_text()


def test_nats_is_killed_and_comes_back_and_nothing_is_forgotten(home: Path) -> None:
    stack = start_one_process(home)
    strategy = stack.upload(ALONE, "one", restart="never")
    stack.post(f"/python/start/{strategy}", params={"wait": 10})
    process = process_of(stack, strategy)
    (server,) = [p for p in processes_of(home) if "nats-server" in p.name()]
    server.kill()
    tell_to_end(home, strategy, 5)
    view = stack.wait_status(strategy, "crashed")
    assert (view["run"]["exit_code"], process.is_running()) == (5, False)
    other = eventually(
        lambda: a.json()["strategy"]["id"] if (a := upload_again(stack)).is_success else None,
        lambda: upload_again(stack).text,
    )
    assert stack.post(f"/python/start/{other}", params={"wait": 10})["strategy"]["run"]
    assert stack.stop() == [0]
    assert processes_of(home) == []


def upload_again(stack: Stack) -> httpx.Response:
    files = {"file": ("other.py", ALONE.encode())}
    return stack.http.post("/python/upload", files=files)
