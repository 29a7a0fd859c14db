"""What runs use, by real processes, real control groups, and real folders; told over a real bus."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Generator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from openbell.contracts.limits import Limits, Watchdogs
from openbell.contracts.metrics import RunMetrics, RunnerMetrics
from openbell.contracts.model import ExitReason, RunnerInfo
from services.runner.monitor import sources, walk
from services.runner.monitor.folders import MB, Folders
from services.runner.monitor.monitor import Monitor, Watched
from services.runner.monitor.samples import UNCOUNTABLE, Group, Reading
from services.runner.monitor.sources import Reader
from services.runner.monitor.walk import LEAST, MOST_DEEP, STEP, Walk
from tests.fixtures.nats import NatsServer
from tests.fixtures.stack import eventually
from tests.unit.runner.test_monitor import HOST

FORKING = """
import os, signal, threading, time
signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no zombies
held = bytearray(40_000_000)
if os.fork() == 0:
    if os.fork() == 0:
        threads = [threading.Thread(target=time.sleep, args=(600,), daemon=True) for _ in range(4)]
        [one.start() for one in threads]
        print(os.getpid(), flush=True)
        time.sleep(600)
    time.sleep(600)
time.sleep(600)
"""
WRITING = """
import os, signal, sys, time
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
"twice" in sys.argv and os.fork()
began = time.process_time()
while time.process_time() - began < 0.2:
    pass
