"""The runners and what runs use, over HTTP and on the command line: a whole product, quickened."""

import json
import platform
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from openbell.cli import app
from tests.fixtures.people import Person, join
from tests.fixtures.stack import Stack, end_all, eventually, start_one_process

BUSY = """
import time
held = bytearray(50_000_000)
while True:
    began = time.process_time()
    while time.process_time() - began < 0.02:
        pass
    time.sleep(0.05)
"""


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Generator[Stack]:
    """One whose runner tells what is used every second."""
    home = tmp_path_factory.mktemp("runners") / "home"
    try:
        yield start_one_process(
            home, OPENBELL_RUNNER__METRICS_S="1", OPENBELL_RUNNER__SAMPLE_S="0.2"
        )
    finally:
        end_all(home)


@pytest.fixture(scope="module")
def trader(quick: Stack) -> Generator[Person]:
    person = join(quick, "trudy")
    yield person
    person.close()


@pytest.fixture(scope="module")
def busy(quick: Stack) -> str:
    strategy = quick.upload(BUSY, "Busy")
    quick.post(f"/python/start/{strategy}", params={"wait": 20})
    return strategy


def used(quick: Stack, strategy: str) -> list[dict[str, Any]]:
    """Once there are some."""
    return eventually(
        lambda: quick.http.get(f"/python/metrics/{strategy}").json()["points"] or None,
        lambda: "no metrics come",
    )


def test_what_a_run_uses_is_told(quick: Stack, busy: str) -> None:
    points = used(quick, busy)
    found = points[-1]
    assert 50_000_000 < found["memory_bytes"] < 150_000_000
    assert found["memory_bytes_max"] >= found["memory_bytes"]
    assert 1 < found["cpu_percent"] <= found["cpu_percent_max"] < 110
    assert 1 <= found["processes"] <= 4
    answer = quick.http.get(f"/python/metrics/{busy}", params={"since": "2020-01-01T00:00Z"})
    assert answer.json()["step_s"] == 60


@pytest.mark.parametrize("params", [{"step": 1}, {"step": "x"}, {"since": "yesterday"}])
def test_a_wrong_question_is_refused(quick: Stack, busy: str, params: dict[str, Any]) -> None:
    answer = quick.http.get(f"/python/metrics/{busy}", params=params)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


def test_of_what_never_ran_nothing_is_told(quick: Stack) -> None:
    idle = quick.upload("print(1)", "Idle")
    assert quick.http.get(f"/python/metrics/{idle}").json() == {"step_s": 5, "points": []}


def test_admins_see_how_busy_a_runner_is(quick: Stack, busy: str, trader: Person) -> None:
    used(quick, busy)
    [mine] = quick.http.get("/runners").json()["runners"]
    assert (mine["id"], mine["alive"], mine["runs"]) == ("local", True, 1)
    assert mine["capabilities"]["memory_limit"] in {"enforced", "watched"}
    host = mine["host"]
    assert 0 < host["memory_bytes"] < host["memory_total_bytes"]
    assert 0 < host["disk_free_bytes"] < host["disk_total_bytes"]
    [theirs] = trader.http.get("/runners").json()["runners"]
    assert (theirs["runs"], theirs["host"]) == (0, None)
    assert theirs["capabilities"] == mine["capabilities"]


def test_a_runner_tells_which_pythons_it_has(quick: Stack) -> None:
    def found() -> list[str] | None:
        [runner] = quick.http.get("/runners").json()["runners"]
        return runner["pythons"] or None

    versions = eventually(found, lambda: "it finds none")
    assert platform.python_version() in versions
    assert platform.python_version().rpartition(".")[0] in openbell(quick, "runners")


def test_a_browser_gets_the_page_and_nobody_keeps_the_data(quick: Stack) -> None:
    with quick.client() as nobody:
        page = nobody.get("/runners", headers={"accept": "text/html"})
        assert page.status_code == 200
        assert "<h1" in page.text
        assert "script" in page.headers["content-security-policy"]
        data = nobody.get("/runners")
    assert data.json()["code"] == "not_signed_in"
    kept = quick.http.get("/runners").headers
    assert kept["cache-control"] == "no-store"
    assert "content-security-policy" not in kept


def openbell(quick: Stack, *arguments: str) -> str:
    environment = {"OPENBELL_TOKEN": quick.token, "COLUMNS": "200"}
    done = CliRunner().invoke(app, [*arguments, "--url", quick.url], env=environment)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_command_line_tells_of_runners_and_metrics(quick: Stack, busy: str) -> None:
    used(quick, busy)
    shown = openbell(quick, "runners")
    assert "local" in shown
    assert "alive" in shown
    assert "memory" in shown
    assert json.loads(openbell(quick, "runners", "--json"))["runners"][0]["id"] == "local"
    shown = openbell(quick, "metrics", "Busy", "--minutes", "5")
    assert "CPU (MOST)" in shown
    assert "%" in shown
    assert "MB" in shown
    told = json.loads(openbell(quick, "metrics", "Busy", "--json"))
    assert told["points"]
    assert told["step_s"] == 15  # a row of 60 for its 15 minutes
    assert "nothing in the last 15 minutes" in openbell(quick, "metrics", "Idle")


def test_doctor_tells_what_this_host_enforces(tmp_path: Path) -> None:
    """By asking a warden of its own, of which nothing is left."""
    done = CliRunner().invoke(app, ["doctor", "--json", "--home", str(tmp_path)])
    told = {check["name"]: check for check in json.loads(done.stdout)}
    assert told["limits"]["ok"], told
    assert "memory" in told["limits"]["detail"]
    assert platform.python_version() in told["interpreters"]["detail"]
    assert list(tmp_path.iterdir()) == []


def test_what_has_ended_is_not_counted(quick: Stack, busy: str) -> None:
    quick.post(f"/python/stop/{busy}", params={"wait": 20})

    def without_runs() -> dict[str, Any] | None:
        [runner] = quick.http.get("/runners").json()["runners"]
        return runner if runner["runs"] == 0 else None

    assert eventually(without_runs, lambda: "its run is still counted")["alive"]
    assert used(quick, busy)
