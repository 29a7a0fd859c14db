"""What a service may do on NATS, and above all what it may not: tried with its own credential."""

import asyncio
import base64
import contextlib
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nats as nats_client
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import TimeoutError as NatsTimeoutError

from openbell import permissions
from openbell.bus import ARTIFACTS_STREAM, EVENTS, PRESENCE_STREAM, RUNNERS, Bus, presence
from openbell.contracts.base import Done
from openbell.contracts.commands import (
    GetRunEnvironment,
    ListSessions,
    PublishArtifact,
    RunEnvironment,
    Sessions,
    Standing,
    StartRun,
    StartStrategy,
    StopRun,
)
from openbell.contracts.errors import RunnerRefused, ServiceUnavailable
from openbell.contracts.events import RunnerCameUp, StrategyDeleted
from openbell.contracts.logs import LogLines, ReadLog
from openbell.contracts.model import ExitReason, Intent, RunnerInfo
from openbell.contracts.schema import command_types
from openbell.feed import Feed
from tests.fixtures.nats import NatsServer
from tests.fixtures.stack import start_five_processes

NOW = datetime(2026, 8, 3, 3, 45, tzinfo=UTC)
EVENT = StrategyDeleted(owner="alice", strategy_id="s1", at=NOW)
LINES = LogLines(
    runner="box-1",
    owner="alice",
    strategy_id="s1",
    run_id="s1-1",
    offset=0,
    next_offset=3,
    generation=0,
    data=base64.b64encode(b"up\n"),
)
FORGED_EVENT = "openbell.v1.event.alice.s1.run_exited"
USERS = ["api", "scheduler", "calendar", "status", "runner-box-1"]
STREAMS = [EVENTS, RUNNERS, PRESENCE_STREAM, ARTIFACTS_STREAM]
ADMINISTRATION = [
    "$JS.API.INFO",
    "$JS.API.STREAM.NAMES",
    "$JS.API.STREAM.LIST",
    "$JS.API.STREAM.CREATE.MINE",
    *(f"$JS.API.STREAM.DELETE.{stream}" for stream in STREAMS),
    *(f"$JS.API.STREAM.MSG.DELETE.{stream}" for stream in STREAMS),
    *(f"$JS.API.STREAM.SNAPSHOT.{stream}" for stream in STREAMS),
    *(f"$JS.API.CONSUMER.CREATE.{stream}" for stream in STREAMS),
    *(f"$JS.API.CONSUMER.CREATE.{stream}.c" for stream in STREAMS),
    *(f"$JS.API.CONSUMER.DURABLE.CREATE.{stream}.c" for stream in STREAMS),
    *(f"$JS.API.CONSUMER.MSG.NEXT.{stream}.c" for stream in STREAMS),
    "$SYS.REQ.USER.INFO",
    "$SYS.REQ.SERVER.PING",
]
SECRET = base64.b64encode(b"secret")
MEANT_FOR_ALL = "openbell.v1.>"


class Intruder:
    """A user's credential in the hands of somebody who knows NATS."""

    def __init__(self) -> None:
        self.refusals: list[str] = []
        self.client = Client()

    async def _failed(self, error: Exception) -> None:
        self.refusals.append(str(error))

    @contextlib.asynccontextmanager
    async def connected(self, nats: NatsServer, user: str) -> AsyncGenerator["Intruder"]:
        self.client = await nats_client.connect(
            nats.url, user=user, password=nats.passwords[user], error_cb=self._failed
        )
        try:
            yield self
        finally:
            await self.client.close()

    async def _told(self) -> None:
        """What was sent has been answered: the client's first ping may go ahead of it."""
        await self.client.flush()
        await self.client.flush()

    async def publishes(self, subject: str, payload: bytes = b"{}", reply: str = "") -> bool:
        """Whether nats-server takes it: a refusal comes before the answer to the flush."""
        before = len(self.refusals)
        await self.client.publish(subject, payload, reply=reply)
        await self._told()
        return len(self.refusals) == before

    async def subscribes(self, subject: str, queue: str = "") -> bool:
        before = len(self.refusals)
        await self.client.subscribe(subject, queue=queue)
        await self._told()
        return len(self.refusals) == before


