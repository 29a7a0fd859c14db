"""What a strategy sees, what nobody sees: variables and secrets through the whole product."""

import contextlib
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.fixtures.stack import START, Stack, eventually, processes_of

PAPER, LIVE = "kite-paper-9z8y7x6w", "kite-live-0a1b2c3d"
PIN = "pin-471108-mine"
SECRETS = (PAPER, LIVE, PIN)
QUIET = "import json, os, time; print(json.dumps(sorted(os.environ))); time.sleep(600)"
TALKATIVE = """
import os, pathlib, sys, time
key = os.environ["OPENALGO_API_KEY"]
print("key", key, "pin", os.environ["PIN"], "region", os.environ["REGION"])
sys.stdout.write("half " + key[:9])
sys.stdout.flush()
while not pathlib.Path("go-on").exists():
    time.sleep(0.02)
print(key[9:], "whole")
raise RuntimeError(f"login with {key} was refused")
"""
CONTRACT = (
    '["HOME", "LANG", "LOGNAME", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "NUMEXPR_NUM_THREADS",'
    ' "OMP_NUM_THREADS", "OPENALGO_API_KEY", "OPENALGO_STRATEGY_EXCHANGE", "OPENBELL_HEARTBEAT",'
    ' "OPENBELL_RUN_ID", "OPENBLAS_NUM_THREADS", "PATH", "PIN", "PYTHONUNBUFFERED",'
    ' "REGION", "STRATEGY_ID", "STRATEGY_NAME", "SYMBOL", "USER"]'
)


