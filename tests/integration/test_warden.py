"""The warden, with real processes: whatever dies, nothing is lost and nobody is orphaned."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from services.runner.backends.warden_client import (
    BOOT,
    ROOT,
    Started,
    WardenClient,
    WardenRefused,
    WardenUnavailable,
)
from services.runner.warden.protocol import Entry, Steps

if sys.platform != "linux":
    pytest.skip("reads /proc", allow_module_level=True)
assert sys.platform == "linux"

SH = "/bin/sh"
LADDER = (("SIGINT", 2.0), ("SIGTERM", 2.0), ("SIGKILL", 0.0))
KILL: Steps = (("SIGKILL", 0.0),)
QUICK: Steps = (("SIGINT", 0.2), ("SIGTERM", 0.2), ("SIGKILL", 0.0))
PATIENT: Steps = (("SIGINT", 20.0), ("SIGKILL", 0.0))


class House:
    """A folder, its warden, and every process that was ever started under it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.token = uuid.uuid4().hex
        self.children: list[subprocess.Popen[bytes]] = []

    @asynccontextmanager
    async def client(self) -> AsyncGenerator[WardenClient]:
        client = await WardenClient.connect(self.folder)
        try:
            yield client
        finally:
            await client.close()

    async def run(
        self, client: WardenClient, script: str, run: str = "a", *, epoch: int = 1, sh: bool = True
    ) -> Started:
        """Starts the script under a strategy of the same name as the run."""
        argv = [SH, "-c", script] if sh else [sys.executable, "-I", "-S", "-c", script]
        started = await self.start(client, argv, run, epoch)
        assert started is not None
        return started

    async def hold(
        self, client: WardenClient, script: str, at: float, run: str = "a", *, epoch: int = 1
    ) -> Started | None:
        """Starts the script at this instant."""
        return await self.start(client, [SH, "-c", script], run, epoch, at)

    async def start(
        self,
        client: WardenClient,
        argv: Sequence[str],
        run: str,
        epoch: int,
        at: float | None = None,
    ) -> Started | None:
        return await client.start(
            run=run,
            strategy=run.partition("#")[0],
            epoch=epoch,
            argv=[*argv, self.token],
            cwd=self.folder,
            env={"PATH": os.environ["PATH"], "TOKEN": self.token},
            log=self.log(run),
            ladder=LADDER,
            at=at,
        )

    def log(self, run: str) -> Path:
        return self.folder / "log" / f"{run}.log"

    async def exits(self, *runs: str) -> dict[str, Entry]:
        """Waits for the runs to be over; fails when anything is told of one twice."""
        async with self.client() as client, asyncio.timeout(15):
            found: dict[str, Entry] = {}
            async for entries in client.entries(0):
                for entry in entries:
                    if entry.kind == "exited":
                        assert entry.run not in found
                        found[entry.run] = entry
                if found.keys() >= set(runs):
                    return found
        raise AssertionError

    async def said(self, text: str, run: str = "a") -> None:
        await until(lambda: self.log(run).exists() and text in self.log(run).read_text())

    def journal(self) -> list[dict[str, Any]]:
        lines = (self.folder / "journal.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    @contextmanager
    def warden(
        self, *, idle: float = 10.0, pass_fds: Sequence[int] = ()
    ) -> Generator[subprocess.Popen[bytes]]:
        self.folder.mkdir(parents=True, exist_ok=True)
        program = BOOT.format(root=str(ROOT)) + f"main({str(self.folder)!r}, {idle})"
        with (self.folder / "warden.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", program],
                stderr=log,
                start_new_session=True,
                pass_fds=pass_fds,
            )
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def child(self, **env: str) -> subprocess.Popen[bytes]:
        """A process of the test's own, which the warden did not start."""
        child = subprocess.Popen(
            ["sleep", "100"], env={"TOKEN": self.token, **env}, start_new_session=True
        )
        self.children.append(child)
        return child

    def processes(self) -> list[psutil.Process]:
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def clear(self) -> None:
        while left := self.processes():
            for process in left:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(left, timeout=0.05)
        for child in self.children:
            child.wait()

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            words = [*process.cmdline(), *process.environ().values()]
        except (psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied):
            return False
        return process.pid != os.getpid() and any(
            self.token in word or str(self.folder) in word for word in words
        )