file = os.open("out", os.O_CREAT | os.O_WRONLY)
os.write(file, bytes(2_000_000))
os.fsync(file)
print("done", flush=True)
time.sleep(600)
"""
posix = pytest.mark.skipif(sys.platform == "win32", reason="forks")


@dataclass(frozen=True, slots=True)
class Run:
    pid: int
    limits: Limits = Limits()  # noqa: RUF009
    group: Group | None = None
    keeper: bool = False


class Script:
    """In a session of its own, as the warden starts it."""

    def __init__(self, source: str, folder: Path, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", source, *arguments],
            cwd=folder,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()


@pytest.fixture
def script(tmp_path: Path) -> Generator[Callable[..., Script]]:
    started: list[Script] = []

    def start(source: str, *arguments: str) -> Script:
        started.append(Script(source, tmp_path, *arguments))
        return started[-1]

    yield start
    for one in started:
        if sys.platform == "win32":
            one.process.kill()
        else:
            os.killpg(one.process.pid, signal.SIGKILL)
        one.process.communicate()


def kill(process: psutil.Process | None) -> None:
    """Until it is gone."""
    assert process is not None
    process.kill()
    eventually(lambda: None if process.is_running() else True, lambda: "it would not die")


def read(reader: Reader, run: Run) -> Reading | None:
    return reader.read({"r": run}).get("r")


# ---- processes


@posix
def test_a_tree_of_processes_is_one_run(script: Callable[..., Script]) -> None:
    tree = script(FORKING)
    tree.line()
    reading = read(Reader(), Run(tree.process.pid))
    assert reading is not None
    assert reading.processes == 3 + 4
    # what three share is counted for each of them, since it is far from the limit
    assert reading.memory > 3 * 40_000_000


@posix
def test_a_keeper_is_none_of_its_strategys_processes(script: Callable[..., Script]) -> None:
    """The main process of a whole cell; what is orphaned in it becomes its child."""
    tree = script(FORKING)
    tree.line()
    keeper = Run(tree.process.pid, keeper=True)
    reading = read(Reader(), keeper)
    assert reading is not None
    assert reading.processes == 2 + 4
    assert reading.memory < 3 * 40_000_000
    for child in psutil.Process(tree.process.pid).children(recursive=True):
        kill(child)
    assert read(Reader(), keeper) is None


@posix
def test_what_processes_share_is_counted_once_where_it_matters(
    script: Callable[..., Script],
) -> None:
    tree = script(FORKING)
    tree.line()
    reading = read(Reader(), Run(tree.process.pid, Limits(memory_mb=100)))
    assert reading is not None
    assert 40_000_000 < reading.memory < 80_000_000


@posix
def test_a_child_whose_parents_have_ended_is_still_of_the_run(
    script: Callable[..., Script],
) -> None:
    tree = script(FORKING)
    grandchild = psutil.Process(int(tree.line()))
    reader, run = Reader(), Run(tree.process.pid)
    assert read(reader, run) is not None
    kill(grandchild.parent())
    reading = read(reader, run)
    assert reading is not None
    assert reading.processes == 1 + 5


@posix
def test_a_child_that_was_orphaned_before_the_first_look_is_found_by_its_session(
    script: Callable[..., Script],
) -> None:
    tree = script(FORKING)
    grandchild = psutil.Process(int(tree.line()))
    kill(grandchild.parent())
    reading = read(Reader(), Run(tree.process.pid))
    assert reading is not None
    assert reading.processes == 1 + 5


@posix
def test_what_ended_processes_used_up_stays_counted(script: Callable[..., Script]) -> None:
    burner = script(WRITING, "twice")
    assert [burner.line(), burner.line()] == ["done\n", "done\n"]
    reader, run = Reader(), Run(burner.process.pid)
    before = read(reader, run)
    assert before is not None
    assert before.cpu_s >= 0.36
    [child] = psutil.Process(burner.process.pid).children()
    kill(child)
    after = read(reader, run)
    assert after is not None
    assert after.cpu_s >= before.cpu_s
    assert after.processes == 1


@pytest.mark.skipif(sys.platform == "darwin", reason="it is not told there")
def test_what_is_written_is_counted(script: Callable[..., Script]) -> None:
    writer = script(WRITING)
    writer.line()
    reading = read(Reader(), Run(writer.process.pid))
    assert reading is not None
    assert reading.written_bytes is not None
    assert reading.written_bytes >= 2_000_000


def test_a_run_that_has_ended_has_no_reading(script: Callable[..., Script]) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert read(Reader(), Run(process.pid)) is None


def test_another_that_has_got_its_number_is_not_the_run(
    script: Callable[..., Script], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers come back; a look tells processes apart by when they began."""
    one, other = script(WRITING), script(WRITING)
    assert one.line() == other.line()
    reader, run = Reader(), Run(one.process.pid)
    assert read(reader, run) is not None
    real = sources.psutil.process_iter

    def renumbered() -> list[psutil.Process]:
        stranger = psutil.Process(other.process.pid)
        stranger._pid = one.process.pid  # pyright: ignore[reportAttributeAccessIssue, reportPrivateUsage]
        gone = {one.process.pid, other.process.pid}
        return [*(p for p in real() if p.pid not in gone), stranger]

    monkeypatch.setattr(sources.psutil, "process_iter", renumbered)
    monkeypatch.setattr(sources.os, "getsid", lambda pid: 0)  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    assert read(reader, run) is None


@posix
@pytest.mark.parametrize(
    ("limits", "reason", "detail"),
    [
        (Limits(memory_mb=32), ExitReason.MEMORY_LIMIT, "MB of 32 MB"),
        (Limits(memory_mb=2048, processes=6), ExitReason.PROCESS_LIMIT, "had 7 of 6"),
    ],
)
def test_where_nothing_is_enforced_two_looks_end_a_run(
    script: Callable[..., Script],
    tmp_path: Path,
    limits: Limits,
    reason: ExitReason,
    detail: str,
) -> None:
    told: list[tuple[ExitReason, str]] = []

    async def stop(run_id: str, ladder: object, reason: ExitReason, detail: str) -> None:
        told.append((reason, detail))

    tree = script(FORKING)
    tree.line()
    run = Watched(
        strategy_id="s",
        folder=tmp_path,
        log=tmp_path / "log",
        heartbeat=None,
        limits=limits,
        watchdogs=Watchdogs(),
        ladder=(),
        started_at=datetime.now(UTC),
        pid=tree.process.pid,
    )

    async def scenario() -> None:
        monitor = Monitor(stop)
        monitor.watch("r", run)
        await monitor.look()
        assert told == []
        await monitor.look()
        await monitor.look()

    asyncio.run(scenario())
    [(ended, words)] = told
    assert ended is reason
    assert detail in words


