"""A strategy's limits over HTTP, and the records of its runs."""

import asyncio
import json
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from openbell.contracts.limits import RunPolicy, Usage
from openbell.db.models import Run
from openbell.db.session import Database
from tests.fixtures import databases
from tests.fixtures.people import join
from tests.fixtures.stack import Stack

DEFAULT = json.loads(RunPolicy().encode())
NOON = datetime(2026, 8, 3, 12, tzinfo=UTC)
ERROR = "ZeroDivisionError: division by zero"
MISSING = "/python/limits/no-such-abc123"


@pytest.fixture
def strategy(stack: Stack) -> Generator[str]:
    strategy_id = stack.upload("import time\nprint('up', flush=True)\ntime.sleep(600)\n", "Limited")
    yield strategy_id
    stack.http.delete(f"/python/delete/{strategy_id}", params={"stop": True}).raise_for_status()


def limits(stack: Stack, strategy: str) -> dict[str, Any]:
    return stack.http.get(f"/python/limits/{strategy}").raise_for_status().json()


def refused(stack: Stack, strategy: str, **request: Any) -> set[str]:
    """Which fields are."""
    answer = stack.http.post(f"/python/limits/{strategy}", **request)
    assert answer.status_code == 422, answer.text
    assert answer.json()["code"] == "invalid_request"
    return {one["field"] for one in answer.json()["errors"]}


def test_what_was_never_set_is_the_default(stack: Stack, strategy: str) -> None:
    assert limits(stack, strategy) == {"policy": DEFAULT, "host": None, "note": None}


def test_a_part_is_set_told_and_audited(stack: Stack, strategy: str) -> None:
    part = {"limits": {"memory_mb": 512}, "stop": {"grace_s": 3}, "restart": "never"}
    with stack.events() as events:
        assert next(events)[1] == "hello"
        answer = stack.post(f"/python/limits/{strategy}", json=part)
        told = next(data for _, kind, data in events if kind == "limits_changed")
    assert answer["policy"] == {
        **DEFAULT,
        "limits": {**DEFAULT["limits"], "memory_mb": 512},
        "stop": {**DEFAULT["stop"], "grace_s": 3},
        "restart": "never",
    }
    assert answer["note"] == "it holds from now on"
    assert limits(stack, strategy)["policy"] == answer["policy"]
    names = {"limits.memory_mb", "stop.grace_s", "restart"}
    assert (told["strategy_id"], set(told["names"])) == (strategy, names)
    status = stack.status(strategy)
    assert (status["restart"], status["stop_grace_s"]) == ("never", 3)

    query = {"strategy": strategy, "action": "set_limits"}
    (entry,) = stack.http.get("/auth/audit", params=query).json()["entries"]
    assert entry["outcome"] == "done"
    assert entry["before"] == {
        "limits.memory_mb": None,
        "stop.grace_s": 15,
        "restart": "on-failure",
    }
    assert entry["after"] == {"limits.memory_mb": 512, "stop.grace_s": 3, "restart": "never"}


def test_what_is_wrong_changes_nothing(stack: Stack, strategy: str) -> None:
    part = {"limits": {"memory_mb": 512, "processes": 0}, "restart": "never", "stop": {"grace": 1}}
    assert refused(stack, strategy, json=part) == {"stop.grace"}
    del part["stop"]
    assert refused(stack, strategy, json=part) == {"limits.processes"}
    assert refused(stack, strategy, json=[]) == {"body"}
    as_json = {"content-type": "application/json"}
    assert refused(stack, strategy, content=b"{", headers=as_json) == {"body"}
    half_a_pair = rb'{"limits": {"\ud800": 1}}'
    wrong = refused(stack, strategy, content=half_a_pair, headers=as_json)
    assert wrong == {r"limits.\ud800"}
    assert limits(stack, strategy)["policy"] == DEFAULT
    assert stack.http.post(MISSING, json={}).status_code == 404


def test_it_is_said_when_it_takes_effect_and_what_the_host_makes_of_it(
    stack: Stack, strategy: str
) -> None:
    stack.post(f"/python/start/{strategy}", params={"wait": 20})
    path = f"/python/limits/{strategy}"

    def note(**part: Any) -> str:
        return stack.post(path, json=part)["note"]

    at_next = "limits, watchdogs and interpreter hold from its next start on"
    assert note(limits={"memory_mb": 700}) == at_next
    assert note(watchdogs={"quiet_s": 60}, restart="never") == f"{at_next}; the rest from now on"
    assert note(interpreter="own") == at_next
    assert note(stop={"grace_s": 2}) == "it holds from now on"
    assert note(stop={"grace_s": 2}) == "nothing was changed"
    host = limits(stack, strategy)["host"]
    assert host["runner"] == "local"
    assert set(host["limits"]) >= {"memory_mb", "processes", "cpus", "cpu_weight"}
    assert set(host["limits"].values()) <= {"enforced", "watched", "none"}


def test_two_parts_at_once_are_both_kept(stack: Stack, strategy: str) -> None:
    async def at_once() -> None:
        parts = [{"limits": {name: 64 + n}} for n in range(5) for name in DEFAULT["limits"]]
        await asyncio.gather(*(asyncio.to_thread(post, one) for one in parts))

    def post(part: dict[str, Any]) -> None:
        stack.post(f"/python/limits/{strategy}", json=part)

    asyncio.run(at_once())
    kept = limits(stack, strategy)["policy"]["limits"]
    assert all(64 <= value < 69 for value in kept.values()), kept


