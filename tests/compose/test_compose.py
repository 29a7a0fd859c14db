"""The first hour with docker compose, over HTTP and through the gateway alone."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fixtures.compose import NEXT, TAG, UPGRADED, Deployment, docker, replaced
from tests.fixtures.stack import eventually

pytestmark = [pytest.mark.compose, pytest.mark.timeout(300)]

LIVES = """
import itertools, time
print("up", flush=True)
try:
    for number in itertools.count():
        print("tick", number, flush=True)
        time.sleep(0.2)
except KeyboardInterrupt:
    print("cleaned up", flush=True)
"""
LOOKS = """
import json, os, pathlib, socket
from concurrent.futures import ThreadPoolExecutor

def reached(address):
    try:
        socket.create_connection(tuple(address), 1).close()
        return True
    except OSError:
        return False

def holds(path):
    try:
        text = path.read_bytes()
    except OSError:
        return False
    return any(secret.encode() in text for secret in json.loads(os.environ["SECRETS"]))

seen = [str(path) for path in (pathlib.Path(os.environ["LOOK_AT"]), pathlib.Path("/run/openbell"),
        pathlib.Path("/secrets"), pathlib.Path("/var/lib/openbell")) if path.exists()]
held = [str(path) for folder in ("/run", "/tmp", "/home", "/root", "/var", "/etc", "/app")
        for path in pathlib.Path(folder).rglob("*") if path.is_file() and holds(path)]
held += [str(path) for path in pathlib.Path("/proc").glob("[0-9]*/environ")
         if path.parent.name != str(os.getpid()) and holds(path)]
addresses = json.loads(os.environ["ADDRESSES"])
with ThreadPoolExecutor(len(addresses)) as threads:
    found = [each for each, is_reached in zip(addresses, threads.map(reached, addresses))
             if is_reached]