class Witness:
    """Hears everything that its account hears."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    async def _hear(self, message: Msg) -> None:
        self.heard.append(message.subject)

    @contextlib.asynccontextmanager
    async def listening(
        self, nats: NatsServer, user: str, subjects: Sequence[str]
    ) -> AsyncGenerator["Witness"]:
        client = await nats_client.connect(nats.url, user=user, password=nats.passwords[user])
        try:
            for subject in subjects:
                await client.subscribe(subject, cb=self._hear)
            await client.flush()
            yield self
        finally:
            await client.close()


@contextlib.asynccontextmanager
async def victims(nats: NatsServer) -> AsyncGenerator[tuple[Bus, Witness]]:
    """The services' account as one who sees all of it, and another runner."""
    commands = [kind.subject("box-2") for kind in (StartRun, StopRun, ReadLog)]
    async with (
        nats.bus() as bus,
        Witness().listening(nats, "runner-box-2", commands) as other,
        Witness().listening(nats, "root", [MEANT_FOR_ALL, "$KV.>", "$O.>"]) as all_others,
    ):
        other.heard = all_others.heard
        yield bus, other


def concrete(pattern: str) -> str:
    return pattern.replace("*", "x").replace(">", "x")


def commands_to(service: str, target: str | None = None) -> list[str]:
    return [kind.subject(target) for kind in command_types() if kind.service == service]


RUNNER_MAY_NOT = [
    FORGED_EVENT,
    "openbell.v1.runner.box-2.event.run_reported",
    f"openbell.v1.stored.{EVENTS}.{FORGED_EVENT}",
    f"openbell.v1.stored.{RUNNERS}.openbell.v1.runner.box-2.event.run_reported",
    "openbell.v1.log.box-2.alice.s1.s1-1",
    presence("box-2"),
    *commands_to("runner", "box-2"),
    *commands_to("runner", "box-1"),
    *commands_to("scheduler"),
    *commands_to("calendar"),
    GetRunEnvironment.subject("box-2"),
    "$O.openbell_artifacts.M.x",
    "$O.openbell_artifacts.C.x",
    *(f"$JS.API.STREAM.INFO.{stream}" for stream in STREAMS),
    *(f"$JS.API.STREAM.PURGE.{stream}" for stream in STREAMS),
    *(f"$JS.API.STREAM.UPDATE.{stream}" for stream in STREAMS),
    *(f"$JS.API.STREAM.MSG.GET.{stream}" for stream in STREAMS),
    *(f"$JS.API.DIRECT.GET.{stream}" for stream in STREAMS if stream != ARTIFACTS_STREAM),
    f"$JS.API.DIRECT.GET.{EVENTS}.{FORGED_EVENT}",
    f"$JS.API.DIRECT.GET.{PRESENCE_STREAM}.{presence('box-2')}",
    *ADMINISTRATION,
]
NOBODY_HEARS = [
    ">",
    "openbell.>",
    MEANT_FOR_ALL,
    "openbell.v1.event.>",
    "openbell.v1.log.>",
    "_INBOX.>",
    "_INBOX_api.>",
    "_INBOX_runner-box-2.>",
    "_R_.>",
    "*.>",
    "$JS.>",
    "$O.>",
    *(kind.subject("box-2") for kind in (StartRun, StopRun, ReadLog)),
]


def test_a_runner_forges_nothing_and_commands_nobody(nats: NatsServer) -> None:
    async def scenario() -> None:
        async with (
            victims(nats) as (bus, witness),
            Intruder().connected(nats, "runner-box-1") as intruder,
        ):
            accepted = [s for s in RUNNER_MAY_NOT if await intruder.publishes(s)]
            assert accepted == []
            assert (await bus.stream_state(EVENTS)).last == 0
            assert (await bus.stream_state(RUNNERS)).last == 0
            assert witness.heard == []

    asyncio.run(scenario())