@pytest.fixture
def house(tmp_path: Path) -> Generator[House]:
    house = House(tmp_path / "warden")
    yield house
    house.clear()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


def gone(started: Started) -> bool:
    """Or a zombie, for who is not the warden's child waits for init."""
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(started.pid).status() == psutil.STATUS_ZOMBIE
    return True


def play(scene: Awaitable[None]) -> None:
    async def scenes() -> None:
        await scene

    asyncio.run(scenes())


async def first(entries: AsyncIterator[Sequence[Entry]]) -> Sequence[Entry]:
    return await anext(entries)


async def refusal(question: Awaitable[object]) -> str:
    with pytest.raises(WardenRefused) as refused:
        await question
    return refused.value.code


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
            await client.start(
                run="env",
                strategy="env",
                epoch=1,
                argv=["/usr/bin/env"],
                cwd=Path("/"),
                env={"A": house.token},
                log=house.log("env"),
                ladder=LADDER,
            )
            await house.exits("python", "env")
        told = house.log("python").read_text().splitlines()
        assert told[0] == "['0', '1', '2'] /dev/null"
        assert told[1] == "['SIGPIPE', 'SIGXFSZ']", "which Python itself ignores"
        assert told[2] == "set() True"
        assert sorted(house.log("env").read_text().split()) == [
            f"A={house.token}",
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
            await house.run(client, "sleep 100", "a#1", epoch=5)
            assert await refusal(house.run(client, "true", "a#2", epoch=5)) == "fenced"
            assert await refusal(house.run(client, "true", "a#2", epoch=6)) == "busy"
            await client.stop("a#1", "stopped_by_user", KILL)
            await house.exits("a#1")
            os.kill(client.pid, signal.SIGKILL)
        async with house.client() as client:
            assert await refusal(house.run(client, "true", "a#3", epoch=5)) == "fenced"
            await house.run(client, "true", "a#3", epoch=6)
            await house.exits("a#3")

    play(scene())


def test_a_start_that_cannot_be_says_why_and_is_journalled(house: House):
    async def scene() -> None:
        house.log("x").parent.mkdir(parents=True)
        fifo = house.folder / "log" / "fifo"
        os.mkfifo(fifo)
        link = house.folder / "log" / "link"
        link.symlink_to("/etc/passwd")
        cases: list[tuple[str, dict[str, Any]]] = [
            ("no-such-python", {"argv": ["/no-such-python"]}),
            ("/no-such-folder", {"cwd": Path("/no-such-folder")}),
            ("directory", {"log": house.folder / "log"}),
            ("log/fifo", {"log": fifo}),
            ("log/link", {"log": link}),
            ("null", {"argv": [SH, "\0"]}),
            ("surrogate", {"argv": [SH, "\ud800"]}),
        ]
        async with house.client() as client:

            async def start(run: str, epoch: int, **misfit: Any) -> Started | None:
                fit: dict[str, Any] = {"argv": [SH], "cwd": Path("/"), "log": house.log("x")}
                order = {**fit, **misfit}
                return await client.start(
                    run=run, strategy="s", epoch=epoch, env={}, ladder=LADDER, **order
                )

            for number, (why, misfit) in enumerate(cases):
                for _ in range(2):
                    with pytest.raises(WardenRefused, match=why) as refused:
                        await start(f"r{number}", number, **misfit)
                    assert refused.value.code == "start_failed"
            assert await refusal(start("y", 99, cwd=Path("relative"))) == "bad_request"
            exits = await house.exits(*(f"r{number}" for number in range(len(cases))))
            assert {entry.reason for entry in exits.values()} == {"start_failed"}
            assert await client.list() == []

    play(scene())


CLEANS_UP = """
import time
try:
    print("up", flush=True)
    time.sleep(100)
except KeyboardInterrupt:
    print("squared off", flush=True)
"""


@pytest.mark.parametrize("sigint", ["default", "ignored by the parent"])
def test_a_stop_lets_a_strategy_clean_up_on_keyboard_interrupt(house: House, sigint: str):
    async def scene() -> None:
        async with house.client() as client:
            await house.run(client, CLEANS_UP, sh=False)
            await house.said("up")
            await client.stop("a", "stopped_by_schedule", PATIENT)
            await client.stop("a", "stopped_by_user", PATIENT)
            exits = await house.exits("a")
            assert house.log("a").read_text() == "up\nsquared off\n"
            assert (exits["a"].reason, exits["a"].exit_code) == ("stopped_by_schedule", 0)

    if sigint == "default":
        play(scene())
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with house.warden():
            signal.signal(signal.SIGINT, before)
            play(scene())
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("traps", "end"),
    [("INT", (None, "SIGTERM")), ("INT TERM", (None, "SIGKILL"))],
)
def test_who_ignores_a_step_gets_the_next(house: House, traps: str, end: tuple[None, str]):
    async def scene() -> None:
        async with house.client() as client:
            await house.run(client, f"trap '' {traps}; echo up; exec sleep 100")
            await house.said("up")
            await client.stop("a", "stopped_by_user", QUICK)
            assert [run.state for run in await client.list()] == ["stopping"]
            exits = await house.exits("a")
            assert (exits["a"].exit_code, exits["a"].signal) == end
            assert exits["a"].reason == "stopped_by_user"
            await client.stop("a", "too late", QUICK)
            assert await refusal(client.stop("nobody", "x", QUICK)) == "unknown_run"

    play(scene())


