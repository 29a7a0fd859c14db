"""The warden, with real processes: what it starts, and how that ends."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from services.runner.backends.warden_client import (
    WardenRefused,
    WardenUnavailable,
)
from tests.fixtures.wardens import KILL, SH, House, play, refusal, until

if sys.platform != "linux":
    pytest.skip("reads /proc", allow_module_level=True)
assert sys.platform == "linux"


def test_every_end_is_told_with_its_code_signal_and_reason(house: House):
    async def scene() -> None:
        async with house.client() as client:
            for name, script in {
                "zero": "echo out; echo err >&2",
                "three": "exit 3",
                "segv": "kill -SEGV $$",
                "term": "kill -TERM $$",
            }.items():
                await house.run(client, script, name)
            exits = await house.exits("zero", "three", "segv", "term")
            ends = {run: (e.exit_code, e.signal, e.reason) for run, e in exits.items()}
            assert ends == {
                "zero": (0, None, "completed"),
                "three": (3, None, "crashed"),
                "segv": (None, "SIGSEGV", "crashed"),
                "term": (None, "SIGTERM", "killed"),
            }
            assert house.log("zero").read_text() == "out\nerr\n"
            assert house.log("zero").stat().st_mode & 0o777 == 0o600
            assert await client.list() == []
            assert psutil.Process(client.pid).children() == []

    play(scene())


def test_a_strategy_inherits_nothing(house: House):
    """No variable, no descriptor, no signal setting, no terminal."""
    script = """
import os, signal, sys
print(sorted(os.listdir("/proc/self/fd"))[:-1], os.readlink("/proc/self/fd/0"))
print([n.name for n in signal.Signals if signal.getsignal(n) is signal.SIG_IGN])
print(signal.pthread_sigmask(signal.SIG_BLOCK, ()), os.getsid(0) == os.getpid())
"""

    async def scene() -> None:
        async with house.client() as client:
            await house.run(client, script, "python", sh=False)
            await client.start(replace(house.order(["/usr/bin/env"], "env"), env={"A": "b"}))
            await house.exits("python", "env")
        told = house.log("python").read_text().splitlines()
        assert told[0] == "['0', '1', '2'] /dev/null"
        assert told[1] == "['SIGPIPE', 'SIGXFSZ']", "which Python itself ignores"
        assert told[2] == "set() True"
        assert sorted(house.log("env").read_text().split()) == [
            "A=b",
            "OPENBELL_RUN_ID=env",
        ]

    read, write = os.pipe()
    before = signal.signal(signal.SIGQUIT, signal.SIG_IGN)
    try:
        with house.warden(pass_fds=(read, write)):
            play(scene())
    finally:
        signal.signal(signal.SIGQUIT, before)
        os.close(read)
        os.close(write)


def test_a_repeated_start_answers_the_same_and_starts_nothing(house: House):
    async def scene() -> None:
        async with house.client() as client:
            first = await house.run(client, "sleep 100")
            assert await house.run(client, "sleep 100") == first
            await client.stop("a", "stopped_by_user", KILL)
            await house.exits("a")
            assert await house.run(client, "sleep 100") == first
            assert await client.list() == []
        assert [entry["kind"] for entry in house.journal()] == [
            "starting", "started", "stopping", "exited",
        ]  # fmt: skip

    play(scene())


def test_an_old_epoch_is_fenced_and_a_live_strategy_is_busy(house: House):
    async def scene() -> None:
        async with house.client() as client:
            await house.run(client, "sleep 100", "a-1", epoch=5)
            assert await refusal(house.run(client, "true", "a-2", epoch=5)) == "fenced"
            assert await refusal(house.run(client, "true", "a-2", epoch=6)) == "busy"
            await client.stop("a-1", "stopped_by_user", KILL)
            await house.exits("a-1")
            os.kill(client.pid, signal.SIGKILL)
        async with house.client() as client:
            assert await refusal(house.run(client, "true", "a-3", epoch=5)) == "fenced"
            await house.run(client, "true", "a-3", epoch=6)
            await house.exits("a-3")

    play(scene())


def test_a_start_that_cannot_be_says_why_and_leaves_nothing(house: House):
    async def scene() -> None:
        house.log("x").parent.mkdir(parents=True)
        fifo = house.folder / "log" / "fifo"
        os.mkfifo(fifo)
        link = house.folder / "log" / "link"
        link.symlink_to("/etc/passwd")
        plain = house.folder / "plain"
        plain.touch(0o644)
        cases: list[tuple[str, dict[str, Any]]] = [
            ("no-such-python", {"argv": ("/no-such-python",)}),
            ("passwd cannot be executed", {"argv": ("/etc/passwd",)}),
            ("/etc cannot be executed", {"argv": ("/etc",)}),
            ("/no-such-folder", {"cwd": "/no-such-folder"}),
            ("Not a directory", {"cwd": str(plain)}),
            ("holds more than a strategy", {"cwd": "/"}),
            ("holds more than a strategy", {"cwd": str(house.folder)}),
            ("directory", {"log": str(house.folder / "log")}),
            ("/plain", {"log": str(plain / "log")}),
            ("log/fifo", {"log": str(fifo)}),
            ("log/link", {"log": str(link)}),
            ("null", {"argv": (SH, "\0")}),
            ("null", {"env": {"A": "\0"}}),
            ("holds =", {"env": {"A=B": ""}}),
            ("surrogate", {"argv": (SH, "\ud800")}),
        ]
        async with house.client() as client:
            before = house.traces(client.pid)
            for number, (why, misfit) in enumerate(cases):
                fit = house.order([SH], f"r{number}", number, strategy="s")
                order = replace(fit, **misfit)
                for _ in range(2):
                    with pytest.raises(WardenRefused, match=why) as refused:
                        await client.start(order)
                    assert refused.value.code == "start_failed"
            for run in ("../x", "A", "a b", "r" * 101):
                order = house.order([SH], run, 99, log=str(house.log("x")))
                assert await refusal(client.start(order)) == "bad_request"
            order = house.order([SH], "s-99", 99, cwd="relative")
            assert await refusal(client.start(order)) == "bad_request"
            exits = await house.exits(*(f"r{number}" for number in range(len(cases))))
            assert {entry.reason for entry in exits.values()} == {"start_failed"}
            assert await client.list() == []
            await until(lambda: house.traces(client.pid) == before)

    play(scene())


def test_what_the_system_refuses_to_execute_at_last_is_told_as_a_start_that_failed(house: House):
    """Only the execution itself shows it."""

    async def scene() -> None:
        house.work.mkdir(parents=True)
        (house.work / "script").write_text("#!/no-such-interpreter\n")
        (house.work / "script").chmod(0o755)
        async with house.client() as client:
            await house.start(client, [str(house.work / "script")], "orphan")
            await house.start(client, [SH, *(["x" * 100_000] * 30)], "long")
            exits = await house.exits("orphan", "long")
        for run, why in {"orphan": "No such file", "long": "Argument list too long"}.items():
            assert (exits[run].reason, exits[run].exit_code) == ("start_failed", None)
            assert why in (exits[run].detail or "")

    play(scene())


def test_what_a_run_used_is_told_with_its_end(house: House):
    """By its group, or, where there is none, by what its processes tell when they are reaped."""
    script = "x = b'x' * (64 << 20); sum(range(3_000_000))"

    async def scene() -> None:
        async with house.client() as client:
            await house.run(client, script, sh=False)
            entry = await house.exit()
            assert entry.peak_memory is not None
            assert 64 << 20 <= entry.peak_memory < 256 << 20
            assert entry.cpu_s is not None
            assert 0.02 < entry.cpu_s < 10
            assert (entry.refused, entry.out_of_memory) == (0, 0)

    play(scene())


def test_what_a_run_may_not_have_is_refused_and_counted(house: House):
    hungry = "import time; x = b'x' * (512 << 20); time.sleep(100)"
    many = """
