"""A whole Openbell that may have few descriptors, and a stranger who would take them all."""

import resource
import socket
import sys
from collections.abc import Generator
from contextlib import ExitStack
from pathlib import Path

import httpx
import psutil
import pytest

from tests.fixtures import stack as stacks
from tests.fixtures.stack import Stack, processes_of, start_one_process

if sys.platform != "linux":
    pytest.skip("limits of others are seen on Linux alone", allow_module_level=True)
assert sys.platform == "linux"

FEW = 1024
STRANGERS = 1500
SOURCE = """\
import resource
print("may open", *resource.getrlimit(resource.RLIMIT_NOFILE), flush=True)
open("here", "w").close()
input()
"""


@pytest.fixture
def plenty() -> Generator[None]:
    """Descriptors for this process, which is all the strangers."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] != resource.RLIM_INFINITY and before[1] < 2 * STRANGERS:
        pytest.skip("this host gives too few descriptors to take 1,500")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], 2 * STRANGERS), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def openbell_given(limit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on it is started with these descriptors, in the words of the shell's `ulimit`."""
    script = tmp_path / "openbell"
    script.write_text(f'#!/bin/sh\nulimit {limit}\nexec "{stacks.OPENBELL}" "$@"\n')
    script.chmod(0o755)
    monkeypatch.setattr(stacks, "OPENBELL", script)


def soft_limits(stack: Stack) -> dict[str, int]:
    """Of the product and of its warden."""
    product = stack.processes[0].pid
    return {
        "product" if process.pid == product else "warden": process.rlimit(psutil.RLIMIT_NOFILE)[0]
        for process in processes_of(stack.home)
        if process.pid == product or "warden.main" in " ".join(process.cmdline())
    }


def test_it_takes_what_descriptors_its_host_allows_and_strategies_get_what_they_got(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    openbell_given("-Sn 512", tmp_path, monkeypatch)
    stack = start_one_process(home)
    strategy = stack.upload(SOURCE, "modest", limits={"limits": {"open_files": 300}})
    stack.post(f"/python/start/{strategy}")
    stack.wait_log(strategy, "may open 300 300")
    assert soft_limits(stack) == {"product": min(hard, 65_536), "warden": 512}
    assert stack.stop() == [0]


def test_silent_connections_take_no_descriptors_that_it_needs(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plenty: None
) -> None:
    openbell_given(f"-n {FEW}", tmp_path, monkeypatch)
    stack = start_one_process(home)
    strategy = stack.upload(SOURCE, "served")
    url = httpx.URL(stack.url)
    with ExitStack() as strangers, stack.events() as events:
        assert next(events)[1] == "hello"
        for _ in range(STRANGERS):
            one = socket.create_connection((url.host, url.port or 0), timeout=10)
            strangers.enter_context(one)
        with stack.client(stack.token) as newcomer:
            assert newcomer.get("/python/").status_code == 200
        assert psutil.Process(stack.processes[0].pid).num_fds() < FEW
        stack.post(f"/python/start/{strategy}", params={"wait": 30})
        stack.wait_log(strategy, "may open")
        assert any(kind == "run_started" for _, kind, _ in events)  # it was never cut
    said = (home / "up.stderr").read_text()
    assert "the front door is full" in said
    assert "Too many open files" not in said
    assert stack.stop() == [0]