FAMILY = """
sleep 100 &
(trap '' TERM INT; setsid sh -c 'sh -c "sleep 101 & wait" & wait' &) &
env -i setsid sh -c 'trap "" TERM INT; echo shed; sleep 103; : {token}' &
echo up
"""


def test_the_whole_tree_is_gone_before_it_is_called_over(house: House):
    """A background job, a daemon of its own session, and one that shed its environment."""

    async def scene() -> None:
        async with house.client() as client:
            await house.run(client, FAMILY.format(token=house.token) + "sleep 102")
            await house.said("up")
            await house.said("shed")
            warden = psutil.Process(client.pid)
            await until(lambda: len(warden.children(recursive=True)) >= 8)
            family = warden.children(recursive=True)
            await client.stop("a", "stopped_by_user", QUICK)
            await house.exits("a")
            assert [member for member in family if member.is_running()] == []
            assert warden.children() == []

    play(scene())


def test_what_a_strategy_leaves_behind_is_ended_and_its_own_code_is_told(house: House):
    script = """
(setsid sh -c 'trap "sleep 0.3; exit 9" TERM; echo up; while :; do sleep 0.02; done' &)
while ! grep -q up log/a#1.log; do :; done
exit 4
"""

    async def scene() -> None:
        async with house.client() as client:
            await house.run(client, script, "a#1")
            await house.said("up", "a#1")
            main = (await client.list())[0].pid
            assert main is not None
            await until(lambda: not psutil.pid_exists(main))
            assert await refusal(house.run(client, "true", "a#2", epoch=2)) == "busy"
            exits = await house.exits("a#1")
            assert (exits["a#1"].exit_code, exits["a#1"].reason) == (4, "crashed")
            assert psutil.Process(client.pid).children() == []

    play(scene())


CLIENT = """
import asyncio, sys
from pathlib import Path
from services.runner.backends.warden_client import WardenClient

async def main(folder, token):
    client = await WardenClient.connect(folder)
    for n in range(20):
        script = f"echo up; while [ ! -e go{n} ]; do sleep 0.02; done; exit {n}"
        await client.start(
            run=f"r{n}", strategy=f"s{n}", epoch=1, argv=["/bin/sh", "-c", script, token],
            cwd=folder, env={"PATH": "/usr/bin:/bin"}, log=folder / f"r{n}.log",
            ladder=[("SIGTERM", 1.0), ("SIGKILL", 0.0)],
        )
    print("started", flush=True)
    await asyncio.sleep(100)

asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
"""


