"""Starts that are granted ahead: a supervisor with a real warden, over a real bus."""

import asyncio
import base64
import contextlib
import hashlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

import psutil
import pytest

from openbell import sealing
from openbell.bus import RUNNERS, Bus
from openbell.contracts.base import utc_now
from openbell.contracts.commands import (
    GetRunEnvironment,
    RunEnvironment,
    RunVariables,
    StartRun,
    StopRun,
)
from openbell.contracts.events import RUNNER_EVENT, RunnerCameUp, RunReported
from openbell.contracts.model import ExitReason, RunState, stop_ladder
from openbell.sealing import RunnerKey
from openbell.settings import RunnerSettings, Settings
from services.runner.backends.process import ProcessBackend
from services.runner.supervisor import Supervisor
from tests.fixtures.nats import NatsServer
from tests.fixtures.stack import end_all
from tests.fixtures.supervised import supervisor_of, supplied

SCRIPT = b"import os, time; print(repr(time.time()), os.environ['TOKEN'])"
KEY = RunnerKey(RunnerKey.made())
LADDER = stop_ladder(1)
T = TypeVar("T", RunReported, RunnerCameUp)
PARKED_ON = [RunState.PARKED, RunState.RUNNING, RunState.EXITED]


class Bell:
    """A home on a bus that answers for variables; its runner comes and goes."""

    def __init__(self, home: Path, bus: Bus) -> None:
        self.home = home
        self.bus = bus
        self._events: list[RunReported | RunnerCameUp] = []
        self._sequence = 0

    async def open(self) -> None:
        async def variables(command: GetRunEnvironment) -> RunEnvironment:
            found = RunVariables(variables={"TOKEN": "t"}, secrets=frozenset(), earlier=())
            purpose = sealing.for_run(command.run_id, command.epoch)
            sealed = sealing.seal(found.encode(), KEY.public, purpose)
            return RunEnvironment(sealed=base64.b64encode(sealed))

        await self.bus.answer(GetRunEnvironment, variables)
        await self.bus.put_artifact(hashlib.sha256(SCRIPT).hexdigest(), SCRIPT)

    @contextlib.asynccontextmanager
    async def runner(self, *, stops: bool = False) -> AsyncGenerator[Supervisor]:
        """One life of the runner."""
        options = RunnerSettings(stop_strategies_on_exit=stops)
        supervisor, _ = supervisor_of(
            Settings(home=self.home, runner=options),
            self.bus,
            ProcessBackend(self.home / "data" / "warden"),
            supplied(self.home, self.bus),
            KEY,
        )
        async with supervisor.running():
            await supervisor.ready.wait()
            yield supervisor

    async def reports(self, strategy: str = "s") -> list[RunReported]:
        return [one for one in await self._told(RunReported) if one.strategy_id == strategy]

    async def states(self, strategy: str = "s") -> list[RunState]:
        return [report.state for report in await self.reports(strategy)]

    async def came_up(self) -> list[RunnerCameUp]:
        return await self._told(RunnerCameUp)

    async def reach(self, state: RunState, strategy: str = "s") -> RunReported:
        async with asyncio.timeout(20):
            while True:
                for report in await self.reports(strategy):
                    if report.state is state:
                        return report
                await asyncio.sleep(0.02)

    def said(self, strategy: str = "s") -> float:
        log = self.home / "log" / "strategies" / strategy / f"{strategy}-1.log"
        moment, token = log.read_text().split()
        assert token == "t"
        return float(moment)

    def kill_warden(self) -> None:
        told = (self.home / "data" / "warden" / "warden.log").read_text()
        pid = [line.split()[2] for line in told.splitlines() if line.endswith("is up")][-1]
        psutil.Process(int(pid)).kill()

    async def _told(self, kind: type[T]) -> list[T]:
        while stored := await self.bus.next_stored(RUNNERS, self._sequence):
            self._sequence = stored.sequence
            self._events.append(RUNNER_EVENT.validate_json(stored.payload))
        return [event for event in self._events if isinstance(event, kind)]


def start(at: datetime | None, strategy: str = "s") -> StartRun:
    return StartRun(
        run_id=f"{strategy}-1",
        strategy_id=strategy,
        strategy_name=strategy,
        owner="local",
        epoch=1,
        sha256=hashlib.sha256(SCRIPT).hexdigest(),
        filename="s.py",
        exchange=None,
        ladder=LADDER,
        start_at=at,
    )


def stop() -> StopRun:
    reason = ExitReason.STOPPED_BY_USER
    return StopRun(run_id="s-1", strategy_id="s", epoch=1, reason=reason, ladder=LADDER)


