"""A warden that its host keeps going, and a runner that did not start it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from openbell.contracts.limits import Limits
from services.runner.backends import warden_client
from services.runner.backends.base import BackendLost
from services.runner.backends.process import UNSEEN, ProcessBackend
from services.runner.backends.warden_client import ROOT
from tests.fixtures.wardens import House, refusal, until

if sys.platform != "linux":
    pytest.skip("reads /proc", allow_module_level=True)
assert sys.platform == "linux"

PATIENCE_S = 30
CLEANS_UP = "trap 'echo cleaned up; exit 7' INT; echo up; while :; do sleep 0.02; done"
LIVES = "echo up; while [ ! -e go ]; do sleep 0.02; done; exit 5"


@contextmanager
def kept(house: House, before: Sequence[str] = ()) -> Generator[subprocess.Popen[bytes]]:
    house.folder.mkdir(parents=True, exist_ok=True)
    program = [sys.executable, "-S", "-m", "services.runner.warden", str(house.folder)]
    with (house.folder / "warden.log").open("ab") as log:
        keeping = subprocess.Popen([*before, *program], cwd=ROOT, stderr=log)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not (house.folder / "address.json").exists():
            assert keeping.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield keeping
    finally:
        if keeping.poll() is None:
            process = psutil.Process(keeping.pid)
            (process.children()[0] if before else process).terminate()
            keeping.wait(PATIENCE_S)


def check(house: House) -> int:
    program = [sys.executable, "-S", "-m", "services.runner.warden", "--check", str(house.folder)]
    return subprocess.run(program, cwd=ROOT, check=False, capture_output=True).returncode


def warden_of(keeping: subprocess.Popen[bytes]) -> psutil.Process:
    (warden,) = [
        child
        for child in psutil.Process(keeping.pid).children()
        if child.cmdline() == psutil.Process(keeping.pid).cmdline()
    ]
    return warden


def test_a_warden_that_dies_is_started_anew_and_runs_go_on(house: House) -> None:
    async def scenario() -> None:
        async with house.client() as client:
            started = await house.run(client, LIVES)
            await house.said("up")
            (house.folder / "address.json").unlink()
            warden = warden_of(keeping)
            warden.kill()
        await until((house.folder / "address.json").exists)
        async with house.client() as client:
            assert [(one.run, one.pid) for one in await client.list()] == [("a", started.pid)]
            assert client.pid != warden.pid
            house.go.touch()
        assert (await house.exit()).exit_code == 5

    with kept(house) as keeping:
        assert check(house) == 0
        asyncio.run(scenario())
    assert check(house) == 1


def test_when_its_host_shuts_down_each_run_walks_its_ladder_and_says_why(house: House) -> None:
    async def scenario() -> None:
        async with house.client() as client:
            for run in ("a", "b"):
                await house.run(client, CLEANS_UP, run)
                await house.said("up", run)

    with kept(house) as keeping:
        asyncio.run(scenario())
        keeping.send_signal(signal.SIGTERM)
        assert keeping.wait(PATIENCE_S) == 0
    ends = {one["run"]: one for one in house.journal() if one["kind"] == "exited"}
    assert {run: (end["reason"], end["exit_code"]) for run, end in ends.items()} == {
        "a": ("host_shutdown", 7),
        "b": ("host_shutdown", 7),
    }
    assert "cleaned up" in house.log("b").read_text()


def test_a_warden_that_ends_starts_nothing_more(house: House) -> None:
    """Else what is resumed at once would keep it from ending for ever."""
    stubborn = "trap 'echo asked' INT; echo up; while [ ! -e go ]; do sleep 0.02; done"

    async def scenario() -> None:
        async with house.client() as client:
            await house.run(client, stubborn)
            await house.said("up")
            keeping.send_signal(signal.SIGTERM)
            await house.said("asked")
            assert await refusal(house.run(client, LIVES, "b")) == "leaving"
            house.go.touch()

    with kept(house) as keeping:
        asyncio.run(scenario())
        assert keeping.wait(PATIENCE_S) == 0
    assert [one["run"] for one in house.journal() if one["kind"] == "started"] == ["a"]


def test_a_runner_whose_warden_is_not_its_own_starts_none(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warden_client, "PATIENCE", 0.2)

    async def scenario() -> None:
        with pytest.raises(BackendLost, match="no warden answers"):
            await ProcessBackend(house.folder, own=False).recover()

    asyncio.run(scenario())
    assert not (house.folder / "warden.log").exists()


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs root and unshare"
)
def test_a_process_of_another_namespace_is_none_of_ours_to_look_at(house: House) -> None:
    """Its number there is a stranger's here, who would be counted, and judged, in its place."""

    async def scenario() -> None:
        async with house.client() as client:
            await house.run(client, LIVES)
        backend = ProcessBackend(house.folder, own=False)
        recovery = await backend.recover()
        (live,) = recovery.live
        assert live.process is not None
        assert live.process.pid == UNSEEN
        assert "watched" not in (
            backend.capabilities.memory_limit,
            backend.capabilities.pids_limit,
        )
        await backend.close()
        house.go.touch()

    with kept(house, ("unshare", "--pid", "--mount-proc", "--fork", "--kill-child")):
        asyncio.run(scenario())


def test_nothing_is_read_of_a_process_that_is_not_seen() -> None:
    from services.runner.monitor.sources import Reader  # noqa: PLC0415

    class Unseen:
        pid, keeper, group, limits = UNSEEN, True, None, Limits()

    assert Reader().read({"a": Unseen()}) == {}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root works for somebody else")
def test_a_warden_that_a_runner_started_is_for_its_own_user_alone(house: House) -> None:
    house.folder.mkdir(parents=True)
    os.chown(house.folder, 10001, 10001)
    with house.warden():
        assert (house.folder / "warden.sock").stat().st_uid == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root works for somebody else")
def test_a_warden_that_is_root_works_for_whose_its_folder_is(house: House) -> None:
    house.folder.mkdir(parents=True)
    os.chown(house.folder, 10001, 10001)
    with kept(house):
        found = {name: (house.folder / name).stat() for name in ("warden.sock", "address.json")}
        journal = house.folder / "journal.jsonl"
        assert journal.stat().st_uid == 0
    assert {name: (one.st_uid, one.st_mode & 0o777) for name, one in found.items()} == {
        "warden.sock": (10001, 0o600),
        "address.json": (10001, 0o600),
    }


def _owner(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_uid, found.st_gid, found.st_mode & 0o777


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_folders_and_logs_stay_within_reach_of_a_runner_that_is_not_root(tmp_path: Path) -> None:
    from services.runner.warden import cells, posix, uids  # noqa: PLC0415

    strategies, logs = tmp_path / "strategies", tmp_path / "log"
    for folder in (strategies, logs, strategies / "s"):
        folder.mkdir()
        os.chown(folder, 10001, 10001)
    (strategies / "s" / "script.py").touch()
    (strategies / "s" / "link").symlink_to("/etc/passwd")
    uids.give(strategies / "s", 40_007)
    assert _owner(strategies / "s") == (10001, 40_007, 0o770)
    assert _owner(strategies / "s" / "script.py")[:2] == (40_007, 40_007)
    assert Path("/etc/passwd").stat().st_uid == 0
    log = posix.open_log(logs / "s" / "s-1.log")
    cells._give_log(log, 40_007, logs / "s")  # pyright: ignore[reportPrivateUsage]
    os.close(log)
    assert _owner(logs / "s")[:2] == (10001, 10001)
    assert _owner(logs / "s" / "s-1.log") == (40_007, 10001, 0o660)