def test_kill_9_of_the_runner_loses_no_exit_code(house: House):
    runner = subprocess.Popen(
        [sys.executable, "-c", CLIENT, str(house.folder), house.token],
        cwd=ROOT,
        stdout=subprocess.PIPE,
    )
    with runner:
        assert runner.stdout is not None
        assert runner.stdout.readline() == b"started\n"
        runner.kill()
    warden = next(p for p in house.processes() if "warden.main" in " ".join(p.cmdline()))
    for n in range(8):
        (house.folder / f"go{n}").touch()

    async def scene() -> None:
        await until(lambda: len(warden.children()) == 12)
        async with house.client() as client:
            assert client.pid == warden.pid
            exits = await house.exits(*(f"r{n}" for n in range(8)))
            assert {run: entry.exit_code for run, entry in exits.items()} == {
                f"r{n}": n for n in range(8)
            }
            assert {run.run for run in await client.list()} == {f"r{n}" for n in range(8, 20)}
            for n in range(8, 20):
                (house.folder / f"go{n}").touch()
            exits = await house.exits(*(f"r{n}" for n in range(20)))
            assert [exits[f"r{n}"].exit_code for n in range(20)] == list(range(20))
            with pytest.raises(psutil.NoSuchProcess):
                psutil.Process(runner.pid)

    play(scene())


NOW = "date +%s.%N"


def test_a_held_start_begins_at_its_instant_and_not_before(house: House):
    async def scene() -> None:
        async with house.client() as client:
            at = time.time() + 0.5
            assert await house.hold(client, NOW, at) is None
            assert await house.hold(client, NOW, at) is None
            (held,) = await client.list()
            assert (held.run, held.state, held.pid) == ("a", "parked", None)
            assert [entry["kind"] for entry in house.journal()] == ["parked"]
            exits = await house.exits("a")
            assert exits["a"].reason == "completed"
        (said,) = house.log("a").read_text().split()
        assert at <= float(said)
        assert [entry["kind"] for entry in house.journal()] == ["parked", "started", "exited"]
        assert house.token not in json.dumps(house.journal())

    play(scene())


def test_a_held_start_can_be_stopped_and_keeps_its_warden_from_ending(house: House):
    async def scene() -> None:
        async with house.client() as client:
            await house.hold(client, "echo up", time.time() + 60)
            os.kill(client.pid, signal.SIGTERM)
            assert await refusal(client.shutdown()) == "busy"
            assert await refusal(house.hold(client, "true", 0, "a#2", epoch=2)) == "busy"
            await client.stop("a", "stopped_by_user", PATIENT)
            with pytest.raises(WardenUnavailable):
                async for _ in client.entries(100):
                    pass
        assert [entry["kind"] for entry in house.journal()] == ["parked", "exited"]
        assert house.journal()[-1]["reason"] == "stopped_by_user"
        assert not house.log("a").exists()

    play(scene())


HOLDER = """
import asyncio, sys, time
from pathlib import Path
from services.runner.backends.warden_client import WardenClient

async def main(folder, token):
    client = await WardenClient.connect(folder)
    for n in range(20):
        await client.start(
            run=f"r{n}", strategy=f"s{n}", epoch=1, argv=["/bin/sh", "-c", "date +%s.%N", token],
            cwd=folder, env={"PATH": "/usr/bin:/bin"}, log=folder / f"r{n}.log",
            ladder=[("SIGTERM", 1.0), ("SIGKILL", 0.0)], at=float(sys.argv[3]),
        )
    print("held", flush=True)
    await asyncio.sleep(100)

asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
"""


