"""The monitor acts on what it sees, once; and how it tells when a file last changed."""

import asyncio
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from openbell.contracts.limits import Limits, Usage, Watchdogs
from openbell.contracts.metrics import MOST_RUNS, HostMetrics, RunnerMetrics
from openbell.contracts.model import ExitReason, StopStep, stop_ladder
from services.runner.backends.base import BackendLost, NoSuchRun
from services.runner.monitor import reporter
from services.runner.monitor.folders import pause
from services.runner.monitor.host import Machine, busy_percent
from services.runner.monitor.monitor import KILL, Monitor, Watched
from services.runner.monitor.samples import Enforced, Reading, Sample
from services.runner.monitor.traces import Trace

MB = 1024**2
START = 1_790_000_000.0
"""By the wall clock."""
LADDER = stop_ladder(15)
NOBODY = 2**31 - 1
"""No process has this number."""
LIMITS = Limits(memory_mb=512, processes=64)


@dataclass
class Told:
    """A control group that says what it is told to say."""

    memory: int | None = MB
    peak_memory: int | None = MB
    cpu_s: float | None = 1
    processes: int = 1
    refused: int = 0
    out_of_memory: int = 0
    read_bytes: int | None = None
    written_bytes: int | None = None
    gone: bool = False

    def used(self) -> "Told":
        if self.gone:
            raise FileNotFoundError
        return replace(self)


@dataclass
class Bench:
    """A monitor over one run, whose clocks stand still until they are moved."""

    folder: Path
    watchdogs: Watchdogs = field(default_factory=Watchdogs)
    now: float = 5000.0
    wall: float = START
    group: Told = field(default_factory=Told)
    stops: list[tuple[str, Sequence[StopStep], ExitReason, str]] = field(
        default_factory=list[tuple[str, Sequence[StopStep], ExitReason, str]]
    )
    failures: list[Exception] = field(default_factory=list[Exception])

    def __post_init__(self) -> None:
        self.monitor = Monitor(self.stop, clock=lambda: self.now, wall=lambda: self.wall)
        self.log, self.heartbeat = self.folder / "log", self.folder / "heartbeat"
        self.log.write_text("")
        os.utime(self.log, (START, START))
        self.watch()

    def watch(
        self,
        age_s: float = 0,
        pid: int = NOBODY,
        limits: Limits = LIMITS,
    ) -> None:
        run = Watched(
            strategy_id="s",
            folder=self.folder,
            log=self.log,
            heartbeat=self.heartbeat,
            limits=limits,
            watchdogs=self.watchdogs,
            ladder=LADDER,
            started_at=datetime.fromtimestamp(self.wall - age_s, UTC),
            pid=pid,
            group=self.group,
            enforced=Enforced(memory=True, processes=True),
        )
        self.monitor.watch("s-1", run)

    async def stop(
        self, run_id: str, ladder: Sequence[StopStep], reason: ExitReason, detail: str
    ) -> None:
        self.stops.append((run_id, ladder, reason, detail))
        if self.failures:
            raise self.failures.pop()

    def look(self, after_s: float = 1) -> None:
        self.now += after_s
        self.wall += after_s
        asyncio.run(self.monitor.look())

    @property
    def sample(self) -> Sample:
        return self.monitor.runs["s-1"][1][-1]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_broken_limit_kills_at_once_and_once(bench: Bench) -> None:
    bench.look()
    assert bench.stops == []
    bench.group.out_of_memory = 1
    for _ in range(3):
        bench.look()
    [(run, ladder, reason, detail)] = bench.stops
    assert (run, ladder, reason) == ("s-1", KILL, ExitReason.MEMORY_LIMIT)
    assert "a process of it was ended" in detail


def test_the_most_memory_at_any_look_is_remembered(bench: Bench) -> None:
    assert bench.monitor.working_memory("s-1") is None
    for memory in (20 * MB, 70 * MB, 30 * MB):
        bench.group.memory = memory
        bench.look()
    bench.watch()  # the owner of the runs was lost
    for _ in range(30):
        bench.look()
    assert bench.sample.reading.memory == 30 * MB
    assert bench.monitor.working_memory("s-1") == 70 * MB
    bench.monitor.forget("s-1")
    assert bench.monitor.working_memory("s-1") is None


def test_a_stop_that_nobody_heard_is_told_again(bench: Bench) -> None:
    bench.group.out_of_memory = 1
    bench.failures = [BackendLost("away"), BackendLost("away")]
    for _ in range(5):
        bench.look()
    assert len(bench.stops) == 3


def test_a_run_that_is_watched_anew_is_told_again(bench: Bench) -> None:
    """The owner of the runs was lost, perhaps with what it had heard."""
    bench.group.out_of_memory = 1
    bench.look()
    bench.watch()
    bench.look()
    bench.look()
    assert len(bench.stops) == 2


