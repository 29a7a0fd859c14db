"""Limits and runs on the command line."""

import json
from collections.abc import Generator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from openbell.cli import app
from openbell.contracts.limits import RunPolicy
from tests.e2e.test_cli import openbell
from tests.fixtures.stack import Stack

DEFAULT = json.loads(RunPolicy().encode())
CRASHES = "print('before')\n1 / 0\n"


@pytest.fixture(scope="module")
def strategy(stack: Stack) -> Generator[str]:
    strategy_id = stack.upload(CRASHES, "bounded")
    yield strategy_id
    stack.http.delete(f"/python/delete/{strategy_id}", params={"stop": True}).raise_for_status()


def wrong_usage(*arguments: str) -> str:
    """What is said of it, without its frame."""
    done = CliRunner().invoke(app, [*arguments, "--url", "http://127.0.0.1:9"])
    assert done.exit_code == 2, done.output
    return " ".join(done.output.replace("│", " ").split())


def test_every_option_sets_its_field(stack: Stack, strategy: str) -> None:
    options = (
        "--memory 512 --processes 64 --cpus 0.5 --cpu-weight 50 --disk 2048 --open-files 1024"
        " --quiet 10m --heartbeat 30s --max-runtime 8h --signals term --grace 20 --restart never"
        " --interpreter own"
    )
    answer = json.loads(openbell(stack, "limits", "bounded", *options.split(), "--json"))
    assert answer["policy"] == {
        "limits": {
            "memory_mb": 512,
            "processes": 64,
            "cpu_weight": 50,
            "cpus": 0.5,
            "disk_mb": 2048,
            "open_files": 1024,
        },
        "watchdogs": {"quiet_s": 600, "heartbeat_s": 30, "max_runtime_s": 28_800},
        "stop": {"signals": ["SIGTERM"], "grace_s": 20},
        "restart": "never",
        "interpreter": "own",
    }
    shown = openbell(stack, "limits", "bounded")
    for words in ("512 MB", "10m", "8h", "SIGTERM, SIGKILL", "20 s", "never"):
        assert words in shown, shown
    every = "memory,processes,cpus,cpu-weight,disk,open-files,quiet,heartbeat,max-runtime"
    unset = ("--default", every, "--default", "signals,--grace", "--default", "restart,interpreter")
    answer = json.loads(openbell(stack, "limits", "bounded", *unset, "--json"))
    assert answer["policy"] == DEFAULT
    assert "by the host's size" in openbell(stack, "limits", "bounded", "--signals", "none")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--default", "colour"), "there is no 'colour'"),
        (("--default", "memory", "--memory", "64"), "--memory is given, and --default memory too"),
        (("--quiet", "soon"), "--quiet: write a duration like"),
        (("--signals", ","), "--signals: name some, or none"),
        (("--cpus", "nan"), "--cpus: write a number"),
        (("--grace", "inf"), "--grace: write a number"),
    ],
)
def test_wrong_usage_is_told(options: tuple[str, ...], said: str) -> None:
    assert said in wrong_usage("limits", "bounded", *options)


def test_a_refusal_names_its_field(stack: Stack, strategy: str) -> None:
    refused = openbell(stack, "limits", "bounded", "--memory", "7", code=1)
    assert "limits.memory_mb: at least 32" in refused


def test_parts_of_a_second_are_told(stack: Stack, strategy: str) -> None:
    stack.post(f"/python/limits/{strategy}", json={"watchdogs": {"quiet_s": 7.5}})
    assert "7.5s" in openbell(stack, "limits", "bounded")


def test_limits_may_come_with_an_upload(stack: Stack, tmp_path: Path) -> None:
    script = tmp_path / "small.py"
    script.write_text(CRASHES)
    given = '{"limits": {"memory_mb": 64}}'
    said = openbell(stack, "upload", str(script), "--limits", given, "--stop-grace", "3", "--json")
    strategy = json.loads(said)["strategy"]["id"]
    policy = stack.http.get(f"/python/limits/{strategy}").json()["policy"]
    assert (policy["limits"]["memory_mb"], policy["stop"]["grace_s"]) == (64, 3)
    wrong = openbell(stack, "upload", str(script), "--name", "x", "--limits", "{", code=1)
    assert "limits: this is not JSON" in wrong
    stack.http.delete(f"/python/delete/{strategy}").raise_for_status()


def test_runs_and_the_record_of_one(stack: Stack, strategy: str) -> None:
    assert "It has not run yet." in openbell(stack, "runs", "bounded")
    stack.post(f"/python/limits/{strategy}", json={"restart": "never"})
    stack.post(f"/python/start/{strategy}", params={"wait": 20})
    stack.wait_status(strategy, "crashed")
    (run,) = json.loads(openbell(stack, "runs", "bounded", "--json"))
    assert (run["id"], run["reason"], run["exit_code"]) == (f"{strategy}-1", "crashed", 1)
    assert "crashed" in openbell(stack, "runs", "bounded")
    told = openbell(stack, "runs", "bounded", "1")
    assert f"run            {strategy}-1" in told
    assert "reason         crashed, exit code 1" in told
    record = json.loads(openbell(stack, "runs", "bounded", run["id"], "--json"))
    assert (record["epoch"], record["reason"]) == (1, "crashed")
    assert isinstance(record["last_lines"], list)
    assert "no run" in openbell(stack, "runs", "bounded", "9", code=1)