def test_it_may_come_with_the_upload(stack: Stack) -> None:
    policy = {"limits": {"memory_mb": 256}, "watchdogs": {"heartbeat_s": 30}}
    strategy = stack.upload("print(1)\n", "Uploaded", limits=policy, restart="always")
    try:
        kept = limits(stack, strategy)["policy"]
        assert (kept["limits"]["memory_mb"], kept["watchdogs"]["heartbeat_s"]) == (256, 30)
        assert kept["restart"] == "always"
    finally:
        stack.http.delete(f"/python/delete/{strategy}").raise_for_status()


def test_an_operator_sees_limits_and_runs_and_sets_nothing(stack: Stack, strategy: str) -> None:
    guest = join(stack, "limits-guest")
    try:
        assert guest.http.get(f"/python/limits/{strategy}").status_code == 404
        given = {"user": "limits-guest", "permission": "operator"}
        stack.post(f"/python/share/{strategy}", json=given)
        assert guest.http.get(f"/python/limits/{strategy}").json()["policy"] == DEFAULT
        assert guest.http.get(f"/python/runs/{strategy}").json() == []
        answer = guest.http.post(f"/python/limits/{strategy}", json={"restart": "never"})
        assert answer.json()["code"] == "not_allowed"
    finally:
        guest.close()


# ---- the record of a run


def test_a_run_that_crashed_leaves_its_record(stack: Stack) -> None:
    strategy = stack.upload("print('before')\n1 / 0\n", "Crashes", restart="never")
    try:
        stack.post(f"/python/start/{strategy}", params={"wait": 20})
        stack.wait_status(strategy, "crashed")
        (run,) = stack.http.get(f"/python/runs/{strategy}").json()
        assert (run["id"], run["version"], run["cause"]) == (f"{strategy}-1", 1, "manual")
        assert (run["reason"], run["exit_code"], run["signal"]) == ("crashed", 1, None)
        assert run["granted_at"] <= run["started_at"] <= run["exited_at"]
        assert set(run["usage"]) == set(Usage.model_fields)
        assert "last_lines" not in run
        record = stack.http.get(f"/python/runs/{strategy}/{run['id']}").json()
        assert (record["id"], record["usage"]) == (run["id"], run["usage"])
        assert (record["last_lines"][0], record["last_lines"][-1]) == ("before", ERROR)
        assert stack.http.get(f"/python/runs/{strategy}/{strategy}-2").json()["code"] == (
            "unknown_run"
        )
        assert run["headline"] == ERROR
        assert stack.status(strategy)["reason"] == f"crashed with exit code 1: {ERROR}"

        clear = stack.http.delete(f"/python/logs/{strategy}", params={"run": run["id"]})
        clear.raise_for_status()
        cleared = stack.http.get(f"/python/runs/{strategy}/{run['id']}").json()
        assert (cleared["headline"], cleared["last_lines"]) == (None, [])
        assert cleared["exited_at"] == run["exited_at"]
        assert ERROR not in stack.status(strategy)["reason"]
    finally:
        stack.http.delete(f"/python/delete/{strategy}").raise_for_status()


def test_runs_are_told_newest_first_page_by_page(stack: Stack, strategy: str) -> None:
    asyncio.run(write_runs(stack, strategy))
    path = f"/python/runs/{strategy}"

    def epochs(**query: int) -> list[int]:
        return [one["epoch"] for one in stack.http.get(path, params=query).json()]

    assert epochs(limit=2) == [60, 59]
    assert epochs(limit=2, before=59) == [58, 57]
    assert epochs(limit=500) == [*range(60, 0, -1)]
    assert epochs(before=1) == epochs(before=0) == []
    assert len(epochs()) == 50
    for query in ({"limit": 0}, {"limit": 501}, {"before": -1}, {"before": 2**40}):
        assert stack.http.get(path, params=query).json()["code"] == "invalid_request"
    latest = stack.http.get(path, params={"limit": 1}).json()[0]
    assert latest["headline"] == "MemoryError"
    told = {"peak_memory_bytes": 3 * 2**30, "cpu_s": 1.5, "refused": 2, "out_of_memory": 1}
    usage = {**told, "working_memory_bytes": None}
    assert latest["usage"] == usage
    record = stack.http.get(f"{path}/{latest['id']}").json()
    assert record["last_lines"] == ["one ₹", "MemoryError"]


async def write_runs(stack: Stack, strategy: str) -> None:
    address = databases.of_stack(stack.home).get("OPENBELL_DATABASE__URL")
    database = Database(address or f"sqlite+aiosqlite:///{stack.home / 'data' / 'openbell.db'}")
    async with database.write() as session:
        for epoch in range(1, 61):
            began = NOON + timedelta(minutes=epoch)
            session.add(
                Run(
                    id=f"{strategy}-{epoch}",
                    strategy_id=strategy,
                    owner="local",
                    epoch=epoch,
                    runner="local",
                    state="exited",
                    version=1,
                    granted_at=began,
                    started_at=began,
                    exited_at=began + timedelta(seconds=9),
                    reason="memory_limit",
                    headline="MemoryError",
                    last_lines=["one ₹", "MemoryError"],
                    peak_memory_bytes=3 * 2**30,
                    cpu_s=1.5,
                    refused=2,
                    out_of_memory=1,
                )
            )
    await database.close()