def test_a_run_that_has_ended_by_itself_is_left_alone(bench: Bench) -> None:
    bench.group.out_of_memory = 1
    bench.failures = [NoSuchRun("s-1")]
    bench.look()
    bench.look()
    assert len(bench.stops) == 1


def test_what_was_stalled_and_breaks_a_limit_on_its_way_out_is_killed(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Watchdogs(quiet_s=10))
    bench.look(10)
    bench.look(10)
    assert [(ladder, reason) for _, ladder, reason, _ in bench.stops] == [
        (LADDER, ExitReason.STALLED)
    ]
    bench.group.out_of_memory = 1
    bench.look()
    bench.look()
    assert [reason for _, _, reason, _ in bench.stops] == [
        ExitReason.STALLED,
        ExitReason.MEMORY_LIMIT,
    ]


def test_a_run_that_is_gone_is_seen_no_more(bench: Bench) -> None:
    bench.look()
    bench.group.gone = True
    bench.look()
    assert len(bench.monitor.runs["s-1"][1]) == 1
    bench.monitor.forget("s-1")
    bench.look()
    assert bench.monitor.runs == {}


def test_looks_are_kept_for_seconds_and_no_longer(bench: Bench) -> None:
    for _ in range(100):
        bench.look()
    assert len(bench.monitor.runs["s-1"][1]) == 16


def test_its_end_is_judged_by_the_looks_at_it(bench: Bench) -> None:
    assert bench.monitor.concluded("s-2", ExitReason.CRASHED, Usage(refused=1)) is None
    unseen = bench.monitor.concluded("s-2", ExitReason.KILLED, Usage(out_of_memory=1))
    assert unseen is not None
    assert unseen.reason is ExitReason.MEMORY_LIMIT
    for _ in range(10):
        bench.look()
    assert bench.monitor.concluded("s-1", ExitReason.CRASHED, Usage()) is None
    found = bench.monitor.concluded("s-1", ExitReason.CRASHED, Usage(refused=1))
    assert found is not None
    assert found.reason is ExitReason.PROCESS_LIMIT


def test_a_refusal_of_long_ago_is_not_why_it_ended_before_the_first_look(bench: Bench) -> None:
    refused = Usage(refused=7)
    young = bench.monitor.concluded("s-1", ExitReason.CRASHED, refused)
    assert young is not None
    assert young.reason is ExitReason.PROCESS_LIMIT
    bench.monitor.forget("s-1")
    bench.watch(age_s=5 * 3600)
    assert bench.monitor.concluded("s-1", ExitReason.CRASHED, refused) is None
    short = Usage(refused=7, out_of_memory=1)
    found = bench.monitor.concluded("s-1", ExitReason.CRASHED, short)
    assert found is not None
    assert found.reason is ExitReason.MEMORY_LIMIT


def test_quiet_begins_with_its_last_output(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Watchdogs(quiet_s=10))
    bench.look(9)
    bench.log.write_text("a line\n")
    bench.look(9)
    assert bench.sample.quiet_s == 0
    bench.look(9.5)
    assert bench.stops == []
    bench.look(0.5)
    assert [one[3] for one in bench.stops] == ["wrote nothing for 10 s"]


def test_dropping_old_lines_is_no_output(bench: Bench) -> None:
    """It changes the time of the file, not what it holds up to its end."""
    bench.look()
    bench.look(5)
    os.utime(bench.log, (bench.wall, bench.wall))
    bench.look(5)
    assert bench.sample.quiet_s == 10


def test_a_heartbeat_counts_from_its_last_touch(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Watchdogs(heartbeat_s=30))
    bench.look(29)
    assert bench.sample.unbeaten_s == 29
    bench.heartbeat.touch()
    os.utime(bench.heartbeat, (bench.wall, bench.wall))
    bench.look(1)
    bench.look(29)
    assert bench.stops == []
    assert bench.sample.unbeaten_s == 29
    os.utime(bench.heartbeat, (bench.wall, bench.wall))
    bench.look(1)
    assert bench.sample.unbeaten_s == 0
    bench.look(30)
    assert [reason for _, _, reason, _ in bench.stops] == [ExitReason.STALLED]


def test_a_heartbeat_of_an_earlier_run_does_not_count(tmp_path: Path) -> None:
    """Nor against it: it counts from its start."""
    (tmp_path / "heartbeat").touch()
    os.utime(tmp_path / "heartbeat", (START - 9000, START - 9000))
    bench = Bench(tmp_path, Watchdogs(heartbeat_s=30))
    bench.look(1)
    bench.look(29)
    assert bench.sample.unbeaten_s == 29


