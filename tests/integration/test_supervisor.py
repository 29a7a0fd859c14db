"""The supervisor, over a real bus, with a backend that tells what it was asked."""

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar

import pytest

from openbell import sealing
from openbell.bus import RUNNERS, Bus
from openbell.contracts.commands import (
    GetRunEnvironment,
    RunEnvironment,
    RunVariables,
    StartRun,
    StopRun,
)
from openbell.contracts.errors import ServiceUnavailable, UnknownRun
from openbell.contracts.events import RUNNER_EVENT, RunReported
from openbell.contracts.model import ExitReason, RunState, StopStep, stop_ladder
from openbell.sealing import RunnerKey
from openbell.settings import RunnerSettings, Settings
from services.runner import reports as module
from services.runner import supervisor as supervising
from services.runner.backends.base import (
    Capabilities,
    Observation,
    Process,
    Recovery,
    RunHandle,
    RunSpec,
    StartRefused,
)
from services.runner.monitor.monitor import Monitor
from services.runner.notes import Note
from services.runner.reports import Reports
from services.runner.supervisor import Supervisor
from tests.fixtures.nats import NatsServer
from tests.fixtures.supervised import supervisor_of, supplied

SOURCE = "5f" * 32
START = StartRun(
    run_id="s-1",
    strategy_id="s",
    strategy_name="s",
    owner="local",
    epoch=1,
    sha256=SOURCE,
    filename="s.py",
    exchange=None,
    ladder=stop_ladder(15),
)
KEY = RunnerKey(RunnerKey.made())
TOKEN = "kite-live-0a1b2c3d"
LIVE = RunHandle("process", 1, "s-1", "s", 1, "7:7", START.ladder)


class Remembering:
    """A backend in which `live` runs, and nothing happens."""

    capabilities = Capabilities(
        backend="process",
        memory_limit="none",
        pids_limit="none",
        cpu_limit="none",
        disk_limit="none",
        files_limit="none",
        own_user=False,
        namespaces=False,
        why_not=(),
        graceful_stop=True,
    )

    def __init__(self, live: tuple[RunHandle, ...]) -> None:
        self.live = live
        self.started: list[str] = []
        self.environments: list[Mapping[str, str]] = []
        self.happened: asyncio.Queue[Observation] = asyncio.Queue()
        self.acknowledged = 0

    async def recover(self) -> Recovery:
        return Recovery(self.live, 0, 0)

    async def start(self, spec: RunSpec) -> RunHandle:
        self.started.append(spec.run_id)
        self.environments.append(spec.environment)
        assert TOKEN not in repr(spec)
        return LIVE

    async def stop(
        self,
        run_id: str,
        ladder: Sequence[StopStep],
        reason: ExitReason,
        detail: str | None = None,
    ) -> None: ...

    def group(self, run_id: str) -> None: ...

    def ceiling(self) -> None: ...

    async def observations(self, after: int) -> AsyncIterator[Sequence[Observation]]:
        while True:
            yield [await self.happened.get()]

    async def acknowledge(self, number: int) -> None:
        self.acknowledged = number

    async def shut_down(self) -> None: ...

    async def close(self) -> None: ...


def test_a_live_run_that_is_told_to_start_again_is_not_reported_as_ended(
    nats: NatsServer, tmp_path: Path
) -> None:
    """Nobody answers for its variables: a start that failed here would free its slot."""

    async def scenario() -> None:
        async with nats.bus() as bus:
            backend = Remembering((LIVE,))
            supervisor, _ = supervised(tmp_path, bus, backend)
            await supervisor.start(START)  # before it knows what runs
            async with supervisor.running():
                await supervisor.ready.wait()
                await supervisor.start(START)
                while supervisor._preparing:  # pyright: ignore[reportPrivateUsage]
                    await asyncio.sleep(0)
            assert await reports(bus) == []
            assert backend.started == []

    asyncio.run(scenario())


