"""What api keeps of what runs and runners use: bounded, and shown to whom it belongs."""

import asyncio
import tracemalloc
from collections import Counter
from datetime import UTC, datetime
from math import isnan, nan
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pydantic import ValidationError

from openbell.bus import STALE_S
from openbell.contracts.errors import UnknownStrategy
from openbell.contracts.metrics import HostMetrics, RunMetrics, RunnerMetrics
from openbell.contracts.model import Role, RunnerInfo, Scope
from openbell.contracts.room import Room
from openbell.identity import Caller
from openbell.settings import RunnerSettings
from services.api.metrics.listener import Metrics
from services.api.metrics.ring import COLUMNS, Ring, Row, merged
from services.api.metrics.runners import Runners
from services.api.metrics.store import COARSE, FINE, Series, Store

NOW = 1_790_000_000
"""The beginning of a minute plus 20 s."""
MINUTE = NOW // 60 * 60
HOST = HostMetrics(
    cpu_percent=12.5,
    processors=2,
    memory_bytes=2**33,
    memory_total_bytes=2**34,
    disk_free_bytes=2**40,
    disk_total_bytes=2**41,
    load=0.5,
)


def used(cpu: float = 1, memory: int = 2, strategy: str = "s", run: str = "r") -> RunMetrics:
    return RunMetrics(
        run_id=run,
        strategy_id=strategy,
        cpu_percent=cpu,
        memory_bytes=memory,
        processes=3,
    )


def point(cpu: float = 1) -> list[float]:
    return [cpu] * len(COLUMNS)


# ---- rings


def test_a_row_is_the_mean_and_the_most_of_its_points() -> None:
    ring = Ring(60, 10)
    for second, cpu in ((0, 1), (5, 3), (59, 8), (60, 5)):
        ring.add(MINUTE + second, point(cpu))
    first, second = ring.rows(0)
    assert (first.at, second.at) == (MINUTE, MINUTE + 60)
    for (name, kind), value in zip(COLUMNS, first.values, strict=True):
        assert value == (4 if kind == "mean" else 8), name


def test_the_newest_push_out_the_oldest() -> None:
    ring = Ring(5, 4)
    for n in range(11):
        ring.add(NOW + 5 * n, point(n))
    assert [(row.at, row.values[0]) for row in ring.rows(0)] == [
        (NOW + 5 * n, n) for n in (7, 8, 9, 10)
    ]
    assert [row.at for row in ring.rows(NOW + 45)] == [NOW + 45, NOW + 50]
    assert len(ring) == 4


def test_what_nobody_told_is_nothing_and_changes_nothing() -> None:
    ring = Ring(60, 4)
    ring.add(MINUTE, point(nan))
    assert all(isnan(value) for value in next(ring.rows(0)).values)
    ring.add(MINUTE + 5, point(7))
    ring.add(MINUTE + 10, point(nan))
    assert list(next(ring.rows(0)).values) == point(7)


def test_a_clock_that_is_set_back_begins_anew() -> None:
    ring = Ring(5, 100)
    ring.add(NOW, point(1))
    ring.add(NOW - 1, point(3))  # a moment: it goes into the newest row
    assert [(row.at, row.values[0]) for row in ring.rows(0)] == [(NOW, 2)]
    ring.add(NOW - 3600, point(5))
    assert [row.at for row in ring.rows(0)] == [NOW - 3600]


def test_rows_are_merged_into_longer_spans() -> None:
    rows = (Row(MINUTE + 60 * n, point(n)) for n in range(6))
    begin = MINUTE // 180 * 180
    found = list(merged(rows, 180))
    assert found[0].at == begin
    assert all(row.at % 180 == 0 for row in found)
    whole = next(row for row in found if row.at == begin + 180)
    lowest = (begin + 180 - MINUTE) // 60
    assert (whole.values[0], whole.values[1]) == (lowest + 1, lowest + 2)


# ---- the store