def test_a_run_found_running_has_its_whole_time_to_say_something(tmp_path: Path) -> None:
    """Its files are old, and so is it: perhaps since the whole machine stood still."""
    bench = Bench(tmp_path, Watchdogs(quiet_s=600, heartbeat_s=700))
    bench.monitor.forget("s-1")
    os.utime(bench.log, (START - 3600, START - 3600))
    bench.watch(age_s=4000)
    bench.look(1)
    assert (bench.stops, bench.sample.age_s) == ([], 4001)
    bench.look(599)
    assert bench.stops == []
    bench.look(1)
    assert [one[3] for one in bench.stops] == ["wrote nothing for 600 s"]


def test_a_heartbeat_that_never_came_counts_from_the_first_look(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Watchdogs(heartbeat_s=30))
    bench.monitor.forget("s-1")
    bench.watch(age_s=4000)
    bench.look(29)
    assert bench.stops == []
    bench.watch()  # the owner of the runs was lost: that gives it no more time
    bench.look(1)
    assert [reason for _, _, reason, _ in bench.stops] == [ExitReason.STALLED]


@pytest.mark.parametrize("jump", [3600, -3600])
def test_a_clock_that_jumps_ends_nothing(tmp_path: Path, jump: float) -> None:
    bench = Bench(tmp_path, Watchdogs(quiet_s=10, heartbeat_s=30))
    bench.log.write_text("a line\n")
    bench.heartbeat.touch()
    for file in (bench.log, bench.heartbeat):
        os.utime(file, (bench.wall, bench.wall))
    bench.look()
    bench.wall += jump
    bench.look()
    assert (bench.sample.quiet_s, bench.sample.unbeaten_s) == (1, 1)
    assert bench.stops == []


def test_a_time_ahead_of_now_blinds_nobody(tmp_path: Path) -> None:
    file = tmp_path / "heartbeat"
    file.touch()
    os.utime(file, (START + 9000, START + 9000))
    trace = Trace()
    trace.look_at_time(file, 100)
    trace.look_at_time(file, 130)
    assert trace.at == 100


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "heartbeat").symlink_to(tmp_path)
    os.utime(tmp_path / "heartbeat", (START, START), follow_symlinks=False)
    trace = Trace()
    trace.look_at_time(tmp_path / "heartbeat", 100)
    os.utime(tmp_path, (START, START))
    trace.look_at_time(tmp_path / "heartbeat", 105)
    assert trace.at == 100


# ---- where a run is read


def test_a_run_that_is_not_in_the_group_where_it_is_looked_for_is_watched(bench: Bench) -> None:
    """Of a warden without groups, say: its processes are there to be counted."""
    bench.monitor.forget("s-1")
    bench.group.gone = True
    bench.watch(pid=os.getpid(), limits=Limits(memory_mb=32, processes=1000))
    bench.look()
    assert bench.sample.reading.memory > 32 * MB
    assert bench.stops == []
    bench.look()
    assert [reason for _, _, reason, _ in bench.stops] == [ExitReason.MEMORY_LIMIT]


def test_an_empty_group_enforces_nothing(bench: Bench) -> None:
    bench.monitor.forget("s-1")
    bench.group.processes = 0
    bench.watch(pid=os.getpid(), limits=Limits(memory_mb=32, processes=1000))
    bench.look()
    bench.look()
    assert [reason for _, _, reason, _ in bench.stops] == [ExitReason.MEMORY_LIMIT]


def test_a_run_whose_group_has_gone_is_not_taken_for_another_of_its_number(bench: Bench) -> None:
    bench.monitor.forget("s-1")
    bench.watch(pid=os.getpid())
    bench.look()
    bench.group.gone = True
    bench.look()
    assert len(bench.monitor.runs["s-1"][1]) == 1


# ---- folders


@pytest.mark.parametrize(
    ("before", "now", "since_s", "took_s", "wanted"),
    [
        (None, 50, 10, 0, 5),  # the first walk
        (50, 50, 5, 0, 5),  # it did not grow
        (40, 50, 5, 0, 5),  # full in 25 s: half of that is not sooner
        (10, 50, 5, 0, 3.125),  # full in 6.25 s
        (0, 98, 5, 0, 1),  # full in a moment
        (50, 50, 5, 2, 40),  # a walk of 2 s
        (0, 98, 5, 0.2, 4),
    ],
)
def test_a_folder_is_walked_sooner_when_it_grows(
    before: int | None, now: int, since_s: float, took_s: float, wanted: float
) -> None:
    assert pause(before, now, since_s, took_s, most=100) == pytest.approx(wanted)


# ---- the machine