def soon(seconds: float) -> datetime:
    return utc_now() + timedelta(seconds=seconds)


@pytest.fixture
def play(nats: NatsServer, tmp_path: Path):
    home = tmp_path / "home"

    def run(scene: Callable[[Bell], Awaitable[None]]) -> None:
        async def scenes() -> None:
            async with nats.bus() as bus:
                bell = Bell(home, bus)
                await bell.open()
                await scene(bell)

        asyncio.run(scenes())

    yield run
    end_all(home)


Play = Callable[[Callable[[Bell], Awaitable[None]]], None]


def test_a_start_ahead_is_parked_once_and_runs_at_its_instant(play: Play) -> None:
    async def scene(bell: Bell) -> None:
        async with bell.runner() as runner:
            at = soon(1)
            await runner.start(start(at))
            await bell.reach(RunState.PARKED)
            await runner.start(start(at))
            running = await bell.reach(RunState.RUNNING)
            await bell.reach(RunState.EXITED)
            await runner.start(start(at))
        assert running.at >= at
        assert bell.said() >= at.timestamp()
        assert await bell.states() == PARKED_ON

    play(scene)


@pytest.mark.parametrize("ago", [None, 3600.0])
def test_a_start_whose_instant_is_over_is_not_parked(play: Play, ago: float | None) -> None:
    async def scene(bell: Bell) -> None:
        async with bell.runner() as runner:
            await runner.start(start(None if ago is None else soon(-ago)))
            await bell.reach(RunState.EXITED)
        assert await bell.states() == [RunState.RUNNING, RunState.EXITED]

    play(scene)


def test_a_parked_run_starts_without_its_runner_and_the_next_one_tells_it(play: Play) -> None:
    async def scene(bell: Bell) -> None:
        at = soon(2)
        async with bell.runner() as runner:
            await runner.start(start(at))
            await bell.reach(RunState.PARKED)
        async with bell.runner() as runner:
            await runner.start(start(at))
            while len(up := await bell.came_up()) < 2:
                await asyncio.sleep(0.01)
            assert utc_now() < at, "the machine was too slow for this test"
        assert up[-1].run_ids == ("s-1",)
        await asyncio.sleep((at - utc_now()).total_seconds() + 0.3)
        async with bell.runner():
            await bell.reach(RunState.EXITED)
        assert at.timestamp() <= bell.said()
        assert await bell.states() == PARKED_ON

    play(scene)


def test_a_parked_run_that_is_stopped_never_starts(play: Play) -> None:
    async def scene(bell: Bell) -> None:
        async with bell.runner() as runner:
            await runner.start(start(soon(60)))
            await bell.reach(RunState.PARKED)
            await runner.stop(stop())
            ended = await bell.reach(RunState.EXITED)
        assert ended.reason is ExitReason.STOPPED_BY_USER
        assert await bell.states() == [RunState.PARKED, RunState.EXITED]

    play(scene)


def test_a_host_that_shuts_down_lets_its_parked_runs_go(play: Play) -> None:
    async def scene(bell: Bell) -> None:
        async with bell.runner(stops=True) as runner:
            await runner.start(start(soon(60)))
            await bell.reach(RunState.PARKED)
        ended = await bell.reach(RunState.EXITED)
        assert ended.reason is ExitReason.HOST_SHUTDOWN

    play(scene)


def test_a_start_that_died_with_its_warden_is_told_in_time_to_try_again(play: Play) -> None:
    async def scene(bell: Bell) -> None:
        at = soon(10)
        async with bell.runner() as runner:
            await runner.start(start(at))
            await bell.reach(RunState.PARKED)
            bell.kill_warden()
            ended = await bell.reach(RunState.EXITED)
        assert ended.reason is ExitReason.START_FAILED
        assert "held the start" in (ended.detail or "")
        assert ended.at < at

    play(scene)


def test_of_many_at_one_instant_each_starts_once_and_is_told_in_order(play: Play) -> None:
    strategies = [f"s{n}" for n in range(60)]

    async def scene(bell: Bell) -> None:
        async with bell.runner() as runner:
            at = soon(4)
            for strategy in strategies:
                await runner.start(start(at, strategy))
            for strategy in strategies:
                await bell.reach(RunState.PARKED, strategy)
            assert utc_now() < at, "the machine was too slow for this test"
            for strategy in strategies:
                await bell.reach(RunState.EXITED, strategy)
        for strategy in strategies:
            assert await bell.states(strategy) == PARKED_ON
            assert bell.said(strategy) >= at.timestamp()

    play(scene)