print("seen", json.dumps([seen, held, found]), flush=True)
print("variables", json.dumps(sorted(os.environ)), flush=True)
print("uid", os.getuid(), flush=True)
"""


def events(response: httpx.Response) -> Iterator[tuple[str, Any]]:
    kind = ""
    for line in response.iter_lines():
        name, _, value = line.partition(": ")
        if name == "event":
            kind = value
        elif name == "data":
            yield kind, json.loads(value)


def running(deployment: Deployment, *names: str) -> list[str]:
    ids = [deployment.upload(LIVES, name) for name in names]
    for strategy_id in ids:
        deployment.post(f"/python/start/{strategy_id}")
    for strategy_id in ids:
        deployment.wait_log(strategy_id, "tick 1")
    return ids


def lines(deployment: Deployment, strategy_id: str) -> int:
    return len(deployment.log(strategy_id).splitlines())


def test_the_link_in_the_log_is_the_way_in_once(deployment: Deployment) -> None:
    assert deployment.setup_link().startswith(f"{deployment.url}/join#setup_")
    token = deployment.setup_link().partition("#")[2]
    body = {"token": token, "name": "other", "password": "another password"}
    assert httpx.post(f"{deployment.url}/auth/accept", json=body).status_code == 404
    assert deployment.http.get("/auth/me").json()["user"]["role"] == "admin"


def test_upload_start_watch_read_and_stop_through_the_gateway(deployment: Deployment) -> None:
    strategy_id = deployment.upload(LIVES, "first")
    with deployment.http.stream("GET", "/python/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        assert "content-encoding" not in stream.headers
        heard = events(stream)
        deployment.post(f"/python/start/{strategy_id}")
        # The stream stays open: what is heard now was held back by nobody.
        kinds = [next(kind for kind, data in heard if data.get("strategy_id") == strategy_id)]
        while "run_started" not in kinds:
            kinds.append(next(heard)[0])
    with deployment.http.stream("GET", f"/python/logs/{strategy_id}/stream") as stream:
        assert stream.status_code == 200
        assert "content-encoding" not in stream.headers
        text = ""
        for piece in stream.iter_text():
            text += piece
            if "tick 3" in text:
                break
    stopped = deployment.post(f"/python/stop/{strategy_id}", params={"wait": 30})
    assert stopped["strategy"]["status"] == "stopped"
    assert "cleaned up" in deployment.log(strategy_id)


def test_answers_are_compressed_guarded_and_bounded(deployment: Deployment) -> None:
    page = deployment.http.get("/")
    assert page.headers["content-encoding"] == "gzip"
    assert page.headers.get_list("x-frame-options") == ["DENY"]
    assert "default-src 'self'" in page.headers["content-security-policy"]
    answer = deployment.http.get("/python/")
    for name in ("x-frame-options", "referrer-policy", "permissions-policy"):
        assert len(answer.headers.get_list(name)) == 1, name
    assert answer.headers["cache-control"] == "no-store"
    assert "server" not in answer.headers
    foreign = httpx.get(f"{deployment.url}/python/", headers={"Host": "evil.example"})
    assert foreign.status_code == 403
    too_large = deployment.http.post("/python/upload", files={"file": ("a.py", b"#" * 1_500_000)})
    assert (too_large.status_code, too_large.json()["code"]) == (413, "too_large")
    much_too_large = deployment.http.post("/python/upload", content=b"#" * 4_000_000)
    assert much_too_large.status_code in {413, 502}  # the latter, by Caddys before 2.7


def test_nothing_but_the_gateway_is_published(deployment: Deployment) -> None:
    published = {
        name: {port: bound for port, bound in one["HostConfig"]["PortBindings"].items() if bound}
        for name, one in deployment.inspect().items()
    }
    assert {name for name, ports in published.items() if ports} == {f"{deployment.name}-gateway-1"}
    (bound,) = published[f"{deployment.name}-gateway-1"].values()
    assert bound == [{"HostIp": "127.0.0.1", "HostPort": str(deployment.port)}]


def test_no_container_has_more_than_it_needs(deployment: Deployment) -> None:
    secrets = known_secrets(deployment)
    for name, one in deployment.inspect().items():
        host = one["HostConfig"]
        assert not host["Privileged"], name
        assert host["ReadonlyRootfs"], name
        assert host["CapDrop"] == ["ALL"], name
        assert any(said.startswith("no-new-privileges") for said in host["SecurityOpt"]), name
        assert not [secret for secret in secrets if secret in json.dumps(one["Config"])], name
        if not {"setup", "warden", "postgres"} & {name.split("-")[1]}:
            assert one["Config"]["User"] == "10001:10001", name


def known_secrets(deployment: Deployment) -> list[str]:
    """What services log in with, and the token of the home."""
    files = {
        "api": ("/run/openbell/nats-password", "/var/lib/openbell/data/local-token"),
        "runner": ("/run/openbell/nats-password",),
        "scheduler": ("/run/openbell/nats-password",),
        "postgres": ("/run/openbell/password",),
    }
    return [
        deployment.compose("exec", "-T", service, "cat", file)
        for service, its in files.items()
        for file in its
    ]


def test_a_script_sees_and_reaches_nothing_of_openbells(deployment: Deployment) -> None:
    ports = {"nats": 4222, "postgres": 5432, "api": 8000, "status": 8000, "gateway": 8000}
    addresses = [
        (network["IPAddress"], ports[service])
        for name, one in deployment.inspect().items()
        if (service := name.split("-")[1]) in ports
        for network in one["NetworkSettings"]["Networks"].values()
    ]
    strategy_id = deployment.upload(
        LOOKS,
        "looks",
        parameters={
            "ADDRESSES": json.dumps(addresses),
            "LOOK_AT": str(deployment.home / "data"),
            "SECRETS": json.dumps(known_secrets(deployment)),
        },
    )
    deployment.post(f"/python/start/{strategy_id}")
    said = deployment.wait_log(strategy_id, "uid")
    assert "seen [[], [], []]" in said
    assert "DATABASE" not in said
    assert "NATS" not in said
    assert int(said.split()[-1]) >= 1_900_000_000


def test_killing_the_runner_stops_nothing(deployment: Deployment) -> None:
    (strategy_id,) = running(deployment, "survivor")
    pids = deployment.pids([strategy_id])
    run = deployment.status(strategy_id)["run"]["id"]
    docker("kill", "--signal=KILL", deployment.containers()["runner"])
    deployment.up()
    assert deployment.pids([strategy_id]) == pids
    assert deployment.status(strategy_id)["run"]["id"] == run
    told = lines(deployment, strategy_id)
    eventually(lambda: lines(deployment, strategy_id) > told or None, lambda: "it writes no more")
    deployment.post(f"/python/stop/{strategy_id}", params={"wait": 30})
    assert "cleaned up" in deployment.log(strategy_id)


def test_an_upgrade_stops_nothing(deployment: Deployment) -> None:
    ids = running(deployment, "kept-1", "kept-2")
    pids = deployment.pids(ids)
    assert set(pids) == set(ids)
    runs = {one: deployment.status(one)["run"]["id"] for one in ids}
    replaced(deployment, NEXT)
    assert deployment.pids(ids) == pids
    for one in ids:
        deployment.wait_status(one, "running")
        assert deployment.status(one)["run"]["id"] == runs[one]
        deployment.post(f"/python/stop/{one}", params={"wait": 30})
        assert "cleaned up" in deployment.log(one)


def test_when_all_is_stopped_strategies_clean_up_and_go_on_with_the_next_up(
    deployment: Deployment,
) -> None:
    (strategy_id,) = running(deployment, "resumed")
    first = deployment.status(strategy_id)["run"]["id"]
    deployment.compose("stop")
    ends = {name: one["State"]["ExitCode"] for name, one in deployment.inspect().items()}
    assert not {name: code for name, code in ends.items() if code}  # none had to be killed
    log = next((deployment.home / "log" / "strategies" / strategy_id).glob("*-1.log"))
    assert log.read_text().endswith("cleaned up\n")
    deployment.up()
    deployment.wait_status(strategy_id, "running")
    assert deployment.status(strategy_id)["run"]["id"] != first
    assert "host_shutdown" in deployment.http.get(f"/python/runs/{strategy_id}").text


def test_images_hold_their_own_service_and_nothing_to_build_with() -> None:
    for service in (*UPGRADED, "warden"):
        program = "ls services services/runner 2>/dev/null; command -v pip gcc cc make git apt-get"
        said = docker(
            "run",
            "--rm",
            "--network=none",
            "--entrypoint=sh",
            f"openbell/{service}:{TAG}",
            "-c",
            f"{program}; true",
        ).split()
        folders = {"api", "scheduler", "runner", "calendar", "status"} & set(said)
        assert folders == ({"runner"} if service == "warden" else {service})
        assert not {Path(word).name for word in said} & {"pip", "gcc", "cc", "make", "git"}