@pytest.fixture(scope="module", params=sorted(START))
def openbell(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("variables") / "home"
    stack = START[request.param](folder)
    try:
        own = {"parameters": {"REGION": "IN"}, "secrets": {"paper": PAPER, "live": LIVE}}
        stack.post("/auth/env", json=own)
        yield stack
    finally:
        stack.stop()
        for process in processes_of(folder):
            with contextlib.suppress(psutil.Error):
                process.kill()


def upload(stack: Stack, script: str, name: str) -> str:
    return stack.upload(
        script,
        name,
        exchange="NSE",
        restart="never",
        parameters={"SYMBOL": "SBIN"},
        secrets={"PIN": PIN},
        uses={"OPENALGO_API_KEY": "paper"},
    )


def files_with(home: Path, value: str) -> list[Path]:
    found: list[Path] = []
    for file in home.rglob("*"):
        with contextlib.suppress(OSError):  # a socket, or gone
            if file.is_file() and value.encode() in file.read_bytes():
                found.append(file)
    return found


def test_a_strategy_sees_just_these_variables_and_no_file_or_argument_holds_a_value(
    openbell: Stack,
) -> None:
    strategy = upload(openbell, QUIET, "Quiet")
    openbell.post(f"/python/start/{strategy}", params={"wait": 10})
    assert openbell.wait_log(strategy, "]").strip() == CONTRACT
    assert openbell.status(strategy)["parameters"] == ["OPENALGO_API_KEY", "PIN", "SYMBOL"]
    for value in SECRETS:
        assert files_with(openbell.home, value) == []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                assert not [word for word in process.cmdline() if value in word]
    for process in processes_of(openbell.home):  # but for its own process, none has it so
        with contextlib.suppress(psutil.Error):
            environment = process.environ()
            if environment.get("STRATEGY_ID") != strategy:
                assert not {*SECRETS} & {*environment.values()}
    openbell.post(f"/python/stop/{strategy}", params={"wait": 10})
    openbell.http.delete(f"/python/delete/{strategy}").raise_for_status()


def test_what_is_served_of_a_log_hides_secrets_also_cut_in_two(openbell: Stack) -> None:
    strategy = upload(openbell, TALKATIVE, "Talkative")
    openbell.post(f"/python/start/{strategy}")
    assert openbell.wait_log(strategy, "half").endswith("half ")  # and not the half of a key
    (openbell.home / "strategies" / strategy / "go-on").touch()
    view = openbell.wait_status(strategy, "crashed")
    text = openbell.log(strategy)
    assert f"key {'*' * len(PAPER)} pin {'*' * len(PIN)} region IN\n" in text
    assert f"half {'*' * len(PAPER)} whole\n" in text
    assert view["run"]["headline"] == f"RuntimeError: login with {'*' * len(PAPER)} was refused"
    assert PAPER not in openbell.http.get(f"/python/runs/{strategy}").text
    pieces, offset = "", 0
    while offset < len(text):
        params = {"offset": offset, "limit": 5}
        chunk = openbell.http.get(f"/python/logs/{strategy}", params=params).json()
        pieces, offset = pieces + chunk["content"], chunk["next_offset"]
    assert pieces == text
    changed = {"secrets": {"paper": PAPER + "-anew"}}
    openbell.post("/auth/env", json=changed)
    assert openbell.log(strategy) == text  # what was replaced is masked still
    openbell.post("/auth/env", json={"secrets": {"paper": PAPER}})
    openbell.http.delete(f"/python/delete/{strategy}").raise_for_status()


def test_values_are_taken_and_never_given_back(openbell: Stack) -> None:
    strategy = upload(openbell, QUIET, "Write only")
    with openbell.events() as events:
        assert next(events)[1] == "hello"
        answer = openbell.http.post(
            f"/python/env/{strategy}", json={"secrets": {"TOTP": LIVE}, "remove": ["SYMBOL"]}
        )
        assert answer.status_code == 200, answer.text
        _, kind, data = next(events)
        assert (kind, data["names"]) == ("variables_changed", ["SYMBOL", "TOTP"])
    listed = openbell.http.get(f"/python/env/{strategy}")
    kinds = {one["name"]: one["kind"] for one in listed.json()["variables"]}
    assert kinds == {"OPENALGO_API_KEY": "use", "PIN": "secret", "TOTP": "secret"}
    own = openbell.http.get("/auth/env")
    for text in (answer.text, listed.text, own.text, openbell.http.get("/openapi.json").text):
        assert not [value for value in SECRETS if value in text]
    assert openbell.status(strategy)["parameters"] == ["OPENALGO_API_KEY", "PIN", "TOTP"]
    openbell.http.delete(f"/python/delete/{strategy}").raise_for_status()


@pytest.mark.parametrize(
    ("path", "body", "status", "field"),
    [
        ("/python/env/{}", {"secrets": {"PIN": ["leak-me"]}}, 422, "secrets.PIN"),
        ("/python/env/{}", {"secrets": {"PIN": {"leak-me": 1}}}, 422, "secrets.PIN"),
        ("/python/env/{}", {"secrets": {"PIN": "leak-me\0"}}, 422, "secrets.PIN"),
        ("/python/env/{}", {"secrets": {"STRATEGY_ID": "leak-me"}}, 422, "secrets.STRATEGY_ID"),
        ("/python/env/{}", {"parameters": {"A B": "leak-me"}}, 422, "parameters.A B"),
        ("/python/env/{}", {"uses": {"KEY": "nothing"}}, 422, "uses.KEY"),
        ("/python/env/{}", {"secret": {"PIN": "leak-me"}}, 422, "secret"),
        ("/python/env/{}", {"secrets": "leak-me"}, 422, "secrets"),
        ("/auth/env", {"uses": {"KEY": "paper"}}, 422, "uses"),
        ("/auth/env", {"secrets": {"../x": "leak-me"}}, 422, "secrets.../x"),
        ("/auth/env", {"remove": ["paper"]}, 409, None),
    ],
)
def test_what_is_wrong_is_told_by_its_field_without_its_value(
    openbell: Stack, path: str, body: Any, status: int, field: str | None
) -> None:
    strategy = upload(openbell, QUIET, "Refused")
    answer = openbell.http.post(path.format(strategy), json=body)
    assert answer.status_code == status, answer.text
    assert "leak-me" not in answer.text
    if field is not None:
        assert answer.json()["errors"][0]["field"] == field
    else:
        assert "paper by Refused" in answer.json()["detail"]
    openbell.http.delete(f"/python/delete/{strategy}").raise_for_status()


def test_from_paper_to_live_and_under_a_new_key(openbell: Stack) -> None:
    script = "import os, time; print(len(os.environ['OPENALGO_API_KEY'])); time.sleep(600)"
    strategy = upload(openbell, script, "Switch")
    openbell.post(f"/python/start/{strategy}", params={"wait": 10})
    openbell.wait_log(strategy, str(len(PAPER)))
    uses = {"uses": {"OPENALGO_API_KEY": "live"}}
    assert "next start" in openbell.post(f"/python/env/{strategy}", json=uses)["note"]
    before = (openbell.home / "data" / "keys").read_text()
    rotated = openbell.post("/admin/rotate-key")
    assert rotated["resealed"] > 0
    assert rotated["broken"] == 0
    assert (openbell.home / "data" / "keys").read_text() != before
    openbell.post(f"/python/restart/{strategy}", params={"wait": 20})
    eventually(
        lambda: openbell.log(strategy).strip() == str(len(LIVE)) or None,
        lambda: openbell.log(strategy),
    )
    openbell.post(f"/python/stop/{strategy}", params={"wait": 10})
    openbell.http.delete(f"/python/delete/{strategy}").raise_for_status()
