"""The command line, as people and scripts use it."""

import gzip
import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.fixtures.stack import OPENBELL, Stack

FOREVER = "import time\nprint('on', flush=True)\nwhile True: time.sleep(0.05)\n"


def its_environment(stack: Stack, person: Path | None = None, **more: str) -> dict[str, str]:
    """A shell of the Openbell's owner; or of somebody else, whose files are in a folder."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("OPENBELL_")}
    folder = str(person or stack.home.parent / "owner")
    ours = {"HOME": folder, "XDG_CONFIG_HOME": folder, "APPDATA": folder, "COLUMNS": "200"}
    at = {"OPENBELL_URL": stack.url}
    at |= {} if person else {"OPENBELL_HOME": str(stack.home)}
    return {**kept, **ours, **at, **more}


def ran(
    stack: Stack, *arguments: str, typed: str = "", person: Path | None = None, **more: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [OPENBELL, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        input=typed,
        cwd=person,
        env=its_environment(stack, person, **more),
    )


def openbell(
    stack: Stack, *arguments: str, code: int = 0, typed: str = "", person: Path | None = None
) -> str:
    done = ran(stack, *arguments, typed=typed, person=person)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stderr


@pytest.fixture
def script(tmp_path: Path) -> Path:
    file = tmp_path / "my_strategy.py"
    file.write_text(FOREVER)
    return file


def test_a_day_with_a_strategy(stack: Stack, script: Path) -> None:
    assert "No strategies yet" in openbell(stack, "ls")
    said = openbell(stack, "upload", str(script), "--exchange", "NSE", "--set", "A=1", "--start")
    assert "my_strategy (my-strategy-" in said
    assert "running, started by hand" in said
    assert "running" in openbell(stack, "ls")
    assert openbell(stack, "logs", "MY_STRATEGY") == "on\n"
    scheduled = openbell(
        stack, "schedule", "my_strategy", "--exchange", "NSE", "--start", "09:15", "--stop", "15:30"
    )
    assert "running" in scheduled
    assert "paused, stopped by hand" in openbell(stack, "stop", "my_strategy")
    assert "starts " in openbell(stack, "resume", "my_strategy")
    openbell(stack, "schedule", "my_strategy", "--none")
    (before,) = json.loads(openbell(stack, "ls", "--json"))  # at some times of day NSE is open
    restarted = json.loads(openbell(stack, "restart", "my_strategy", "--json"))
    assert restarted["strategy"]["run"]["epoch"] == before["run"]["epoch"] + 1
    assert "running" in openbell(stack, "delete", "my_strategy", code=1)
    assert "deleted my-strategy-" in openbell(stack, "delete", "my_strategy", "--stop")
    assert json.loads(openbell(stack, "ls", "--json")) == []


def test_logs_are_followed_until_the_run_ends(stack: Stack, tmp_path: Path) -> None:
    file = tmp_path / "count.py"
    file.write_text("import time\nfor n in range(5):\n    print(n)\n    time.sleep(0.05)\n")
    openbell(stack, "upload", str(file), "--start")
    assert openbell(stack, "logs", "-f", "count") == "0\n1\n2\n3\n4\n"
    openbell(stack, "delete", "count")


def test_logs_are_searched_downloaded_and_cleared(stack: Stack, tmp_path: Path) -> None:
    file = tmp_path / "many.py"
    file.write_text("for n in range(30):\n    print('Line', n)\n")
    openbell(stack, "upload", str(file), "--start")
    assert openbell(stack, "logs", "-f", "-n", "2", "many").endswith("Line 28\nLine 29\n")
    assert openbell(stack, "logs", "many", "-n", "2") == "Line 28\nLine 29\n"
    assert openbell(stack, "logs", "many", "--search", "Line 1", "-n", "2") == "Line 18\nLine 19\n"
    found = openbell(stack, "logs", "many", "--search", "^line [12]$", "--regex", "-i")
    assert found == "Line 1\nLine 2\n"
    openbell(stack, "logs", "many", "--search", "nothing", code=1)
    assert "give one of" in openbell(stack, "logs", "many", "-f", "--clear", code=2)
    view = json.loads(openbell(stack, "logs", "many", "--json"))
    assert (view["next_offset"], view["content"][-8:]) == (view["size"], "Line 29\n")
    assert "--json is not" in openbell(stack, "logs", "many", "-f", "--json", code=2)
    saved = tmp_path / "many.log.gz"
    assert str(saved) in openbell(stack, "logs", "many", "--download", str(saved)).replace("\n", "")
    assert gzip.decompress(saved.read_bytes()).startswith(b"Line 0\nLine 1\n")
    assert "is cleared" in openbell(stack, "logs", "many", "--clear", "--yes")
    gone = openbell(stack, "logs", "many", code=1)
    assert "not there any more" in gone
    assert "it was cleared" in gone
    again = openbell(stack, "logs", "many", "--download", str(saved), code=1)
    assert "not there any more" in again
    assert gzip.decompress(saved.read_bytes()).startswith(b"Line 0\n"), "the earlier one stays"
    assert list(saved.parent.glob(".*.part")) == []
    nowhere = openbell(stack, "logs", "many", "--download", "/nonexistent/x.gz", code=1)
    assert "Traceback" not in nowhere
    openbell(stack, "delete", "many")


def test_a_script_that_crashes_at_once_is_an_exit_code(stack: Stack, tmp_path: Path) -> None:
    file = tmp_path / "bad.py"
    file.write_text("raise SystemExit('no login')\n")
    openbell(stack, "upload", str(file), "--restart", "never")
    view = stack.http.get("/python/").json()["strategies"][0]
    stack.post(f"/python/start/{view['id']}")
    stack.wait_status(view["id"], "crashed")
    listed = json.loads(openbell(stack, "ls", "--json"))
    assert listed[0]["reason"] == "crashed with exit code 1: no login"
    openbell(stack, "delete", "bad")


def test_a_list_stays_a_list_whatever_a_script_said_last(stack: Stack, tmp_path: Path) -> None:
    words = " ".join(f"word{n}" for n in range(120))
    file = tmp_path / "talkative.py"
    file.write_text(f"raise SystemExit({words!r})\n")
    openbell(stack, "upload", str(file), "--restart", "never")
    strategy_id = stack.http.get("/python/").json()["strategies"][0]["id"]
    stack.post(f"/python/start/{strategy_id}")
    stack.wait_status(strategy_id, "crashed")
    (listed,) = json.loads(openbell(stack, "ls", "--json"))
    for columns in (80, 120, 200):
        lines = ran(stack, "ls", COLUMNS=str(columns)).stdout.splitlines()
        assert len(lines) <= 3
        assert max(map(len, lines)) <= columns
        assert "crashed with exit code 1" in " ".join(lines[1].split())
        assert listed["run"]["id"] in lines[1]
        assert "..." in lines[2]
    assert "word20" in listed["reason"]
    openbell(stack, "delete", "talkative")


def test_exit_codes_tell_what_went_wrong(stack: Stack, tmp_path: Path) -> None:
    assert "there is no strategy 'x'" in openbell(stack, "start", "x", code=1)
    openbell(stack, "start", code=2)
    openbell(stack, "schedule", "x", "--always", "--none", code=2)
    openbell(stack, "ls", "--url", "http://127.0.0.1:9", code=3)
    broken = tmp_path / "broken.py"
    broken.write_text("x = (\n")
    assert "line 1, column 5" in openbell(stack, "upload", str(broken), code=1)
    openbell(stack, "run", "everything", code=2)


def test_events_are_printed_as_they_happen(stack: Stack, script: Path) -> None:
    command = [OPENBELL, "events", "--json"]
    environment = its_environment(stack)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["event"] == "hello"
        openbell(stack, "upload", str(script), "--name", "watched")
        told = json.loads(process.stdout.readline())
        assert (told["event"], told["name"]) == ("strategy_uploaded", "watched")
        process.terminate()
    openbell(stack, "delete", "watched")


def test_doctor_proves_one_strategy_end_to_end() -> None:
    done = subprocess.run(
        [OPENBELL, "doctor", "--smoke", "--json"], capture_output=True, text=True, check=False
    )
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert done.returncode == 0, checks
    assert checks["nothing left"]["ok"]
    assert checks["events"]["ok"]
