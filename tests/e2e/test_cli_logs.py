"""A log on the command line: on a terminal, in a pipe, and what is said beside it."""

import json
import os
import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from openbell import cli_logs
from openbell.cli import app
from tests.e2e.test_cli import its_environment, openbell, ran
from tests.fixtures.stack import OPENBELL, Stack
from tests.integration.test_logs import Talker

EVIL = r"^(a+)+$"
CLEAR, TITLE, RED, END = "\x1b[2J", "\x1b]0;mine\x07", "\x1b[31m", "\x1b[0m"
SAID = f"{CLEAR}{TITLE}sold\rbought {RED}red\nplain"
SOURCE = f"print({SAID!r}, flush=True)\nraise SystemExit({CLEAR + TITLE + 'no key'!r})\n"
ORDERS = (CLEAR, TITLE, "sold\r", "\x1b]", "\x07", "\x9b")


def test_what_was_dropped_is_told_beside_the_log(stack: Stack) -> None:
    talker = Talker(stack, "cleared")
    openbell(stack, "logs", "cleared", "--clear", "--yes")
    talker.says("after")
    stack.wait_log(talker.id, "after\n")
    said = ran(stack, "logs", "cleared")
    assert (said.stdout, said.stderr) == ("after\n", "(the first 3 bytes were dropped)\n")
    talker.ends()


def test_what_a_search_left_out_is_told_beside_its_lines(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    talker = Talker(stack, "searched")
    talker.does("for n in range(4): print('line', n)")
    talker.does("print('a' * 40 + '!')")
    talker.says("through")
    stack.wait_log(talker.id, "through\n")
    few = ran(stack, "logs", "searched", "--search", "line", "-n", "2")
    at = len("up\nline 0\nline 1\n")
    assert few.stdout == "line 2\nline 3\n"
    assert f"(there may be more: what lies before byte {at} was not searched)" in few.stderr
    slow = ran(stack, "logs", "searched", "--search", f"{EVIL}|line 0", "--regex")
    assert (slow.stdout, slow.stderr) == ("line 0\n", "(1 lines took too long)\n")
    all_of_it = ran(stack, "logs", "searched", "--search", "line")
    assert (len(all_of_it.stdout.splitlines()), all_of_it.stderr) == (4, "")

    talker.does("for _ in range(50): print('a' * 40 + '!')")
    talker.says("through again")
    stack.wait_log(talker.id, "through again\n")
    monkeypatch.setattr(cli_logs, "SECONDS", 0.5)
    words = ["logs", "searched", "--search", EVIL, "--regex"]
    cut = CliRunner().invoke(app, words, env=its_environment(stack))
    assert cut.exit_code == 1
    assert "(its time was over: what lies before byte" in cut.stderr
    talker.ends()


def test_doctor_runs_what_is_installed_and_looks_at_the_home_that_is_set(
    stack: Stack, tmp_path: Path
) -> None:
    """Whatever lies in the current folder by the names of ours."""
    for package in ("openbell", "services", "services/runner"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("raise SystemExit('not the installed one')")
    done = subprocess.run(
        [OPENBELL, "doctor", "--json"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=its_environment(stack),
    )
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert checks["limits"]["ok"], checks
    assert "not the installed one" not in done.stdout + done.stderr
    assert str(stack.home) in done.stdout


@pytest.fixture(scope="module")
def loud(stack: Stack) -> Generator[str]:
    policy = {"restart": "never"}
    strategy_id = stack.upload(SOURCE, "loud", limits=policy)
    stack.post(f"/python/start/{strategy_id}")
    stack.wait_status(strategy_id, "crashed")
    yield strategy_id
    stack.http.delete(f"/python/delete/{strategy_id}", params={"stop": True}).raise_for_status()


def on_a_terminal(stack: Stack, *arguments: str) -> str:
    """Both outputs of a command, as a terminal gets them."""
    pty = pytest.importorskip("pty", reason="there is none")
    ours, theirs = pty.openpty()
    environment = its_environment(stack, TERM="xterm", NO_COLOR="1")
    command = [OPENBELL, *arguments]
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        said = b""
        try:
            while piece := os.read(ours, 65536):
                said += piece
        except OSError:
            pass  # it has ended: so Linux tells it
        finally:
            os.close(ours)
        assert process.wait(60) == 0, said
    return said.decode().replace("\r\n", "\n")


LOGS = {
    "its end": (),
    "followed": ("-f",),
    "searched": ("--search", "sold"),
}


@pytest.mark.parametrize("how", LOGS)
def test_a_terminal_is_shown_the_orders_in_a_log(stack: Stack, loud: str, how: str) -> None:
    said = on_a_terminal(stack, "logs", loud, *LOGS[how])
    assert not [order for order in ORDERS if order in said]
    assert rf"\x1b[2J\x1b]0;mine\x07sold\rbought {RED}red" in said
    assert said.endswith(END)


def test_a_pipe_gets_a_log_as_it_is(stack: Stack, loud: str) -> None:
    piped = subprocess.run(
        [OPENBELL, "logs", loud], capture_output=True, check=True, env=its_environment(stack)
    )
    assert piped.stdout.startswith(SAID.encode())


@pytest.mark.parametrize("command", [["runs", "loud"], ["runs", "loud", "1"], ["ls"]])
def test_tables_hold_no_orders(stack: Stack, loud: str, command: list[str]) -> None:
    said = on_a_terminal(stack, *command)
    assert "no key" in said
    assert not [order for order in ORDERS if order in said]


def test_a_record_in_a_pipe_stays_as_it_is(stack: Stack, loud: str) -> None:
    assert CLEAR in ran(stack, "runs", "loud", "1").stdout