import os, signal
for n in range(3):
    try:
        if os.fork() == 0:
            signal.pause()
    except BlockingIOError:
        print("refused", n)
"""

    async def scene() -> None:
        async with house.client() as client:
            enforces = client.host["enforces"]
            if not (enforces["memory"] and enforces["processes"]):
                pytest.skip(client.host["why_no_limits"])
            await house.run(client, hungry, "hungry", sh=False, memory=64 << 20)
            await house.run(client, many, "many", sh=False, processes=2)
            exits = await house.exits("hungry", "many")
        hungry_one, many_one = exits["hungry"], exits["many"]
        assert (hungry_one.reason, hungry_one.signal) == ("memory_limit", "SIGKILL")
        assert hungry_one.out_of_memory == 1
        assert (many_one.reason, many_one.refused) == ("completed", 2)
        assert house.log("many").read_text() == "refused 1\nrefused 2\n", "its own process counts"

    play(scene())


def test_a_warden_with_nothing_to_do_ends_and_leaves_nothing(house: House):
    async def scene() -> None:
        with house.warden(idle=0.3) as warden:
            await until((house.folder / "address.json").exists)
            async with house.client() as client:
                assert client.pid == warden.pid
                groups = house.groups()
                await house.run(client, "sleep 0.6")
            await until(lambda: warden.poll() is not None)
        assert warden.returncode == 0
        assert groups.runs() == set()
        names = {path.name for path in house.folder.iterdir() if any_file_in(path)}
        assert names - {"uids.json"} == {"journal.jsonl", "warden.log", "log"}
        assert [entry["kind"] for entry in house.journal()] == ["starting", "started", "exited"]

    play(scene())


def any_file_in(path: Path) -> bool:
    return path.is_file() or any(each.is_file() for each in path.rglob("*"))


def test_sigterm_waits_for_the_last_run(house: House):
    async def scene() -> None:
        async with house.client() as client:
            await house.run(client, "sleep 100")
            for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
                os.kill(client.pid, number)
            assert await refusal(client.shutdown()) == "busy"
            await client.stop("a", "host_shutdown", KILL)
            with pytest.raises(WardenUnavailable):
                async for _ in client.entries(100):
                    pass
        assert house.journal()[-1]["reason"] == "host_shutdown"
        assert "asked to end" in (house.folder / "warden.log").read_text()

    play(scene())


def test_a_folder_deeper_than_a_socket_s_path_may_be(tmp_path: Path):
    house = House(tmp_path / ("d" * 60) / ("e" * 60) / "warden")
    assert len(str(house.folder)) > 108

    async def scene() -> None:
        async with house.client() as client:
            await house.run(client, "exit 5")
            assert (await house.exits("a"))["a"].exit_code == 5
            assert (house.folder / "warden.sock").stat().st_mode & 0o777 == 0o600
            await client.shutdown()

    try:
        play(scene())
    finally:
        house.clear()