def test_a_machine_is_as_busy_in_whatever_thread_it_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """psutil keeps what it compares with by thread."""
    spent = [{"user": 0.0, "idle": 100.0}, {"user": 1.0, "idle": 103.0}]
    looks = iter(spent)
    times = SimpleNamespace(_asdict=lambda: next(looks))
    monkeypatch.setattr(psutil, "cpu_times", lambda: times)
    machine, told = Machine(tmp_path), list[HostMetrics]()
    for _ in spent:
        asked = threading.Thread(target=lambda: told.append(machine.look()))
        asked.start()
        asked.join()
    assert [one.cpu_percent for one in told] == [0, 25]


def test_what_guests_use_is_counted_once_and_waiting_is_idle() -> None:
    now = {"user": 4.0, "idle": 5.0, "iowait": 1.0}
    assert busy_percent({}, now) == 40
    assert busy_percent(now, now) == 0
    assert (
        busy_percent({**now, "iowait": 3.0}, {**now, "user": 5.0}) == 100
    )  # the kernel's may fall


def test_a_disk_that_tells_nothing_for_once_ends_no_reports(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, failures = psutil.disk_usage, [OSError("stale")]

    def disk_usage(path: str) -> object:
        if failures:
            raise failures.pop()
        return real(path)

    monkeypatch.setattr(psutil, "disk_usage", disk_usage)
    told: list[RunnerMetrics] = []

    async def scenario() -> None:
        heard = asyncio.Event()

        async def tell(metrics: RunnerMetrics) -> None:
            told.append(metrics)
            heard.set()

        teller = reporter.Reporter("box-1", bench.monitor, tell, tmp_path, every_s=0.01)
        async with teller.running(), asyncio.timeout(5):
            await heard.wait()

    asyncio.run(scenario())
    assert told[0].runner == "box-1"
    assert failures == []


# ---- what is told

HOST = HostMetrics(
    cpu_percent=12.5,
    processors=2,
    memory_bytes=2**33,
    memory_total_bytes=2**34,
    disk_free_bytes=2**40,
    disk_total_bytes=2**41,
    load=0.5,
)


def seen(cpu: Sequence[float], written: int | None = None) -> list[Sample]:
    return [
        Sample(
            at=100.0 + n,
            age_s=50,
            reading=Reading(MB, 3, cpu_s, read_bytes=None, written_bytes=written and written * n),
            folder_bytes=7,
        )
        for n, cpu_s in enumerate(cpu)
    ]


def test_rates_are_those_of_the_last_seconds(bench: Bench) -> None:
    run = bench.monitor.runs["s-1"][0]
    assert reporter.run_metrics("s-1", run, seen([1]), 5) is None
    told = reporter.run_metrics("s-1", run, seen([0, 50, 50, 50, 51, 52, 52.5], 1000), 5)
    assert told is not None
    assert told.cpu_percent == 50  # 2.5 s in 5 s
    assert (told.written_bytes_s, told.read_bytes_s) == (1000, None)
    assert (told.memory_bytes, told.processes, told.disk_bytes) == (MB, 3, 7)
    assert told.strategy_id == "s"


def test_a_processor_gives_nothing_back(bench: Bench) -> None:
    """A process that could not be read for once is missing in the sum."""
    run = bench.monitor.runs["s-1"][0]
    told = reporter.run_metrics("s-1", run, seen([5, 3]), 5)
    assert told is not None
    assert told.cpu_percent == 0


def test_rates_are_those_of_the_time_between_two_reports(bench: Bench, tmp_path: Path) -> None:
    told: list[RunnerMetrics] = []

    async def tell(metrics: RunnerMetrics) -> None:
        told.append(metrics)

    for cpu_s in (0, 5, 5, 5, 5, 5, 5, 5, 5):
        bench.group.cpu_s = cpu_s
        bench.look()
    teller = reporter.Reporter("box-1", bench.monitor, tell, tmp_path, every_s=8)
    asyncio.run(teller.report())
    assert [run.cpu_percent for run in told[0].runs] == [62.5]


def test_no_message_is_too_large_for_nats(bench: Bench) -> None:
    run = replace(bench.monitor.runs["s-1"][0], strategy_id="s" * 64)
    runs = {f"r{n:016}": (run, seen([1, 2], 10**12)) for n in range(1201)}
    told = list(reporter.messages("box-1", datetime.now(UTC), HOST, runs, 5))
    assert [len(one.runs) for one in told] == [MOST_RUNS, MOST_RUNS, 201]
    assert [(one.part, one.parts) for one in told] == [(1, 3), (2, 3), (3, 3)]
    assert max(len(one.encode()) for one in told) < 300_000
    assert {run.run_id for one in told for run in one.runs} == set(runs)


def test_a_runner_without_runs_tells_of_its_machine() -> None:
    [told] = reporter.messages("box-1", datetime.now(UTC), HOST, {}, 5)
    assert told.host == HOST
    assert told.subject == "openbell.v1.metrics.box-1"