def test_a_runner_hears_nothing_of_others(nats: NatsServer) -> None:
    hidden = [
        *NOBODY_HEARS,
        "openbell.v1.stored.>",
        f"openbell.v1.stored.{EVENTS}.>",
        f"openbell.v1.stored.{RUNNERS}.>",
        "$KV.>",
        presence("box-2"),
        *commands_to("api"),
    ]

    async def scenario() -> None:
        async with Intruder().connected(nats, "runner-box-1") as intruder:
            accepted = [s for s in hidden if await intruder.subscribes(s)]
            assert accepted == []
            assert not await intruder.subscribes(ReadLog.subject("box-2"), queue="runner")

    asyncio.run(scenario())


@pytest.mark.parametrize("lure", [FORGED_EVENT, StartRun.subject("box-2"), presence("box-2")])
def test_a_runner_has_nobody_forge_for_it(nats: NatsServer, lure: str) -> None:
    """Whoever answers, nats-server included, sends to where the asker wants the answer."""
    whatever = b'{"seq":1}'

    async def answer(_: Any) -> Done:
        return Done()

    async def environment(_: GetRunEnvironment) -> RunEnvironment:
        return RunEnvironment(sealed=SECRET)

    async def scenario() -> None:
        async with (
            victims(nats) as (bus, witness),
            Intruder().connected(nats, "runner-box-1") as intruder,
        ):
            await bus.answer(PublishArtifact, answer)
            await bus.answer(GetRunEnvironment, environment)
            for subject in permissions.rights("runner", "box-1").publish:
                await intruder.publishes(concrete(subject), whatever, lure)
            await bus.stream_state(EVENTS)
            await asyncio.sleep(0.2)  # there is no event that tells that nothing comes
            assert lure not in witness.heard
            assert (await bus.stream_state(EVENTS)).last == 0
            assert (await bus.stream_state(RUNNERS)).last == 1  # its own report came through

    asyncio.run(scenario())


def test_a_runner_gets_no_secret_of_anothers_run(nats: NatsServer) -> None:
    """The subject says who asks, so that api can tell whose runs it may know."""
    asked: list[str] = []

    async def environment(command: GetRunEnvironment) -> RunEnvironment:
        asked.append(command.runner)
        return RunEnvironment(sealed=SECRET)

    def ask(runner: str) -> GetRunEnvironment:
        return GetRunEnvironment(runner=runner, run_id="s-1", epoch=1)

    async def scenario() -> None:
        async with nats.bus_of("api") as api, nats.bus_of("runner-box-1") as runner:
            await api.answer(GetRunEnvironment, environment)
            with pytest.raises(ServiceUnavailable):
                await runner.request(ask("box-2"), timeout_s=0.3)
            assert await runner.request(ask("box-1")) == RunEnvironment(sealed=SECRET)
            assert asked == ["box-1"]
        async with (
            nats.bus_of("api") as api,
            Intruder().connected(nats, "runner-box-1") as intruder,
        ):
            await api.answer(GetRunEnvironment, environment)
            subject, forged = GetRunEnvironment.subject("box-1"), ask("box-2").encode()
            with contextlib.suppress(NatsTimeoutError):
                await intruder.client.request(subject, forged, timeout=0.3)
            assert asked == ["box-1"]

    asyncio.run(scenario())


def test_one_runners_farewell_is_its_own(nats: NatsServer) -> None:
    """A header that replaces all that a stream keeps is not for runners."""

    async def scenario() -> None:
        async with (
            nats.bus() as bus,
            nats.bus_of("runner-box-2") as other,
            Intruder().connected(nats, "runner-box-1") as intruder,
        ):
            await other.announce(an_info("box-2"))
            for header in ("all", "sub"):
                await intruder.client.publish(
                    presence("box-1"), b"{}", headers={"Nats-Rollup": header}
                )
            await intruder.client.flush()
            assert await bus.runner("box-2") is not None

    asyncio.run(scenario())