def test_a_start_waits_for_who_has_its_variables(nats: NatsServer, tmp_path: Path) -> None:
    """An api that is away at the bell would have cost every strategy a failure."""

    async def scenario() -> None:
        async with nats.bus() as bus:
            body = b"print(1)"
            digest = hashlib.sha256(body).hexdigest()
            await bus.put_artifact(digest, body)
            backend = Remembering(())
            supervisor, _ = supervised(tmp_path, bus, backend)
            async with supervisor.running(), asyncio.timeout(20):
                await supervisor.start(START.model_copy(update={"sha256": digest}))
                while not (told := await reports(bus)):
                    await asyncio.sleep(0.01)
                await api(bus)
                while not backend.started:
                    await asyncio.sleep(0.01)
            assert [(one.state, one.detail) for one in told] == [
                (RunState.PREPARING, "no api is connected")
            ]
            assert [one.state for one in await reports(bus)] == [RunState.PREPARING]

    asyncio.run(scenario())


def test_a_start_that_waits_says_why_once_and_asks_less_and_less(
    nats: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two hundred that asked twice a second, and said so each time, kept Openbell from answering
    anybody for half a minute.
    """
    monkeypatch.setattr(supervising, "RETRY_S", 0.01)
    monkeypatch.setattr(supervising, "LONGEST_RETRY_S", 0.04)
    pauses: list[float] = []
    told: list[str] = []
    sleep, report = asyncio.sleep, Bus.report

    async def slept(pause: float) -> None:
        if pause in {0.01, 0.02, 0.04}:
            pauses.append(pause)
        await sleep(pause)

    async def counted(bus: Bus, event: RunReported, message_id: str) -> None:
        told.append(message_id)
        await report(bus, event, message_id)

    async def scenario() -> None:
        async with nats.bus() as bus:
            await bus.put_artifact(SOURCE, b"print(1)")
            supervisor, _ = supervised(tmp_path, bus, Remembering(()))
            monkeypatch.setattr(Bus, "report", counted)
            monkeypatch.setattr(asyncio, "sleep", slept)
            async with supervisor.running(), asyncio.timeout(20):
                await supervisor.start(START)
                while len(pauses) < 5:
                    await sleep(0.005)

    asyncio.run(scenario())
    assert pauses[:5] == [0.01, 0.02, 0.04, 0.04, 0.04]
    assert [one for one in told if not one.startswith("local-up")] == ["s-1-preparing"]


def test_many_that_start_together_are_prepared_side_by_side(
    nats: NatsServer, tmp_path: Path
) -> None:
    """At a boot: each would wait for all before it, and none for what they could be forked from."""
    held: list[bool] = []

    class Holding(Remembering):
        async def start(self, spec: RunSpec) -> RunHandle:
            held.append(spec.start_at is not None)
            return LIVE

    async def scenario() -> None:
        async with nats.bus() as bus:
            body = b"print(1)"
            digest = hashlib.sha256(body).hexdigest()
            await bus.put_artifact(digest, body)
            await api(bus)
            supervisor, _ = supervised(tmp_path, bus, Holding(()))

            async def begun(several: int) -> None:
                for n in range(several):
                    facts = {"run_id": f"{several}s{n}-1", "strategy_id": f"{several}s{n}"}
                    start = START.model_copy(update={"sha256": digest, **facts})
                    await supervisor.start(start)
                while supervisor._preparing:  # pyright: ignore[reportPrivateUsage]
                    await asyncio.sleep(0.01)

            async with supervisor.running(), asyncio.timeout(20):
                await begun(1)
                assert held == [False]
                await begun(20)
                assert sum(held) >= 15

    asyncio.run(scenario())


async def reports(bus: Bus) -> list[RunReported]:
    last = (await bus.stream_state(RUNNERS)).last
    stored = [await bus.next_stored(RUNNERS, n) for n in range(last)]
    events = [RUNNER_EVENT.validate_json(one.payload) for one in stored if one]
    return [event for event in events if isinstance(event, RunReported)]


async def api(
    bus: Bus,
    key: RunnerKey = KEY,
    *,
    earlier: tuple[str, ...] = (),
    after: asyncio.Event | None = None,
) -> list[str]:
    """Tells the variables of every run, sealed to this key; who asked for which is kept."""
    asked: list[str] = []

    async def answer(command: GetRunEnvironment) -> RunEnvironment:
        asked.append(command.run_id)
        if after is not None:
            await after.wait()
        variables = {"TOKEN": TOKEN, "SYMBOL": "SBIN"}
        found = RunVariables(variables=variables, secrets=frozenset({"TOKEN"}), earlier=earlier)
        purpose = sealing.for_run(command.run_id, command.epoch)
        sealed = sealing.seal(found.encode(), key.public, purpose)
        return RunEnvironment(sealed=base64.b64encode(sealed))

    await bus.answer(GetRunEnvironment, answer)
    return asked


def crashed(number: int = 1) -> Observation:
    return Observation(
        number,
        datetime.now(UTC),
        "s-1",
        "s",
        1,
        RunState.EXITED,
        exit_code=1,
        reason=ExitReason.CRASHED,
    )


def in_the_log(home: Path, text: str) -> None:
    folder = home / "log" / "strategies" / "s"
    folder.mkdir(parents=True)
    (folder / "s-1.log").write_text(text)


def supervised(home: Path, bus: Bus, backend: Remembering) -> tuple[Supervisor, Reports]:
    environments = supplied(home, bus)
    return supervisor_of(Settings(home=home), bus, backend, environments, KEY)


async def until_told(bus: Bus, backend: Remembering) -> RunReported:
    async with asyncio.timeout(20):
        while not backend.acknowledged:
            await asyncio.sleep(0.01)
    return (await reports(bus))[-1]


def test_a_runs_variables_reach_it_and_its_last_line_hides_them(
    nats: NatsServer, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with nats.bus() as bus:
            asked = await api(bus)
            body = b"print(1)"
            digest = hashlib.sha256(body).hexdigest()
            await bus.put_artifact(digest, body)
            backend = Remembering(())
            supervisor, _ = supervised(tmp_path, bus, backend)
            async with supervisor.running():
                await supervisor.start(START.model_copy(update={"sha256": digest}))
                async with asyncio.timeout(20):
                    while not backend.started:
                        await asyncio.sleep(0.01)
                in_the_log(tmp_path, f"trying\nError: {TOKEN} is refused for SBIN\n")
                backend.happened.put_nowait(crashed())
                told = await until_told(bus, backend)
            assert told.headline == f"Error: {'*' * len(TOKEN)} is refused for SBIN"
            assert backend.environments[0]["TOKEN"] == TOKEN
            assert backend.environments[0]["SYMBOL"] == "SBIN"
            assert asked == ["s-1"]

    asyncio.run(scenario())


def test_why_a_run_was_refused_hides_its_variables(nats: NatsServer, tmp_path: Path) -> None:
    class Refusing(Remembering):
        async def start(self, spec: RunSpec) -> RunHandle:
            raise StartRefused(f"no room for {spec.environment['TOKEN']}", observed=False)

    async def scenario() -> None:
        async with nats.bus() as bus:
            await api(bus)
            body = b"print(1)"
            digest = hashlib.sha256(body).hexdigest()
            await bus.put_artifact(digest, body)
            supervisor, _ = supervised(tmp_path, bus, Refusing(()))
            async with supervisor.running():
                await supervisor.start(START.model_copy(update={"sha256": digest}))
                async with asyncio.timeout(20):
                    while not (told := await reports(bus)):
                        await asyncio.sleep(0.01)
            assert told[0].reason is ExitReason.START_FAILED
            assert told[0].detail == f"no room for {'*' * len(TOKEN)}"

    asyncio.run(scenario())


def test_of_a_run_that_did_not_start_no_secret_is_kept(nats: NatsServer, tmp_path: Path) -> None:
    """Also when its variables come after its source was refused."""

    async def scenario() -> None:
        async with nats.bus() as bus:
            failed = asyncio.Event()
            asked = await api(bus, after=failed)
            supervisor, told_by = supervised(tmp_path, bus, Remembering(()))
            async with supervisor.running():
                await supervisor.start(START.model_copy(update={"filename": "../s.py"}))
                async with asyncio.timeout(20):
                    while not (told := await reports(bus)):
                        await asyncio.sleep(0.01)
                failed.set()
                await asyncio.sleep(0.3)
            assert told[0].reason is ExitReason.START_FAILED
            assert asked == ["s-1"]
            assert told_by._masks == {}  # pyright: ignore[reportPrivateUsage]

    asyncio.run(scenario())


def test_after_its_own_restart_a_runner_asks_what_it_must_hide(
    nats: NatsServer, tmp_path: Path
) -> None:
    """Also what was replaced while the run lived; and it waits for an api that starts as well."""

    async def scenario() -> None:
        async with nats.bus() as bus:
            backend = Remembering((LIVE,))
            in_the_log(tmp_path, f"Error: {TOKEN} and old-token\n")
            backend.happened.put_nowait(crashed())
            async with supervised(tmp_path, bus, backend)[0].running():
                await asyncio.sleep(0.3)
                assert backend.acknowledged == 0
                await api(bus, earlier=("old-token",))
                told = await until_told(bus, backend)
            assert told.headline == f"Error: {'*' * len(TOKEN)} and {'*' * 9}"

    asyncio.run(scenario())


@pytest.mark.parametrize("why", ["nobody answers", "it is not live", "sealed for another"])
def test_a_last_line_whose_secrets_are_not_known_is_withheld(
    nats: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    monkeypatch.setattr(module, "LEARN_S", 0.3)

    async def unknown(command: GetRunEnvironment) -> RunEnvironment:
        raise UnknownRun("it is not live")

    async def scenario() -> None:
        async with nats.bus() as bus:
            if why == "it is not live":
                await bus.answer(GetRunEnvironment, unknown)
            if why == "sealed for another":
                await api(bus, RunnerKey(RunnerKey.made()))
            backend = Remembering((LIVE,))
            in_the_log(tmp_path, f"Error: {TOKEN}\n")
            backend.happened.put_nowait(crashed())
            async with supervised(tmp_path, bus, backend)[0].running():
                told = await until_told(bus, backend)
            assert (told.state, told.exit_code, told.detail) == (RunState.EXITED, 1, None)

    asyncio.run(scenario())


def test_a_run_whose_variables_were_sealed_for_another_runner_does_not_start(
    nats: NatsServer, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with nats.bus() as bus:
            await api(bus, RunnerKey(RunnerKey.made()))
            body = b"print(1)"
            digest = hashlib.sha256(body).hexdigest()
            await bus.put_artifact(digest, body)
            backend = Remembering(())
            supervisor, _ = supervised(tmp_path, bus, backend)
            async with supervisor.running():
                await supervisor.start(START.model_copy(update={"sha256": digest}))
                async with asyncio.timeout(20):
                    while not (told := await reports(bus)):
                        await asyncio.sleep(0.01)
            assert (told[0].reason, backend.started) == (ExitReason.START_FAILED, [])
            assert "not sealed for this runner" in (told[0].detail or "")

    asyncio.run(scenario())


class Bursting(Remembering):
    """A backend in which all of this has happened, and is told at once."""

    def __init__(self, burst: Sequence[Observation], observed: int = 0) -> None:
        super().__init__(())
        self.burst = burst
        self.observed = observed
        self.acknowledgements: list[int] = []

    async def recover(self) -> Recovery:
        return Recovery(self.live, 0, self.observed)

    async def observations(self, after: int) -> AsyncIterator[Sequence[Observation]]:
        yield self.burst
        await asyncio.Event().wait()

    async def acknowledge(self, number: int) -> None:
        self.acknowledged = number
        self.acknowledgements.append(number)


def a_burst(runs: int) -> list[Observation]:
    """All are parked, then all start, then all end."""
    told: list[Observation] = []
    for state in (RunState.PREPARING, RunState.PARKED, RunState.RUNNING, RunState.EXITED):
        for run in range(runs):
            now = datetime.now(UTC)
            told.append(Observation(len(told) + 1, now, f"s{run}-1", f"s{run}", 1, state))
    return told


STATES = [RunState.PARKED, RunState.RUNNING, RunState.EXITED]


def test_a_burst_is_told_in_order_and_acknowledged_once(nats: NatsServer, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with nats.bus() as bus:
            backend = Bursting(a_burst(150), observed=600)
            async with supervised(tmp_path, bus, backend)[0].running():
                await until_told(bus, backend)
                async with asyncio.timeout(20):
                    while (await bus.stream_state(RUNNERS)).last < 451:
                        await asyncio.sleep(0.01)
            told = await reports(bus)
            for run in range(150):
                assert [one.state for one in told if one.strategy_id == f"s{run}"] == STATES
            last = await bus.next_stored(RUNNERS, 450)
            assert last is not None
            assert "runner_came_up" in last.payload.decode(), "it comes after all that was"
            assert backend.acknowledgements == [600]

    asyncio.run(scenario())


def test_a_report_that_must_be_sent_again_is_not_overtaken_by_its_next(
    nats: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that has ended would be said to run; and nothing is forgotten before it is stored."""
    monkeypatch.setattr(module, "RETRY_S", 0.1)
    report = Bus.report
    away = {"s0-1-running", "s1-1-running"}

    async def scenario() -> None:
        async with nats.bus() as bus:
            backend = Bursting(a_burst(3))

            async def failing_once(bus: Bus, event: RunReported, message_id: str) -> None:
                assert backend.acknowledged == 0
                if message_id in away:
                    away.discard(message_id)
                    raise ServiceUnavailable("the stream did not confirm")
                await report(bus, event, message_id)

            monkeypatch.setattr(Bus, "report", failing_once)
            async with supervised(tmp_path, bus, backend)[0].running():
                await until_told(bus, backend)
            told = await reports(bus)
            for run in range(3):
                assert [one.state for one in told if one.strategy_id == f"s{run}"] == STATES
            assert not away

    asyncio.run(scenario())


def test_the_scheduler_is_told_of_the_stops_alone_that_it_did_not_decide(
    nats: NatsServer, tmp_path: Path
) -> None:
    """Told of its own, its transaction for that kept the run's end waiting."""
    stopping = replace(crashed(), state=RunState.STOPPING, exit_code=None)
    observed = [
        replace(stopping, run_id=f"{name}-1", strategy_id=name, reason=reason)
        for name, reason in (
            ("a", ExitReason.STOPPED_BY_USER),
            ("b", ExitReason.MEMORY_LIMIT),
            ("c", ExitReason.FENCED),
        )
    ]

    async def scenario() -> None:
        async with nats.bus() as bus:
            _, reporting = supervised(tmp_path, bus, Remembering(()))
            await reporting.pass_on(observed)
            assert [one.reason for one in await reports(bus)] == [ExitReason.MEMORY_LIMIT]

    asyncio.run(scenario())


def test_the_instant_and_the_kind_of_a_start_reach_the_backend(
    nats: NatsServer, tmp_path: Path
) -> None:
    class Holding(Remembering):
        specs: ClassVar[list[RunSpec]] = []

        async def start(self, spec: RunSpec) -> RunHandle:
            self.specs.append(spec)
            return LIVE

    async def scenario() -> None:
        async with nats.bus() as bus:
            await api(bus)
            body = b"import os, pandas"
            digest = hashlib.sha256(body).hexdigest()
            await bus.put_artifact(digest, body)
            bell = datetime.now(UTC) + timedelta(seconds=60)
            backend = Holding(())
            settings = Settings(home=tmp_path, runner=RunnerSettings(fork=True))
            environments = supplied(tmp_path, bus)
            supervisor, _ = supervisor_of(settings, bus, backend, environments, KEY)
            async with supervisor.running(), asyncio.timeout(20):
                start = START.model_copy(update={"sha256": digest, "start_at": bell})
                await supervisor.start(start)
                own = {"run_id": "s-2", "epoch": 2, "interpreter": "own"}
                await supervisor.start(start.model_copy(update=own))
                while len(backend.specs) < 2:
                    await asyncio.sleep(0.01)
            preloads = {spec.run_id: spec.preload for spec in backend.specs}
            assert preloads == {"s-1": ("pandas",), "s-2": None}
            assert backend.specs[0].start_at == bell
            assert await reports(bus) == []

    asyncio.run(scenario())


def test_what_starts_while_the_stream_is_away_is_watched_at_once(
    nats: NatsServer, tmp_path: Path
) -> None:
    """At an opening with NATS away, five hundred runs were under no limit that is watched."""

    class Silent(Reports):
        async def pass_on(self, observations: Sequence[Observation]) -> None:
            await asyncio.Event().wait()

    async def scenario() -> None:
        async with nats.bus() as bus:
            settings = Settings(home=tmp_path)
            backend = Remembering((LIVE, replace(LIVE, run_id="t-1", strategy_id="t")))
            monitor = Monitor(backend.stop)
            reports = Silent(settings, bus, KEY, monitor)
            environments = supplied(tmp_path, bus)
            supervisor = Supervisor(settings, bus, backend, environments, reports, monitor)
            async with supervisor.running(), asyncio.timeout(20):
                for number, run in enumerate(("s", "t"), 1):
                    backend.happened.put_nowait(
                        replace(
                            crashed(),
                            number=number,
                            run_id=f"{run}-1",
                            strategy_id=run,
                            state=RunState.RUNNING,
                            process=Process(7, datetime.now(UTC)),
                        )
                    )
                while len(monitor.runs) < 2:
                    await asyncio.sleep(0.01)

    asyncio.run(scenario())


def test_what_an_adopted_run_hides_is_asked_for_while_it_lives(
    nats: NatsServer, tmp_path: Path
) -> None:
    """At its end whoever has it may be away, and its last lines were withheld for good."""

    async def scenario() -> None:
        async with nats.bus() as bus:
            asked = await api(bus)
            supervisor, reports = supervised(tmp_path, bus, Remembering((LIVE,)))
            async with supervisor.running(), asyncio.timeout(20):
                while "s-1" not in reports._masks:  # pyright: ignore[reportPrivateUsage]
                    await asyncio.sleep(0.01)
            assert asked == ["s-1"]

    asyncio.run(scenario())


def test_a_log_that_cannot_be_read_keeps_no_end_from_being_told(
    nats: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> tuple[str, ...]:
        raise OSError(5, "Input/output error")

    async def scenario() -> None:
        async with nats.bus() as bus:
            await api(bus)
            backend = Remembering((LIVE,))
            monkeypatch.setattr(module.logs, "last_lines", broken)
            backend.happened.put_nowait(crashed())
            async with supervised(tmp_path, bus, backend)[0].running():
                told = await until_told(bus, backend)
            assert (told.reason, told.last_lines) == (ExitReason.CRASHED, ())

    asyncio.run(scenario())


def test_a_start_whose_python_is_gone_says_which_there_are(
    nats: NatsServer, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with nats.bus() as bus:
            await api(bus)
            body = b"print(1)"
            digest = hashlib.sha256(body).hexdigest()
            await bus.put_artifact(digest, body)
            supervisor, _ = supervised(tmp_path, bus, Remembering(()))
            async with supervisor.running(), asyncio.timeout(20):
                start = {"sha256": digest, "lock_sha256": SOURCE, "python": "3.99"}
                await supervisor.start(START.model_copy(update=start))
                while not (told := await reports(bus)):
                    await asyncio.sleep(0.01)
            assert told[0].reason is ExitReason.START_FAILED
            detail = told[0].detail or ""
            assert "the environment could not be built: there is no Python 3.99 here" in detail

    asyncio.run(scenario())


def test_memory_is_expected_of_what_lives_and_of_what_is_prepared(
    nats: NatsServer, tmp_path: Path
) -> None:
    """Nobody answers for the variables: it is prepared until it is stopped."""
    note = Note(expected_memory_bytes=90, expected_as_seen=True)
    live = replace(LIVE, run_id="t-4", strategy_id="t", note=note.model_dump_json())

    async def scenario() -> None:
        async with nats.bus() as bus:
            supervisor, _ = supervised(tmp_path, bus, Remembering((live,)))
            async with supervisor.running(), asyncio.timeout(20):
                await supervisor.ready.wait()
                assert supervisor.expected_memory() == {"t-4": (90, True)}
                await supervisor.start(START.model_copy(update={"expected_memory_bytes": 64}))
                assert supervisor.expected_memory() == {"t-4": (90, True), "s-1": (64, False)}
                await supervisor.stop(
                    StopRun(
                        run_id="s-1",
                        strategy_id="s",
                        epoch=1,
                        reason=ExitReason.STOPPED_BY_USER,
                        ladder=START.ladder,
                    )
                )
                assert supervisor.expected_memory() == {"t-4": (90, True)}

    asyncio.run(scenario())


def test_what_live_runs_run_in_is_in_use_and_unknown_until_it_is_known_of_all(
    nats: NatsServer, tmp_path: Path
) -> None:
    noted = replace(LIVE, note=Note(environment="0123456789abcdef").model_dump_json())

    async def in_use(*live: RunHandle) -> frozenset[str] | None:
        async with nats.bus() as bus:
            supervisor, _ = supervised(tmp_path, bus, Remembering(live))
            assert supervisor.environments_in_use() is None
            async with supervisor.running(), asyncio.timeout(20):
                await supervisor.ready.wait()
                return supervisor.environments_in_use()

    async def scenario() -> None:
        assert await in_use() == frozenset()
        assert await in_use(noted) == {"0123456789abcdef"}
        of_another_release = replace(LIVE, run_id="t-1", strategy_id="t")
        assert await in_use(noted, of_another_release) is None

    asyncio.run(scenario())