def test_what_a_killed_runner_had_parked_starts_all_the_same(house: House):
    at = time.time() + 2
    runner = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(house.folder), house.token, repr(at)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
    )
    with runner:
        assert runner.stdout is not None
        assert runner.stdout.readline() == b"held\n"
        runner.kill()
    assert time.time() < at

    async def scene() -> None:
        exits = await house.exits(*(f"r{n}" for n in range(20)))
        assert {entry.reason for entry in exits.values()} == {"completed"}
        for n in range(20):
            (said,) = (house.folder / f"r{n}.log").read_text().split()
            assert at <= float(said)

    play(scene())


def test_a_warden_killed_while_holding_starts_nothing_and_says_so(house: House):
    async def scene() -> None:
        async with house.client() as client:
            at = time.time() + 1
            await house.hold(client, "echo up", at)
            await house.hold(client, "echo up", at, "b")
            os.kill(client.pid, signal.SIGKILL)
        async with house.client() as client:
            exits = await house.exits("a", "b")
            for entry in exits.values():
                assert entry.reason == "start_failed"
                assert "held the start" in (entry.detail or "")
            assert await client.list() == []
            assert await house.hold(client, NOW, at, "a#2", epoch=2) is None
            await house.exits("a#2")
        assert not house.log("a").exists()
        assert float(house.log("a#2").read_text()) >= at

    play(scene())


def test_a_warden_killed_in_the_midst_of_many_starts_loses_none_and_repeats_none(house: House):
    runs = [f"r{n}" for n in range(60)]

    async def scene() -> None:
        async with house.client() as client:
            at = time.time() + 0.5
            script = "echo up; while [ ! -e go ]; do sleep 0.05; done"
            await asyncio.gather(*(house.hold(client, script, at, run) for run in runs))
            await house.said("up", runs[20])
            os.kill(client.pid, signal.SIGKILL)
        async with house.client() as client:
            lives = {run.run for run in await client.list()}
            exits = await house.exits(*(set(runs) - lives))
            assert {entry.reason for entry in exits.values()} <= {"start_failed"}
            assert lives >= set(runs[:21])
            (house.folder / "go").touch()
            await house.exits(*runs)
        said = {run for run in runs if house.log(run).exists() and house.log(run).read_text()}
        assert said == lives
        assert all(house.log(run).read_text() == "up\n" for run in said)

    play(scene())


def test_a_warden_of_an_earlier_release_is_asked_at_the_instant(house: House):
    """It would ignore the instant."""

    async def scene() -> None:
        async with house.client() as client:
            client.holds = False
            at = time.time() + 0.3
            assert await house.hold(client, NOW, at) is not None
            await house.exits("a")
        assert float(house.log("a").read_text()) >= at

    play(scene())


def test_kill_9_of_the_warden_orphans_nobody_and_starts_nothing_twice(house: House):
    async def scene() -> None:
        async with house.client() as client:
            lives = await house.run(client, "while [ ! -e go ]; do sleep 0.02; done", "lives")
            dies = await house.run(client, "sleep 100", "dies")
            stops = await house.run(client, "trap '' INT; echo up; exec sleep 100", "stops")
            await house.said("up", "stops")
            await client.stop("stops", "stopped_by_user", (("SIGINT", 0.3), ("SIGKILL", 0.0)))
            pending = asyncio.create_task(first(client.entries(10_000)))
            await client.list()
            os.kill(client.pid, signal.SIGKILL)
            os.kill(dies.pid, signal.SIGKILL)
            with pytest.raises(WardenUnavailable):
                await pending
            with pytest.raises(WardenUnavailable):
                await client.list()
        async with house.client() as client:
            exits = await house.exits("dies", "stops")
            assert (exits["dies"].reason, exits["dies"].exit_code) == ("lost", None)
            assert exits["dies"].detail
            assert exits["stops"].reason == "stopped_by_user"
            assert gone(stops)
            assert [run.pid for run in await client.list()] == [lives.pid]
            assert await house.run(client, "true", "lives") == lives
            assert await refusal(house.run(client, "true", "lives#2", epoch=2)) == "busy"
            (house.folder / "go").touch()
            exits = await house.exits("lives")
            assert (exits["lives"].reason, exits["lives"].exit_code) == ("lost", None)

    play(scene())