# ---- folders


def whole(folder: Path) -> int:
    walk = Walk(folder)
    while not walk.step():
        pass
    return walk.bytes


def test_a_folder_holds_its_files_once_and_nothing_of_others(tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "folder"
    outside.mkdir()
    (folder / "below").mkdir(parents=True)
    (outside / "large").write_bytes(bytes(5 * MB))
    (folder / "below" / "file").write_bytes(bytes(2 * MB))
    empty = whole(folder) - 2 * MB
    assert 0 <= empty < 64 * 1024  # the folders themselves
    (folder / "again").hardlink_to(folder / "below" / "file")
    (folder / "link").symlink_to(outside)
    (folder / "loop").symlink_to(folder)
    with (folder / "holes").open("wb") as file:
        file.truncate(2**40)
    assert whole(folder) < 3 * MB
    assert whole(tmp_path / "none") == 0
    assert whole(folder / "link") == 0


def test_files_without_a_byte_use_up_a_disk_too(tmp_path: Path) -> None:
    empty = whole(tmp_path)
    for n in range(100):
        (tmp_path / str(n)).touch()
    assert whole(tmp_path) - empty >= 100 * LEAST


def deepen(folder: Path, names: list[str]) -> int:
    """One in another, whatever their path comes to; a descriptor of the last one."""
    assert sys.platform != "win32"
    at = os.open(folder, os.O_DIRECTORY)
    for name in names:
        os.mkdir(name, dir_fd=at)
        below = os.open(name, os.O_DIRECTORY, dir_fd=at)
        os.close(at)
        at = below
    return at


@posix
def test_no_path_is_too_long_to_be_counted(tmp_path: Path) -> None:
    last = deepen(tmp_path, ["d" * 250] * 20)
    with open(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=last), "wb") as file:  # noqa: PTH123
        file.write(bytes(2 * MB))
    os.close(last)
    assert whole(tmp_path) > 2 * MB
    shutil.rmtree(tmp_path / ("d" * 250))


@posix
def test_what_is_too_deep_is_too_large(tmp_path: Path) -> None:
    os.close(deepen(tmp_path, ["d"] * MOST_DEEP))
    assert whole(tmp_path) < UNCOUNTABLE
    shutil.rmtree(tmp_path / "d")
    os.close(deepen(tmp_path, ["d"] * (MOST_DEEP + 1)))
    assert whole(tmp_path) == UNCOUNTABLE


def test_more_folders_than_can_be_kept_in_mind_are_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walk, "MOST_PENDING", 3)
    for n in range(3):
        (tmp_path / str(n)).mkdir()
    assert whole(tmp_path) < UNCOUNTABLE
    (tmp_path / "3").mkdir()
    assert whole(tmp_path) == UNCOUNTABLE


def test_names_beyond_those_that_can_be_kept_in_mind_count_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walk, "MOST_LINKED", 1)
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(bytes(MB))
        (tmp_path / f"{name}2").hardlink_to(tmp_path / name)
    assert 3 * MB <= whole(tmp_path) < 4 * MB


@posix
def test_a_folder_that_becomes_a_link_under_way_is_not_followed(tmp_path: Path) -> None:
    """`a/b` was found, and then `a` leads elsewhere: where there is a `b`, too."""
    outside, folder = tmp_path / "outside", tmp_path / "folder"
    for at in (outside, folder / "a"):
        (at / "b").mkdir(parents=True)
    (outside / "b" / "large").write_bytes(bytes(5 * MB))
    walk = Walk(folder)
    while not walk.step(1) and not any(place.name == "b" for place in walk._pending):  # pyright: ignore[reportPrivateUsage]
        pass
    (folder / "a").rename(folder / "c")
    (folder / "a").symlink_to(outside)
    while not walk.step():
        pass
    assert walk.bytes < MB


@posix
def test_a_pipe_blocks_nobody(tmp_path: Path) -> None:
    if sys.platform != "win32":
        os.mkfifo(tmp_path / "pipe")
    assert whole(tmp_path) < MB


