"""What docker compose runs, killed, paused, scaled and rolled back."""

import json

import httpx
import pytest

from tests.fixtures.compose import NEXT, TAG, Deployment, docker, replaced
from tests.fixtures.stack import eventually

pytestmark = [pytest.mark.compose_faults, pytest.mark.timeout(600)]

LIVES = """
import itertools, time
for number in itertools.count():
    print("tick", number, flush=True)
    time.sleep(0.2)
"""
SCALED = ("--scale=api=3", "--scale=status=2", "--scale=scheduler=2")


@pytest.fixture(scope="module")
def strategy_id(deployment: Deployment) -> str:
    made = deployment.upload(LIVES, "lives")
    deployment.post(f"/python/start/{made}")
    deployment.wait_log(made, "tick 1")
    return made


def health(deployment: Deployment, *services: str) -> dict[str, str]:
    return {
        name.split("-")[1]: one["State"]["Health"]["Status"]
        for name, one in deployment.inspect().items()
        if name.split("-")[1] in services
    }


@pytest.mark.parametrize(
    "service", ["gateway", "api", "status", "scheduler", "calendar", "runner", "nats", "postgres"]
)
def test_whatever_is_killed_strategies_go_on_and_it_comes_back(
    deployment: Deployment, strategy_id: str, service: str
) -> None:
    pids, run = deployment.pids([strategy_id]), deployment.status(strategy_id)["run"]["id"]
    docker("kill", "--signal=KILL", deployment.containers()[service])
    assert deployment.pids([strategy_id]) == pids
    deployment.up()
    assert deployment.wait_status(strategy_id, "running")["run"]["id"] == run
    assert deployment.pids([strategy_id]) == pids
    told = len(deployment.log(strategy_id).splitlines())
    eventually(
        lambda: len(deployment.log(strategy_id).splitlines()) > told or None,
        lambda: "it writes no more",
    )


def test_health_is_the_truth(deployment: Deployment) -> None:
    services = ("api", "scheduler", "calendar", "status", "runner")
    nats = deployment.containers()["nats"]
    docker("pause", nats)
    try:
        eventually(
            lambda: set(health(deployment, *services).values()) == {"unhealthy"} or None,
            lambda: f"{health(deployment, *services)}",
            timeout_s=120,
        )
    finally:
        docker("unpause", nats)
    eventually(
        lambda: set(health(deployment, *services).values()) == {"healthy"} or None,
        lambda: f"{health(deployment, *services)}",
        timeout_s=120,
    )


def test_a_rollback_stops_nothing(deployment: Deployment, strategy_id: str) -> None:
    pids = deployment.pids([strategy_id])
    for tag in (NEXT, TAG):
        replaced(deployment, tag)
        assert deployment.pids([strategy_id]) == pids
        deployment.wait_status(strategy_id, "running")


def test_replicas_share_accounts_and_keys_and_start_nothing_twice(deployment: Deployment) -> None:
    deployment.up(*SCALED)
    session = deployment.http.cookies["openbell_session"]
    seen: dict[str, str] = {}

    def all_three() -> bool | None:
        answer = httpx.get(
            f"{deployment.url}/auth/me", cookies={"openbell_session": session}, timeout=30
        )
        assert answer.status_code == 200, answer.text
        seen[answer.cookies["openbell_replica"]] = answer.text
        return len(seen) == 3 or None

    eventually(all_three, lambda: f"only {len(seen)} replicas answered", timeout_s=60)
    assert len(set(seen.values())) == 1
    sticky = {deployment.http.get("/healthz").cookies.get("openbell_replica") for _ in range(10)}
    assert sticky == {None}  # it has one already, and keeps it
    made = deployment.upload(LIVES, "scaled", secrets={"KEY": "value"})
    for replica in seen:
        cookies = {"openbell_session": session, "openbell_replica": replica}
        answer = httpx.get(f"{deployment.url}/python/env/{made}", cookies=cookies, timeout=30)
        assert "KEY" in answer.text
    deployment.post(f"/python/start/{made}")
    deployment.wait_log(made, "tick 1")
    runs = httpx.get(
        f"{deployment.url}/python/runs/{made}", cookies={"openbell_session": session}, timeout=30
    )
    assert len(runs.json() if isinstance(runs.json(), list) else runs.json()["runs"]) == 1
    assert list(deployment.pids([made])) == [made]


def test_a_warden_that_is_replaced_ends_runs_by_their_ladder_and_they_begin_anew(
    deployment: Deployment, strategy_id: str
) -> None:
    before = deployment.status(strategy_id)["run"]["id"]
    deployment.compose("restart", "warden")
    deployment.up()
    view = eventually(
        lambda: (
            one
            if (one := deployment.status(strategy_id))["status"] == "running"
            and one["run"]["id"] != before
            else None
        ),
        lambda: json.dumps(deployment.status(strategy_id)),
        timeout_s=60,
    )
    assert view["run"]["id"] != before