def test_a_warden_killed_while_starting_is_finished_by_the_next(house: House):
    """Between the journal's `starting` and `started` there is a fork: look for its mark."""
    house.folder.mkdir()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    starting = {"kind": "starting", "at": 1.0, "epoch": 1, "boot_id": boot}
    lines = [
        {**starting, "seq": 1, "run": "forked", "strategy": "forked"},
        {**starting, "seq": 2, "run": "unborn", "strategy": "unborn"},
        {**starting, "seq": 3, "run": "rebooted", "strategy": "rebooted", "boot_id": "another"},
    ]
    journal = "".join(json.dumps(line) + "\n" for line in lines)
    (house.folder / "journal.jsonl").write_text(journal)
    child = house.child(OPENBELL_RUN_ID="forked")

    async def scene() -> None:
        async with house.client() as client:
            exits = await house.exits("unborn", "rebooted")
            assert {entry.reason for entry in exits.values()} == {"start_failed"}
            assert [run.pid for run in await client.list()] == [child.pid]
            await client.stop("forked", "stopped_by_user", KILL)
            await until(lambda: child.poll() is not None)
            await house.exits("forked")

    play(scene())
    assert child.wait() == -signal.SIGKILL


def test_a_stranger_with_a_recycled_pid_is_never_signalled(house: House):
    house.folder.mkdir()
    stranger = house.child()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    ticks = int(Path(f"/proc/{stranger.pid}/stat").read_text().rpartition(")")[2].split()[19])
    common: dict[str, Any] = {"at": 1.0, "epoch": 1, "pid": stranger.pid}
    lines: list[dict[str, Any]] = []
    for run, forged in {
        "other ticks": {"start_ticks": ticks - 1, "boot_id": boot},
        "other boot": {"start_ticks": ticks, "boot_id": "another"},
    }.items():
        subject = {"run": run, "strategy": run, **common, **forged}
        stopping = {"reason": "stopped_by_user", "ladder": [["SIGKILL", 0]]}
        lines += [
            {"seq": len(lines) + 1, "kind": "started", **subject},
            {"seq": len(lines) + 2, "kind": "stopping", **subject, **stopping},
        ]
    journal = "".join(json.dumps(line) + "\n" for line in lines)
    (house.folder / "journal.jsonl").write_text(journal)

    async def scene() -> None:
        exits = await house.exits("other ticks", "other boot")
        assert all(entry.detail for entry in exits.values())

    play(scene())
    assert stranger.poll() is None
    stranger.kill()
    assert stranger.wait() == -signal.SIGKILL


def connect_raw(house: House) -> socket.socket:
    raw = socket.socket(socket.AF_UNIX)
    raw.connect(json.loads((house.folder / "address.json").read_text())["socket"])
    return raw


GARBAGE: Sequence[bytes] = (
    b"\0\xff\xfe\n",
    b"[" * 100_000 + b"\n",
    b"null\n",
    b"{}\n",
    b'{"id":1,"op":"start"}\n',
    b'{"id":1,"op":["start"]}\n',
    b'{"id":1,"op":"stop","run":"a","reason":"x","ladder":[["SIGKILL",NaN]]}\n',
    b'{"id":1,"op":"stop","run":"a","reason":"x","ladder":[["SIGSTOP",1]]}\n',
    b'{"id":1,"op":"stop","run":"a","reason":"x","ladder":7}\n',
    b'{"id":1,"op":"subscribe","after":-1}\n',
    b'{"id":1,"op":"ack","seq":1e999}\n',
)