def test_a_day_of_a_strategy_takes_some_60_kilobytes() -> None:
    tracemalloc.start()
    try:
        series = Series()
        for n in range(86_400 // 5 + 1000):
            series.add(NOW + 5 * n, used(cpu=n))
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert series.room == (FINE + COARSE) * 36 == 58_320
    assert size < 80_000


def test_fifteen_minutes_are_fine_and_a_day_is_not() -> None:
    series = Series()
    end = NOW + 86_400 * 2
    for at in range(NOW, end, 5):
        series.add(at, used(memory=2**30 + 8192))
    step, rows = series.rows(end - 900, 5, end)
    assert (step, len(list(rows))) == (5, 180)
    step, rows = series.rows(end - 900, 30, end)
    assert (step, len(list(rows))) == (30, 31 if (end - 900) % 30 else 30)
    step, rows = series.rows(end - 960, 15, end)  # a caller's 15 minutes ago, by its own clock
    assert (step, len(list(rows))) == (15, 61)
    step, rows = series.rows(end - 961, 5, end)
    assert step == 60
    step, rows = series.rows(0, 5, end)
    found = list(rows)
    assert (step, len(found)) == (60, 1440)
    assert found[0].values[2] == 2**30 + 8192
    step, rows = series.rows(0, 3600, end)
    assert step == 3600
    assert 24 <= len(list(rows)) <= 25


def test_there_is_room_for_so_many_strategies() -> None:
    store = Store(most=3)
    for n in range(3):
        store.add(NOW + n, used(strategy=f"s{n}"))
    store.add(NOW + 10, used(strategy="s0"))
    store.add(NOW + 11, used(strategy="s3"))
    assert len(store) == 3
    assert list(store.of("s1").rows(0, 60, NOW)[1]) == []
    assert list(store.of("s0").rows(0, 60, NOW)[1]) != []


def test_what_has_not_run_for_a_day_is_forgotten() -> None:
    store = Store()
    store.add(NOW, used(strategy="old"))
    store.add(NOW + 86_400, used(strategy="new"))
    assert len(store) == 2
    store.add(NOW + 86_401, used(strategy="new"))
    assert len(store) == 1


# ---- what is believed of a runner


class Board:
    """Strategies, whose runs are where they are."""

    async def get(self, strategy_id: str) -> Any:
        if strategy_id == "gone":
            raise UnknownStrategy("gone")
        run = None if strategy_id == "idle" else SimpleNamespace(id="r", runner="box-1")
        return SimpleNamespace(run=run, owner=SimpleNamespace(id="alice"))


def told(*runs: RunMetrics, runner: str = "box-1", part: int = 1, parts: int = 1) -> RunnerMetrics:
    at = datetime(1999, 1, 1, tzinfo=UTC)
    return RunnerMetrics(runner=runner, at=at, host=HOST, runs=runs, part=part, parts=parts)


def test_a_runner_is_believed_of_its_own_runs_alone() -> None:
    metrics = Metrics(cast("Any", Board()), wall=lambda: NOW)

    async def scenario() -> None:
        await metrics.told(told(used(cpu=99), runner="box-2"))
        await metrics.told(told(used(strategy="gone"), used(strategy="idle"), used(run="r0")))
        assert len(metrics.store) == 0
        await metrics.told(told(used(strategy="gone"), used(cpu=7)))

    asyncio.run(scenario())
    [row] = metrics.store.of("s").rows(NOW - 60, 5, NOW)[1]
    assert (row.at, row.values[0]) == (NOW // 5 * 5, 7)  # by our clock, whatever it says


# ---- runners


def info(runner: str) -> RunnerInfo:
    capabilities = {"memory_limit": "enforced", "pids_limit": "watched"}
    return RunnerInfo(
        runner=runner,
        platform="Linux",
        python="3.11",
        at=datetime.now(UTC),
        capabilities=capabilities,
    )


def caller(user: str, role: Role, scopes: frozenset[Scope] = frozenset(Scope)) -> Caller:
    return Caller(user, user, role, scopes, "c", {})


ADMIN, ALICE = caller("root", Role.ADMIN), caller("alice", Role.TRADER)


class Time:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Time:
    return Time()


@pytest.fixture
def runners(clock: Time) -> Runners:
    runners = Runners(clock)
    runners.heard("box-1", info("box-1"))
    return runners


def test_what_others_run_is_told_to_admins_alone(runners: Runners) -> None:
    runners.told(told(), Counter(alice=2, bob=3))
    [seen] = runners.views(ALICE)
    assert (seen.runs, seen.host) == (2, None)
    assert seen.capabilities == info("box-1").capabilities
    [seen] = runners.views(ADMIN)
    assert (seen.runs, seen.host) == (5, HOST)
    [seen] = runners.views(caller("root", Role.ADMIN, frozenset({Scope.READ})))
    assert (seen.runs, seen.host) == (0, None)


def test_how_many_more_fit_is_told_to_all_and_what_memory_there_is_to_admins(
    runners: Runners, clock: Time
) -> None:
    ids = tuple(f"s-{number}" for number in range(8))
    room = Room(memory_total_bytes=2**31, memory_free_bytes=2**28, run_ids=ids, most_runs=9)
    runners.heard("box-1", info("box-1").model_copy(update={"room": room}))
    [seen] = runners.views(ALICE)
    assert (seen.fits, seen.warning, seen.memory) == (1, None, None)
    [seen] = runners.views(ADMIN)
    assert seen.memory is not None
    assert (seen.fits, seen.memory.free_bytes, seen.memory.most_runs) == (1, 2**28, 9)
    busy = room.model_copy(update={"busy_percent": 97.0})
    runners.heard("box-1", info("box-1").model_copy(update={"room": busy}))
    assert "busy for a minute" in (runners.views(ALICE)[0].warning or "")
    clock.now += STALE_S
    [seen] = runners.views(ADMIN)
    assert (seen.fits, seen.warning, seen.memory) == (None, None, None)


def test_of_a_runner_of_another_release_no_room_is_told(runners: Runners) -> None:
    [seen] = runners.views(ADMIN)
    assert (seen.fits, seen.warning, seen.memory) == (None, None, None)


def test_runs_that_are_told_in_parts_are_added_up(runners: Runners) -> None:
    runners.told(told(part=1, parts=2), Counter(alice=500))
    runners.told(told(part=2, parts=2), Counter(alice=7))
    assert runners.views(ALICE)[0].runs == 507
    runners.told(told(part=1, parts=1), Counter(alice=3))
    assert runners.views(ALICE)[0].runs == 3


def test_a_runner_without_a_heartbeat_is_not_alive(runners: Runners, clock: Time) -> None:
    runners.told(told(), Counter(alice=2))
    clock.now += 11.9
    assert runners.views(ADMIN)[0].alive
    clock.now += 0.1
    [seen] = runners.views(ADMIN)
    assert (seen.alive, seen.runs, seen.host) == (False, 0, None)
    runners.heard("box-1", info("box-1"))
    assert runners.views(ADMIN)[0].alive


def test_a_runner_tells_before_what_it_told_is_stale() -> None:
    assert RunnerSettings(metrics_s=10).metrics_s < STALE_S
    with pytest.raises(ValidationError):
        RunnerSettings(metrics_s=10.1)


def test_a_farewell_is_heard_at_once(runners: Runners) -> None:
    runners.heard("box-1", None)
    runners.heard("box-9", None)
    assert [(one.id, one.alive) for one in runners.views(ALICE)] == [("box-1", False)]
    runners.heard("box-1", info("box-1"))
    assert runners.views(ALICE)[0].alive


def test_a_runner_is_forgotten_after_a_day(runners: Runners, clock: Time) -> None:
    clock.now += 86_400
    assert runners.views(ADMIN) == []


def test_metrics_of_a_runner_that_has_no_heartbeat_yet(runners: Runners) -> None:
    runners.told(told(runner="box-2"), Counter())
    assert [one.id for one in runners.views(ADMIN)] == ["box-1"]