def test_a_walk_takes_so_many_files_at_one_time(tmp_path: Path) -> None:
    for n in range(3):
        (tmp_path / str(n)).write_bytes(b"x")
    walk = Walk(tmp_path)
    steps = 0
    while not walk.step(2):
        steps += 1
        walk.close() if steps > 100 else None
    assert steps in {2, 3}
    assert whole(tmp_path) == walk.bytes
    assert STEP > 3


def test_a_folder_that_is_forgotten_in_the_middle_is_closed(tmp_path: Path) -> None:
    """An open one would be told of by a ResourceWarning."""
    for n in range(STEP + 10):
        (tmp_path / str(n)).touch()

    async def scenario() -> None:
        folders = Folders(clock=lambda: 0.0)
        folders.watch("r", tmp_path, 1)
        folders._advance(list(folders._folders.values()))  # pyright: ignore[reportPrivateUsage]
        folders.forget("r")
        running = asyncio.create_task(folders.run())
        await asyncio.sleep(0)
        folders.watch("r", tmp_path, 1)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(scenario())


def test_what_is_too_much_is_said_before_all_was_seen(tmp_path: Path) -> None:
    (tmp_path / "first").write_bytes(bytes(2 * MB))
    for n in range(STEP):
        (tmp_path / str(n)).write_bytes(bytes(4096))
    folders = Folders(clock=lambda: 0.0)
    folders.watch("r", tmp_path, 1)
    [folder] = folders._folders.values()  # pyright: ignore[reportPrivateUsage]
    folders._advance([folder])  # pyright: ignore[reportPrivateUsage]
    assert folder.walk is not None
    size = folders.size("r")
    assert size is not None
    assert size > MB
    folder.close()


# ---- over the bus


def test_metrics_reach_api_and_nobody_tells_those_of_another(nats: NatsServer) -> None:
    heard: list[RunnerMetrics] = []

    async def told(metrics: RunnerMetrics) -> None:
        heard.append(metrics)

    mine = RunnerMetrics(
        runner="box-1",
        at=datetime.now(UTC),
        host=HOST,
        runs=(
            RunMetrics(
                run_id="r",
                strategy_id="s",
                cpu_percent=1,
                memory_bytes=2,
                processes=3,
            ),
        ),
    )

    async def scenario() -> None:
        async with (
            nats.bus_of("api") as api,
            nats.bus_of("runner-box-1") as one,
            nats.bus_of("runner-box-2") as two,
            api.hearing_metrics(told),
        ):
            await two.tell_metrics(mine)  # refused, by the server
            lie = mine.model_copy(update={"runner": "box-2"})
            await two._client.publish("openbell.v1.metrics.box-2", mine.encode())  # pyright: ignore[reportPrivateUsage]
            await two.tell_metrics(lie)
            await one.tell_metrics(mine)
            async with asyncio.timeout(10):
                while len(heard) < 2:
                    await asyncio.sleep(0.01)
            assert sorted(heard, key=lambda told: told.runner) == [mine, lie]

    asyncio.run(scenario())
    assert "openbell.v1.metrics.box-1" in nats.log()


def test_api_hears_which_runners_there_are(nats: NatsServer) -> None:
    """With its own rights: of those that were there before, and of those that come."""
    heard: list[str] = []

    def info(runner: str) -> RunnerInfo:
        now = datetime.now(UTC)
        return RunnerInfo(runner=runner, platform="Linux", python="3.11", at=now, capabilities={})

    async def scenario() -> None:
        async with (
            nats.bus(),
            nats.bus_of("api") as api,
            nats.bus_of("runner-box-1") as one,
            nats.bus_of("runner-box-2") as two,
        ):
            await one.announce(info("box-1"))
            await api.on_presence(lambda runner, _: heard.append(runner))
            assert heard == ["box-1"]
            await two.announce(info("box-2"))
            async with asyncio.timeout(10):
                while len(heard) < 2:
                    await asyncio.sleep(0.01)

    asyncio.run(scenario())
    assert heard == ["box-1", "box-2"]