def test_garbage_is_answered_with_an_error_and_an_endless_line_with_a_farewell(house: House):
    async def scene() -> None:
        async with house.client() as client:
            await house.run(client, "sleep 100")
            with connect_raw(house) as raw, raw.makefile("rb") as answers:
                for line in GARBAGE:
                    raw.sendall(line)
                    assert "error" in json.loads(answers.readline())
            with connect_raw(house) as raw, suppress(ConnectionError):
                for _ in range(100):
                    raw.sendall(b"x" * 100_000)
                pytest.fail("it went on listening")
            assert [run.state for run in await client.list()] == ["running"]

    play(scene())


def test_a_client_that_never_reads_blocks_nobody_and_is_dropped(house: House):
    async def scene() -> None:
        async with house.client() as client:
            await house.run(client, "sleep 100")
            with connect_raw(house) as raw:
                raw.sendall(b'{"id":1,"op":"subscribe","after":0}\n')
                raw.settimeout(0)
                questions = b'{"id":2,"op":"list"}\n' * 500
                slowest = 0.0
                with suppress(ConnectionError):
                    for _ in range(10_000):
                        with suppress(BlockingIOError):
                            raw.send(questions)
                        began = time.perf_counter()
                        await client.list()
                        slowest = max(slowest, time.perf_counter() - began)
                    pytest.fail("it was never dropped")
                assert slowest < 0.5
            warden = psutil.Process(client.pid)
            assert warden.memory_info().rss < 100 << 20

    play(scene())


def test_a_full_disk_refuses_starts_but_stops_and_tells_later(house: House):
    async def scene() -> None:
        async with house.client() as client:
            first = await house.run(client, "exec sleep 100")
            size = (house.folder / "journal.jsonl").stat().st_size
            limit = resource.prlimit(client.pid, resource.RLIMIT_FSIZE, (size + 30, -1))
            assert await refusal(house.run(client, "true", "b")) == "journal_failed"
            await client.stop("a", "stopped_by_user", KILL)
            await until(lambda: gone(first))
            await until(lambda: (house.folder / "journal.jsonl").stat().st_size == size)
            resource.prlimit(client.pid, resource.RLIMIT_FSIZE, limit)
            await house.run(client, "true", "b")
            exits = await house.exits("a", "b")
            assert exits["a"].reason == "stopped_by_user"

    play(scene())


def test_two_runners_that_start_a_warden_at_once_get_the_same(house: House):
    async def scene() -> None:
        clients = await asyncio.gather(*(WardenClient.connect(house.folder) for _ in range(5)))
        assert len({client.pid for client in clients}) == 1
        for client in clients:
            await client.close()
        with house.warden() as second:
            assert await asyncio.to_thread(second.wait, 5) == 3

    play(scene())


def test_a_warden_with_nothing_to_do_ends_and_leaves_nothing(house: House):
    async def scene() -> None:
        with house.warden(idle=0.3) as warden:
            await until((house.folder / "address.json").exists)
            async with house.client() as client:
                assert client.pid == warden.pid
                await house.run(client, "sleep 0.6")
            await until(lambda: warden.poll() is not None)
        assert warden.returncode == 0
        names = {path.name for path in house.folder.iterdir()}
        assert names == {"journal.jsonl", "warden.log", "log"}
        assert [entry["kind"] for entry in house.journal()] == ["starting", "started", "exited"]

    play(scene())


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


def test_an_acknowledged_journal_is_compacted_and_still_fences(house: House):
    async def scene() -> None:
        async with house.client() as client:
            filler = "x" * 4000
            for n in range(150):
                run = f"{filler}{n}#"
                with suppress(WardenRefused):
                    await client.start(
                        run=run, strategy="s", epoch=n, argv=["/no"], cwd=Path("/"), env={},
                        log=house.log("x"), ladder=LADDER,
                    )  # fmt: skip
            journal = house.folder / "journal.jsonl"
            assert journal.stat().st_size > 1 << 20
            await client.acknowledge(client.seq + 300)
            assert journal.stat().st_size < 1000
            os.kill(client.pid, signal.SIGKILL)
        async with house.client() as client:
            assert client.seq == 300
            late = house.run(client, "true", "s#1", epoch=149)
            assert await refusal(late) == "fenced"

    play(scene())
