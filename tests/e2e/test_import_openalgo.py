"""An installation of OpenAlgo, brought to a real Openbell with the real command."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.test_cli import openbell, ran
from tests.fixtures.openalgo_installation import SCRIPT, WEEK, entry, install, realistic
from tests.fixtures.people import join
from tests.fixtures.stack import Stack

FOREVER = "import time\nprint('on', flush=True)\nwhile True: time.sleep(0.05)\n"
ALL_DAY = {"schedule_start": "00:00", "schedule_stop": "23:59", "schedule_days": WEEK}


@pytest.fixture(autouse=True)
def nothing_left(stack: Stack) -> Any:
    yield
    for one in mine(stack).values():
        stack.http.delete(f"/python/delete/{one['id']}", params={"stop": True})


def mine(stack: Stack) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in stack.http.get("/python/").json()["strategies"]}


def imported(stack: Stack, root: Path, *options: str, code: int = 0) -> dict[str, dict[str, Any]]:
    """What `--json` tells of each, by its name."""
    done = ran(stack, "import-openalgo", str(root), "--json", *options)
    assert done.returncode == code, done.stdout + done.stderr
    return {one["name"]: one for one in json.loads(done.stdout)["strategies"]}


def results(answer: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {name: one["result"] for name, one in answer.items()}


def test_limits_are_given_to_each(stack: Stack, tmp_path: Path) -> None:
    root = install(tmp_path, {name: entry(name) for name in ("one", "two")})
    imported(stack, root, "--apply", "--limits", '{"limits": {"memory_mb": 300}}')
    ids = [one["id"] for one in mine(stack).values()]
    found = [stack.http.get(f"/python/limits/{one}").json()["policy"]["limits"] for one in ids]
    assert [one["memory_mb"] for one in found] == [300, 300]


def test_an_installation_is_shown_then_brought_then_left_alone(
    stack: Stack, tmp_path: Path
) -> None:
    root = realistic(tmp_path)
    shown = openbell(stack, "import-openalgo", str(root))
    assert "Nothing was changed. To do it, give the same command with --apply." in shown
    assert "09:15-15:30, mon tue wed thu fri" in shown
    assert "here all become yours" in shown
    assert "openbell env 'EMA Crossover' --set HOST_SERVER=VALUE" in shown
    assert mine(stack) == {}

    answer = imported(stack, root, "--apply")
    assert set(results(answer).values()) == {"created"}
    here = mine(stack)
    assert set(here) == set(answer)
    assert {name: one["schedule"] for name, one in here.items()} == {
        name: one["schedule"] for name, one in answer.items()
    }
    assert here["gold"]["schedule"]["kind"] == "market"
    assert here["gold"]["schedule"]["stop"] == "02:00"
    assert here["bitcoin"]["schedule"]["kind"] == "always"
    assert here["night"]["schedule"]["timezone"] == "Asia/Kolkata"
    assert here["by_hand"]["schedule"] is None
    assert {one["exchange"] for one in here.values()} == {
        *("NSE", "NFO", "MCX", "CDS", "CRYPTO", "BSE")
    }
    assert all(one["version"]["size"] == len(SCRIPT) for one in here.values())
    assert {name for name, one in here.items() if one["intent"] == "stop"} == {"rupee"}
    assert here["rupee"]["status"] == "paused"
    assert here["by_hand"]["run"] is None

    again = imported(stack, root, "--apply")
    assert set(results(again).values()) == {"skipped"}
    assert {one["reason"] for one in again.values()} == {"exists already"}
    assert len(mine(stack)) == len(here)


def test_what_was_stopped_there_never_starts_here(stack: Stack, tmp_path: Path) -> None:
    """On a schedule that would start it at once."""
    configs = {
        "held": entry("held", exchange="CRYPTO", manually_stopped=True, **ALL_DAY),
        "free": entry("free", exchange="CRYPTO", **ALL_DAY),
    }
    root = install(tmp_path, configs, held=FOREVER, free=FOREVER)
    with stack.events() as events:
        answer = imported(stack, root, "--apply")
        held, free = (answer[name]["strategy_id"] for name in ("held", "free"))
        told: list[tuple[str, str]] = []
        for _, kind, data in events:
            told.append((kind, data.get("strategy_id", "")))
            if told[-1] == ("run_started", free):
                break
    of_held = [kind for kind, strategy_id in told if strategy_id == held]
    assert of_held.index("intent_changed") < of_held.index("schedule_changed")
    assert "run_granted" not in of_held
    assert stack.status(held)["status"] == "paused"
    assert stack.status(held)["run"] is None
    assert "resume" in stack.status(held)["reason"]
    openbell(stack, "resume", "held")
    stack.wait_status(held, "running")


def test_what_runs_there_is_not_started_here(stack: Stack, tmp_path: Path) -> None:
    running = entry("busy", exchange="CRYPTO", is_running=True, pid=4711, **ALL_DAY)
    root = install(tmp_path, {"busy": running}, busy=FOREVER)
    answer = imported(stack, root, "--apply", code=1)
    assert answer["busy"]["result"] == "incomplete"
    assert "it runs there now (pid 4711): stop it there first" in answer["busy"]["notes"][0]
    view = mine(stack)["busy"]
    assert (view["schedule"], view["run"]) == (None, None)
    assert results(imported(stack, root, "--apply", code=1)) == {"busy": "incomplete"}

    assert results(imported(stack, root, "--even-if-running")) == {"busy": "finish"}
    install(tmp_path, {"busy": running | {"is_running": False, "pid": None}}, busy=FOREVER)
    assert results(imported(stack, root, "--apply")) == {"busy": "scheduled"}
    stack.wait_status(view["id"], "running")
    assert len(mine(stack)) == 1


def test_what_cannot_be_brought_is_told_and_the_rest_is_brought(
    stack: Stack, tmp_path: Path
) -> None:
    (tmp_path / "secret.py").write_text("KEY = 1\n")
    configs = {
        "good": entry("good"),
        "broken": entry("broken"),
        "missing": entry("missing", file_path="strategies/scripts/nowhere.py"),
        "thief": entry("thief", file_path="strategies/scripts/../../../secret.py"),
        "far": entry("far", exchange="NCDEX"),
        "odd": entry("odd", schedule_days=["someday"]),
        "empty": entry("empty"),
        "huge": entry("huge"),
        "taken": entry("taken"),
        "nothing": None,
    }
    big = b"#" * (1024 * 1024 + 1)
    scripts: dict[str, Any] = {"broken": "x = (\n", "empty": "", "huge": big}
    root = install(tmp_path / "root", configs, **scripts)
    theirs = stack.upload("print('mine')\n", "Taken")
    answer = imported(stack, root, "--apply", code=1)
    assert results(answer) == {
        **dict.fromkeys(configs, "refused"),
        "good": "created",
        "far": "incomplete",
        "odd": "incomplete",
    }
    reasons = {name: one["reason"] for name, one in answer.items()}
    assert "line 1, column 5" in reasons["broken"]
    assert "missing" in reasons["missing"]
    assert "outside" in reasons["thief"]
    assert "empty" in reasons["empty"]
    assert "1048576" in reasons["huge"]
    assert theirs in reasons["taken"]
    assert "does not know NCDEX" in " ".join(answer["far"]["notes"])
    assert "--set OPENALGO_STRATEGY_EXCHANGE=NCDEX" in " ".join(answer["far"]["notes"])
    assert "someday" in " ".join(answer["odd"]["notes"])
    assert set(mine(stack)) == {"good", "far", "odd", "Taken"}
    shown = ran(stack, "import-openalgo", str(root), "--apply")
    assert shown.returncode == 1
    assert "exists already" in shown.stdout


def test_variables_are_handed_to_each(stack: Stack, tmp_path: Path) -> None:
    stack.post("/auth/env", json={"secrets": {"openalgo": "0123456789"}})
    root = install(tmp_path, {key: entry(key, is_scheduled=False) for key in ("a", "b")})
    options = ("--use", "OPENALGO_API_KEY=openalgo", "--set", "HOST_SERVER=http://127.0.0.1:5001")
    answer = imported(stack, root, *options, "--apply")
    assert [one["notes"] for one in answer.values()] == [[], []]
    for view in mine(stack).values():
        assert sorted(view["parameters"]) == ["HOST_SERVER", "OPENALGO_API_KEY"]
        assert view["run"] is None
        stack.http.delete(f"/python/delete/{view['id']}")
    stack.post("/auth/env", json={"remove": ["openalgo"]})


def test_what_is_no_installation_is_an_exit_code(stack: Stack, tmp_path: Path) -> None:
    said = openbell(stack, "import-openalgo", str(tmp_path), code=1)
    assert said.startswith("openbell: ")
    assert said.count("\n") == 1
    install(tmp_path, "{")
    said = openbell(stack, "import-openalgo", str(tmp_path), "--apply", code=1)
    assert "is not JSON" in said
    assert said.count("\n") == 1
    openbell(stack, "import-openalgo", code=2)
    install(tmp_path, {"a": entry("a")})
    openbell(stack, "import-openalgo", str(tmp_path), "--url", "http://127.0.0.1:9", code=3)


def test_it_acts_as_whoever_is_signed_in(stack: Stack, tmp_path: Path) -> None:
    trader, viewer = join(stack, "importer"), join(stack, "watcher", "viewer")
    root = install(tmp_path / "root", {"a": entry("a", user_id="someone")})
    for person, code in ((trader, 0), (viewer, 1)):
        done = ran(
            stack,
            *("import-openalgo", str(root), "--apply"),
            person=tmp_path,
            OPENBELL_TOKEN=person.token,
        )
        assert done.returncode == code, done.stdout + done.stderr
    (view,) = trader.http.get("/python/").json()["strategies"]
    assert view["owner"]["name"] == "importer"
    assert httpx.codes.is_success(trader.http.delete(f"/python/delete/{view['id']}").status_code)
    assert mine(stack) == {}
    trader.close()
    viewer.close()