def test_no_runner_uses_up_the_id_of_anothers_report(nats: NatsServer) -> None:
    """A stream keeps one id once; a report that it takes for a repeated one would be lost."""

    async def scenario() -> None:
        async with (
            nats.bus() as bus,
            nats.bus_of("runner-box-2") as other,
            Intruder().connected(nats, "runner-box-1") as intruder,
        ):
            own = RunnerCameUp(runner="box-1", at=NOW, run_ids=()).subject
            headers = {"Nats-Msg-Id": "s-1-exited"}
            await intruder.client.publish(own, b"{}", headers=headers)
            await intruder.client.flush()
            for _ in range(2):
                report = RunnerCameUp(runner="box-2", at=NOW, run_ids=())
                await other.report(report, "s-1-exited")
            assert (await bus.stream_state(RUNNERS)).last == 2

    asyncio.run(scenario())


@pytest.mark.parametrize("user", USERS)
def test_nobody_may_what_only_others_do(nats: NatsServer, user: str) -> None:
    """Each user tries all that any other may publish, and what nobody may."""
    own = set(rights_of(user).publish)
    others = {s for other in [*USERS, "runner-box-2"] for s in rights_of(other).publish} - own
    if user in {"api", "scheduler"}:  # to every runner
        others -= {s for s in others if any(s.startswith(o.removesuffix("*")) for o in own)}

    async def scenario() -> None:
        async with (
            victims(nats) as (bus, witness),
            Intruder().connected(nats, user) as intruder,
        ):
            tried = sorted(others | set(ADMINISTRATION))
            accepted = [s for s in tried if await intruder.publishes(concrete(s))]
            assert accepted == []
            assert (await bus.stream_state(EVENTS)).last == 0
            assert witness.heard == []
            hidden = [s for s in NOBODY_HEARS if s not in rights_of(user).subscribe]
            accepted = [s for s in hidden if await intruder.subscribes(s)]
            assert accepted == []

    asyncio.run(scenario())


def test_the_calendar_can_but_answer(nats: NatsServer) -> None:
    asked: list[str] = []

    async def answer(_: ListSessions) -> Sessions:
        asked.append("sessions")
        today = NOW.date()
        return Sessions(
            segment="NSE", timezone="UTC", covered_from=today, covered_until=today, sessions=()
        )

    async def scenario() -> None:
        async with nats.bus_of("calendar") as calendar, nats.bus_of("scheduler") as scheduler:
            await calendar.answer(ListSessions, answer)
            ask = ListSessions(segment="NSE", first=NOW.date(), last=NOW.date())
            assert (await scheduler.request(ask)).timezone == "UTC"
            with pytest.raises(ServiceUnavailable):
                await calendar.request(ask, timeout_s=0.3)
        assert asked == ["sessions"]

    asyncio.run(scenario())


def rights_of(user: str) -> permissions.Rights:
    service, _, runner = user.partition("-")
    return permissions.rights(service, runner)


def an_info(runner: str) -> RunnerInfo:
    return RunnerInfo(
        runner=runner, platform="linux", python="3.11", at=datetime.now(UTC), capabilities={}
    )


# ---- and what it may


def test_everybody_can_do_its_work(nats: NatsServer) -> None:
    """All that services do with a bus, each with its own rights, and nothing is refused."""
    present: list[str] = []

    async def standing(command: StartStrategy) -> Standing:
        return Standing(strategy_id=command.strategy_id, intent=Intent.RUN)

    async def stop(_: StopRun) -> Done:
        raise RunnerRefused("heard")

    async def publish(_: PublishArtifact) -> Done:
        return Done()

    async def scenario() -> None:
        async with (
            nats.bus_of("scheduler") as scheduler,
            nats.bus_of("api") as api,
            nats.bus_of("status") as status,
            nats.bus_of("runner-box-1") as runner,
        ):
            for _ in range(2):
                await scheduler.ensure_stores(nats.settings)
            for service, bus in {"api": api, "status": status, "runner": runner}.items():
                for stream in permissions.READS[service]:
                    await bus.wait_for(stream)

            assert await runner.runner("box-1") is None
            await scheduler.on_presence(lambda name, info: present.append(f"{name} {bool(info)}"))
            await runner.announce(an_info("box-1"))
            assert await runner.runner("box-1") == await api.runner("box-1") is not None
            await scheduler.on_presence(lambda name, _: present.append(name))
            await runner.withdraw("box-1")

            for body in (b"print(1)\n", bytes(300_000)):
                await api.put_artifact("sha", body)
                assert await runner.get_artifact("sha") == body

            await runner.report(RunnerCameUp(runner="box-1", at=NOW, run_ids=()), "up")
            assert (
                await first_of(scheduler, RUNNERS)
                == RunnerCameUp(runner="box-1", at=NOW, run_ids=()).encode()
            )
            await api.store(EVENT.subject, EVENT.encode(), "1")
            await scheduler.store(EVENT.subject, EVENT.encode(), "2")
            assert await first_of(status, EVENTS) == EVENT.encode()
            async with api.listening(EVENTS, lambda _: None):
                await api.answer(PublishArtifact, publish)

            await scheduler.answer(StartStrategy, standing)
            assert (await api.request(StartStrategy(strategy_id="s"))).strategy_id == "s"
            await runner.answer(StopRun, stop, "box-1")
            ask = StopRun(
                run_id="s-1", strategy_id="s", epoch=1, reason=ExitReason.FENCED, ladder=()
            )
            with pytest.raises(RunnerRefused, match="heard"):
                await scheduler.request(ask, "box-1")
            with pytest.raises(ServiceUnavailable, match="no runner is connected"):
                await scheduler.request(ask, "box-2")
            assert await runner.request(PublishArtifact(sha256="x")) == Done()

            heard: asyncio.Queue[LogLines | None] = asyncio.Queue()
            async with api.hearing_lines(LINES.subject, heard.put_nowait), asyncio.timeout(5):
                await runner.tell_lines(LINES)
                assert await heard.get() == LINES

    asyncio.run(scenario())
    assert set(present) >= {"box-1", "box-1 True", "box-1 False"}
    assert "Violation" not in nats.log()


async def first_of(bus: Bus, stream: str) -> bytes:
    async for batch in Feed(bus, stream, 0).batches():
        return batch[0].payload
    raise AssertionError("a feed does not end")


def test_five_processes_are_refused_nothing(home: Path) -> None:
    stack = start_five_processes(home)
    strategy = stack.upload("import time\nprint('up')\ntime.sleep(60)\n", "endless")
    stack.post(f"/python/start/{strategy}")
    stack.wait_log(strategy, "up")
    stack.post(f"/python/stop/{strategy}")
    stack.wait_status(strategy, "stopped")
    weekdays = {"kind": "market", "exchange": "NSE", "start": "09:15", "stop": "15:30"}
    stack.post(f"/python/schedule/{strategy}", json=weekdays)
    assert stack.stop() == [0, 0, 0, 0, 0, 0]
    logs = [home / "nats" / "nats.log", *home.glob("*.stderr")]
    assert len(logs) > 5
    for log in logs:
        assert "violation" not in log.read_text().lower(), log


def test_services_may_start_in_any_order(nats: NatsServer) -> None:
    """Whoever reads a stream waits for it."""

    async def scenario() -> None:
        async with nats.bus_of("status") as status, nats.bus_of("scheduler") as scheduler:
            waiting = asyncio.create_task(status.wait_for(EVENTS))
            await asyncio.sleep(0.3)
            assert not waiting.done()
            await scheduler.ensure_stores(nats.settings)
            async with asyncio.timeout(5):
                await waiting

    asyncio.run(scenario())


def test_a_service_says_that_its_streams_do_not_come(
    nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openbell.bus.STORES_S", 0.3)

    async def scenario() -> None:
        async with nats.bus_of("status") as status:
            with pytest.raises(ServiceUnavailable, match="does a scheduler run"):
                await status.wait_for(EVENTS)

    asyncio.run(scenario())
