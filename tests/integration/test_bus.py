"""The bus and the feed, against a real nats-server."""

import asyncio
import base64
import contextlib
import hashlib
import os
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any, cast

import pytest
from nats.aio.msg import Msg
from nats.errors import NoRespondersError
from nats.js.api import KeyValueConfig
from pydantic import SecretStr

from openbell import feed
from openbell.bus import EVENTS, PRESENCE, RUNNERS, Bus, Stored, connected
from openbell.contracts.base import ROOT, Done, Event, utc_now
from openbell.contracts.commands import (
    GetRunEnvironment,
    ListSessions,
    PublishArtifact,
    RunEnvironment,
    Standing,
    StartStrategy,
    StopRun,
    StopStrategy,
)
from openbell.contracts.errors import (
    InvalidRequest,
    OpenbellError,
    RunnerRefused,
    ServiceUnavailable,
)
from openbell.contracts.events import RunnerCameUp, StrategyDeleted
from openbell.contracts.logs import ReadLog
from openbell.contracts.model import ExitReason, Intent, RunnerInfo
from openbell.feed import Feed
from openbell.settings import NatsSettings
from tests.fixtures.nats import NatsServer

NOW = datetime(2026, 8, 3, 3, 45, tzinfo=UTC)
PATIENCE_S = 20
DONE = PublishArtifact(sha256="x")


def patiently() -> AbstractAsyncContextManager[Any]:
    return asyncio.timeout(PATIENCE_S)


async def answering(bus: Bus, kind: Any, handler: Any, target: str | None = None) -> None:
    """Return once the server knows of it: what this connection sent before its question."""
    await bus.answer(kind, handler, target)
    await bus.stream_state(EVENTS)


def told(number: int, owner: str = "local") -> Event:
    return StrategyDeleted(owner=owner, strategy_id=f"s{number}", at=NOW)


async def store(bus: Bus, numbers: Sequence[int], owner: str = "local") -> None:
    """One after the other."""
    for number in numbers:
        event = told(number, owner)
        await bus.store(event.subject, event.encode(), f"{owner}-{number}")


async def store_until_kept(bus: Bus, numbers: Sequence[int]) -> None:
    for number in numbers:
        async with patiently():
            while True:
                try:
                    await store(bus, [number])
                    break
                except ServiceUnavailable:
                    await asyncio.sleep(0.02)


# ---- requests


@pytest.mark.parametrize(
    "error",
    [
        InvalidRequest("name: too long", errors=[{"field": "name", "message": "too long"}]),
        RunnerRefused("epoch 3 is over"),
        RunnerRefused(),
        ServiceUnavailable("the database is away"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_crosses_the_bus_as_itself(nats: NatsServer, error: OpenbellError) -> None:
    async def refuse(_: StartStrategy) -> Any:
        raise error

    async def scenario() -> None:
        async with nats.bus("scheduler") as there, nats.bus("api") as here:
            await answering(there, StartStrategy, refuse)
            with pytest.raises(type(error)) as caught:
                await here.request(StartStrategy(strategy_id="s"))
            assert type(caught.value) is type(error)
            assert caught.value.problem() == error.problem()

    asyncio.run(scenario())


def test_an_answer_has_the_type_that_its_command_names(nats: NatsServer) -> None:
    async def answer(command: GetRunEnvironment) -> RunEnvironment:
        return RunEnvironment(sealed=base64.b64encode(f"{command.run_id} नमस्ते\n".encode()))

    async def scenario() -> RunEnvironment:
        async with nats.bus("api") as there, nats.bus("runner") as here:
            await answering(there, GetRunEnvironment, answer)
            return await here.request(GetRunEnvironment(runner="host-1", run_id="r1", epoch=1))

    assert asyncio.run(scenario()).sealed.decode() == "r1 नमस्ते\n"


def test_nobody_there_is_said_at_once(nats: NatsServer) -> None:
    async def scenario() -> None:
        async with nats.bus() as bus, asyncio.timeout(1):
            with pytest.raises(ServiceUnavailable, match="no calendar is connected"):
                await bus.request(
                    ListSessions(segment="NSE", first=date.min, last=date.max), timeout_s=30
                )

    asyncio.run(scenario())


def test_a_slow_answer_is_not_waited_for_for_ever(nats: NatsServer) -> None:
    finished: list[str] = []

    async def slow(command: StopStrategy) -> Any:
        await asyncio.sleep(0.3)
        finished.append(command.strategy_id)
        raise RunnerRefused("too late to be heard")

    async def scenario() -> None:
        async with nats.bus() as bus:
            await answering(bus, StopStrategy, slow)
            with pytest.raises(ServiceUnavailable, match=r"did not answer within 0\.1 s"):
                await bus.request(StopStrategy(strategy_id="s1"), timeout_s=0.1)
        assert finished == ["s1"]  # closing waits for what was taken

    asyncio.run(scenario())


def test_a_defect_is_a_500_and_tells_no_secret(nats: NatsServer) -> None:
    async def defect(_: StartStrategy) -> Any:
        raise ValueError("postgresql://openbell:s3cret@db/openbell")

    async def scenario() -> OpenbellError:
        async with nats.bus() as bus:
            await answering(bus, StartStrategy, defect)
            with pytest.raises(OpenbellError) as caught:
                await bus.request(StartStrategy(strategy_id="s"))
            return caught.value

    error = asyncio.run(scenario())
    assert type(error) is OpenbellError
    assert error.status == 500
    assert "s3cret" not in error.problem().model_dump_json()


def test_a_message_that_is_no_command_is_refused_and_the_next_is_answered(
    nats: NatsServer,
) -> None:
    async def answer(_: PublishArtifact) -> Done:
        return Done()

    class Nonsense(PublishArtifact):
        @classmethod
        def subject(cls, target: str | None = None) -> str:
            return PublishArtifact.subject(target)

        def encode(self) -> bytes:
            return b"\xff{not json"

    async def scenario() -> None:
        async with nats.bus() as bus:
            await answering(bus, PublishArtifact, answer)
            with pytest.raises(OpenbellError) as caught:
                await bus.request(Nonsense(sha256="x"))
            assert type(caught.value) is OpenbellError
            assert await bus.request(DONE) == Done()

    asyncio.run(scenario())


def test_an_answer_too_large_for_the_bus_is_an_error_and_not_silence(nats: NatsServer) -> None:
    async def answer(_: GetRunEnvironment) -> RunEnvironment:
        return RunEnvironment(sealed=base64.b64encode(bytes(1024**2)))

    async def scenario() -> None:
        async with nats.bus() as bus:
            await answering(bus, GetRunEnvironment, answer)
            ask = GetRunEnvironment(runner="host-1", run_id="r1", epoch=1)
            with pytest.raises(OpenbellError) as caught:
                await bus.request(ask, timeout_s=0.5)
            assert "did not answer" not in caught.value.detail

    asyncio.run(scenario())


def test_a_request_too_large_for_the_bus_is_an_error(nats: NatsServer) -> None:
    async def scenario() -> None:
        async with nats.bus() as bus:
            with pytest.raises(ServiceUnavailable):
                await bus.request(PublishArtifact(sha256="x" * 2 * 1024**2))

    asyncio.run(scenario())


def test_one_slow_request_holds_up_no_other(nats: NatsServer) -> None:
    """Each handler waits until all have begun: one at a time would wait for ever."""
    several = 20

    async def scenario() -> None:
        all_there = asyncio.Barrier(several)

        async def answer(_: PublishArtifact) -> Done:
            await all_there.wait()
            return Done()

        async with nats.bus("api") as there, nats.bus("runner") as here:
            await answering(there, PublishArtifact, answer)
            await asyncio.gather(*(here.request(DONE) for _ in range(several)))

    asyncio.run(scenario())


def test_one_of_two_replicas_answers(nats: NatsServer) -> None:
    answered: list[str] = []

    def by(name: str) -> Callable[[PublishArtifact], Any]:
        async def answer(_: PublishArtifact) -> Done:
            answered.append(name)
            return Done()

        return answer

    async def scenario() -> None:
        async with nats.bus("one") as one, nats.bus("two") as two, nats.bus() as here:
            await answering(one, PublishArtifact, by("one"))
            await answering(two, PublishArtifact, by("two"))
            await asyncio.gather(*(here.request(DONE) for _ in range(60)))

    asyncio.run(scenario())
    assert len(answered) == 60
    assert set(answered) == {"one", "two"}


def test_a_command_reaches_the_runner_that_it_names(nats: NatsServer) -> None:
    read = ReadLog(strategy_id="s", run_id="r")

    async def scenario() -> None:
        async with nats.bus("a") as a, nats.bus("b") as b, nats.bus() as here:
            for bus, name in ((a, "host-a"), (b, "host-b")):

                async def answer(_: ReadLog, name: str = name) -> Any:
                    raise RunnerRefused(name)

                await answering(bus, ReadLog, answer, name)
            for name in ("host-a", "host-b"):
                with pytest.raises(RunnerRefused, match=name):
                    await here.request(read, name)
            with pytest.raises(ServiceUnavailable, match="no runner is connected"):
                await here.request(read, "host-c")

    asyncio.run(scenario())


@pytest.mark.usefixtures("in_a_hurry")
def test_a_stranger_is_not_let_in(nats: NatsServer) -> None:
    async def scenario() -> None:
        settings = NatsSettings(url=nats.url, password=SecretStr("wrong"))
        with pytest.raises(ServiceUnavailable, match="no NATS server"):
            async with asyncio.timeout(5), connected(settings, "scheduler"):
                pass

    asyncio.run(scenario())


@pytest.mark.usefixtures("in_a_hurry")
def test_no_server_at_first_is_said(nats: NatsServer) -> None:
    nats.kill()

    async def scenario() -> None:
        with pytest.raises(ServiceUnavailable, match="no NATS server"):
            async with asyncio.timeout(5), nats.bus():
                pass

    asyncio.run(scenario())


@pytest.mark.usefixtures("in_a_hurry")
def test_a_service_ends_cleanly_though_nats_is_away(nats: NatsServer) -> None:
    async def scenario() -> None:
        async with nats.bus() as bus:
            nats.kill()
            await asyncio.sleep(0.05)  # until it has noticed
            with pytest.raises(ServiceUnavailable):
                await bus.announce(info("host-1"))

    asyncio.run(scenario())


# ---- streams


def test_one_id_is_kept_once(nats: NatsServer) -> None:
    async def scenario() -> None:
        async with nats.bus("one") as one, nats.bus("two") as two:
            await asyncio.gather(*(store(bus, [1]) for bus in (one, two) for _ in range(10)))
            assert (await one.stream_state(EVENTS)).last == 1
            await store(two, [2])
            assert (await one.stream_state(EVENTS)).last == 2
            kept = await one.next_stored(EVENTS, 0)
            assert kept == Stored(1, told(1).subject, told(1).encode())

    asyncio.run(scenario())


def test_streams_are_read_by_number_and_by_owner(nats: NatsServer) -> None:
    async def scenario() -> None:
        async with nats.bus() as bus:
            assert await bus.next_stored(EVENTS, 0) is None
            await store(bus, [1, 2], "alice")
            await store(bus, [3], "bob")
            await store(bus, [4], "alice")
            found = await bus.next_stored(EVENTS, 0, Event.subjects("bob"))
            assert found is not None
            assert found.sequence == 3
            assert await bus.next_stored(EVENTS, 3, Event.subjects("bob")) is None
            assert await bus.next_stored(EVENTS, 4) is None
            assert await bus.next_stored(EVENTS, 0, Event.subjects("alic")) is None

    asyncio.run(scenario())


def test_runners_and_events_have_streams_of_their_own(nats: NatsServer) -> None:
    async def scenario() -> None:
        async with nats.bus() as bus:
            await store(bus, [1])
            await bus.report(RunnerCameUp(runner="host-1", at=NOW, run_ids=()), "up")
            assert (await bus.stream_state(EVENTS)).last == 1
            kept = await bus.next_stored(RUNNERS, 0)
            assert kept is not None
            assert kept.subject == f"{ROOT}.runner.host-1.event.runner_came_up"
            with pytest.raises(ServiceUnavailable, match="did not confirm"):
                await bus.store(f"{ROOT}.nowhere", b"", "x")

    asyncio.run(scenario())


@pytest.mark.usefixtures("in_a_hurry")
def test_kill_9_of_nats_loses_nothing_that_was_confirmed(nats: NatsServer) -> None:
    async def scenario() -> None:
        async with nats.bus() as bus:
            await store(bus, range(1, 21))
            before = await bus.stream_state(EVENTS)
            nats.kill()
            with pytest.raises(ServiceUnavailable):
                await bus.stream_state(EVENTS)
            nats.start_again()
            async with patiently():
                await store_until_kept(bus, [20, 21])  # 20 is known
            after = await bus.stream_state(EVENTS)
        assert (after.incarnation, after.first, after.last) == (before.incarnation, 1, 21)

    asyncio.run(scenario())


# ---- the feed


@asynccontextmanager
async def following(bus: Bus, after: int = 0) -> AsyncGenerator["Follower"]:
    follower = Follower(bus, after)
    follower.task = task = asyncio.create_task(follower.follow())
    try:
        yield follower
    finally:
        while not task.done():  # the first one may be swallowed: see the test of just that
            task.cancel()
            await asyncio.wait({task}, timeout=0.05)
        if not task.cancelled():
            task.result()


class Follower:
    """What a feed has given."""

    def __init__(self, bus: Bus, after: int) -> None:
        self.taken: list[int] = []
        self.subjects: list[str] = []
        self.caught_up = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self._feed = Feed(bus, EVENTS, after, self.caught_up)
        self._more = asyncio.Event()

    async def follow(self) -> None:
        async for batch in self._feed.batches():
            await asyncio.sleep(0)  # a consumer takes its time
            self.taken += [message.sequence for message in batch]
            self.subjects += [message.subject for message in batch]
            assert len(batch) <= feed.MOST
            self._more.set()

    async def until(self, last: int) -> list[int]:
        async with patiently():
            while not self.taken or self.taken[-1] < last:
                self._more.clear()
                await self._more.wait()
        return self.taken

    async def ends(self) -> bool:
        """Whether one cancellation ends it."""
        assert self.task is not None
        self.task.cancel()
        await asyncio.wait({self.task}, timeout=0.3)
        return self.task.done()

    async def until_caught_up(self) -> list[int]:
        async with patiently():
            await self.caught_up.wait()
        return list(self.taken)


@pytest.mark.parametrize("after", [0, 3, 9, 10])
def test_a_feed_begins_after_any_number(nats: NatsServer, after: int) -> None:
    async def scenario() -> None:
        async with nats.bus() as bus:
            await store(bus, range(1, 11))
            async with following(bus, after) as follower:
                assert await follower.until_caught_up() == list(range(after + 1, 11))
                await store(bus, [11, 12])
                assert await follower.until(12) == list(range(after + 1, 13))

    asyncio.run(scenario())


def test_a_feed_takes_more_than_one_batch_in_order(nats: NatsServer) -> None:
    several = 2 * feed.MOST + 10

    async def scenario() -> None:
        async with nats.bus() as bus:
            await asyncio.gather(*(store(bus, [n]) for n in range(1, several)))
            async with following(bus) as follower:
                publishing = asyncio.create_task(store(bus, range(several, several + 50)))
                taken = await follower.until(several + 49)
                await publishing
            assert taken == list(range(1, several + 50))

    asyncio.run(scenario())


@pytest.mark.parametrize("several", [0, 1, feed.MOST, feed.MOST + 1])
def test_caught_up_is_said_once_all_was_taken(nats: NatsServer, several: int) -> None:
    async def scenario() -> None:
        async with nats.bus() as bus:
            await asyncio.gather(*(store(bus, [n]) for n in range(1, several + 1)))
            caught_up = asyncio.Event()
            reading = Feed(bus, EVENTS, 0, caught_up).batches()
            taken = 0
            while taken < several:
                async with patiently():
                    taken += len(await anext(reading))
                assert not caught_up.is_set()  # the last batch is yielded, but not yet taken
            waiting = asyncio.ensure_future(anext(reading))
            async with patiently():
                await caught_up.wait()
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            await reading.aclose()  # type: ignore[attr-defined]
            assert taken == several

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("lost", "kept"),
    [
        ((1, 2), [3, 4, 5, 6]),
        ((3,), [1, 2, 4, 5, 6]),
        ((5, 6), [1, 2, 3, 4]),
        ((6,), [1, 2, 3, 4, 5]),
        ((1, 2, 3, 4, 5, 6), []),
    ],
)
def test_caught_up_is_said_also_when_messages_are_gone(
    nats: NatsServer, lost: tuple[int, ...], kept: list[int]
) -> None:
    async def scenario() -> None:
        async with nats.bus() as bus, nats.raw() as raw:
            await store(bus, range(1, 7))
            for sequence in lost:
                await raw.delete_msg(EVENTS, sequence)
            async with following(bus) as follower:
                assert await follower.until_caught_up() == kept
                await store(bus, [7, 8])
                assert await follower.until(8) == [*kept, 7, 8]

    asyncio.run(scenario())


@pytest.mark.parametrize("after", [0, 4, 6, 10])
def test_a_feed_begins_after_what_has_expired(nats: NatsServer, after: int) -> None:
    async def scenario() -> None:
        async with nats.bus() as bus, nats.raw() as raw:
            await store(bus, range(1, 11))
            await raw.purge_stream(EVENTS, seq=7)
            async with following(bus, after) as follower:
                await follower.until_caught_up()
                await store(bus, [11])
                assert await follower.until(11) == list(range(max(after + 1, 7), 12))
            await raw.purge_stream(EVENTS)
            async with following(bus, after) as follower:
                assert await follower.until_caught_up() == []
                await store(bus, [12])
                assert await follower.until(12) == [12]

    asyncio.run(scenario())


@pytest.mark.parametrize("lossy", ["every third", "all"])
def test_a_feed_asks_the_stream_for_what_its_live_feed_lost(
    nats: NatsServer, monkeypatch: pytest.MonkeyPatch, lossy: str
) -> None:
    monkeypatch.setattr(feed, "LOOK_S", 0.2)

    async def scenario() -> None:
        async with nats.bus() as bus:
            listening = bus.listening

            def listening_badly(
                stream: str, told: Callable[[Stored | None], None]
            ) -> AbstractAsyncContextManager[None]:
                def told_some(message: Stored | None) -> None:
                    if lossy != "all" and message is not None and message.sequence % 3:
                        told(message)

                return listening(stream, told_some)

            monkeypatch.setattr(bus, "listening", listening_badly)
            async with following(bus) as follower:
                await follower.until_caught_up()
                await store(bus, range(1, 31))
                assert await follower.until(30) == list(range(1, 31))

    asyncio.run(scenario())


def test_a_feed_takes_a_live_message_once_though_it_is_told_twice(
    nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with nats.bus() as bus:
            listening = bus.listening

            def twice(
                stream: str, told: Callable[[Stored | None], None]
            ) -> AbstractAsyncContextManager[None]:
                return listening(stream, lambda message: (told(message), told(message))[0])

            monkeypatch.setattr(bus, "listening", twice)
            async with following(bus) as follower:
                await store(bus, range(1, 21))
                assert await follower.until(20) == list(range(1, 21))

    asyncio.run(scenario())


@pytest.mark.usefixtures("in_a_hurry")
def test_a_feed_goes_on_after_kill_9_of_nats(nats: NatsServer) -> None:
    async def scenario() -> None:
        async with nats.bus("publisher") as publisher, nats.bus("follower") as bus:
            async with following(bus) as follower:
                await store(publisher, range(1, 6))
                await follower.until(5)
                nats.kill()
                publishing = asyncio.create_task(store_until_kept(publisher, range(6, 41)))
                nats.start_again()
                assert await follower.until(40) == list(range(1, 41))
                await publishing
            assert follower.subjects == [told(n).subject for n in range(1, 41)]

    asyncio.run(scenario())


@pytest.mark.usefixtures("in_a_hurry")
def test_a_feed_begins_while_nats_is_away(nats: NatsServer) -> None:
    async def scenario() -> None:
        async with nats.bus() as bus:
            await store(bus, [1, 2])
            nats.kill()
            async with following(bus) as follower:
                await asyncio.sleep(0.1)
                assert not follower.caught_up.is_set()
                nats.start_again()
                assert await follower.until_caught_up() == [1, 2]

    asyncio.run(scenario())


def test_a_feed_ends_though_a_message_comes_at_that_moment(
    nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell: list[Callable[[Stored | None], None]] = []

    @asynccontextmanager
    async def listening(
        _stream: str, told: Callable[[Stored | None], None]
    ) -> AsyncGenerator[None]:
        tell.append(told)
        yield

    async def scenario() -> None:
        async with nats.bus() as bus:
            monkeypatch.setattr(bus, "listening", listening)
            async with following(bus) as follower:
                await follower.until_caught_up()
                await asyncio.sleep(0.05)
                tell[0](None)
                assert await follower.ends()

    asyncio.run(scenario())


def test_a_feed_that_is_left_stops_listening(nats: NatsServer) -> None:
    async def scenario() -> None:
        async with nats.bus() as bus, nats.raw() as raw:
            for _ in range(5):
                async with following(bus) as follower:
                    await follower.until_caught_up()
            await store(bus, [1])
            assert (await raw.stream_info(EVENTS)).state.consumer_count == 0

    asyncio.run(scenario())


# ---- artifacts


@pytest.mark.parametrize("size", [0, 1, 1024**2, 1024**2 + 1])
def test_an_artifact_comes_back_as_it_was(nats: NatsServer, size: int) -> None:
    body = os.urandom(size)
    sha256 = hashlib.sha256(body).hexdigest()

    async def scenario() -> None:
        async with nats.bus("api") as api, nats.bus("runner") as runner:
            assert await runner.get_artifact(sha256) is None
            await api.put_artifact(sha256, body)
            await api.put_artifact(sha256, body)
            got = await asyncio.gather(*(runner.get_artifact(sha256) for _ in range(3)))
            assert got == [body] * 3
            assert await runner.get_artifact("0" * 64) is None

    asyncio.run(scenario())


def test_artifacts_are_read_without_consumers(nats: NatsServer) -> None:
    """One that fell silent delayed starts at the bell by ten seconds."""

    async def scenario() -> None:
        async with nats.bus() as bus, nats.bus() as witness:
            asked: list[str] = []

            async def note(message: Msg) -> None:
                asked.append(message.subject)

            await witness._client.subscribe("$JS.API.CONSUMER.>", cb=note)  # pyright: ignore[reportPrivateUsage]
            await witness._client.flush()  # pyright: ignore[reportPrivateUsage]
            await bus.put_artifact("sha", bytes(300_000))
            assert await bus.get_artifact("sha") == bytes(300_000)
            await witness.get_artifact("sha")  # what came before it has been heard
            assert asked == []

    asyncio.run(scenario())


@pytest.mark.usefixtures("in_a_hurry")
def test_artifacts_survive_kill_9_of_nats(nats: NatsServer) -> None:
    async def scenario() -> None:
        async with nats.bus() as bus:
            await bus.put_artifact("sha", b"print(1)\n")
            nats.kill()
            nats.start_again()
            await store_until_kept(bus, [1])  # it is back
            assert await bus.get_artifact("sha") == b"print(1)\n"

    asyncio.run(scenario())


# ---- presence


def info(runner: str) -> RunnerInfo:
    return RunnerInfo(runner=runner, platform="linux", python="3.11", at=utc_now(), capabilities={})


class Watcher:
    """The runners that were told of."""

    def __init__(self) -> None:
        self.present: dict[str, RunnerInfo] = {}
        self.changes = 0
        self._changed = asyncio.Event()

    def changed(self, runner: str, told: RunnerInfo | None) -> None:
        self.changes += 1
        if told is None:
            self.present.pop(runner, None)
        else:
            self.present[runner] = told
        self._changed.set()

    async def until(self, *runners: str) -> None:
        async with patiently():
            while set(self.present) != set(runners):
                self._changed.clear()
                await self._changed.wait()


def test_runners_come_stay_and_say_farewell(nats: NatsServer) -> None:
    async def scenario() -> None:
        async with nats.bus("runner") as runner, nats.bus("scheduler") as scheduler:
            early = Watcher()
            await scheduler.on_presence(early.changed)
            assert early.changes == 0
            await runner.announce(info("host-1"))
            await early.until("host-1")
            second_host = info("host-2")
            await runner.announce(second_host)
            await early.until("host-1", "host-2")
            assert early.present["host-2"] == second_host

            async with nats.bus("second-scheduler") as second:
                late = Watcher()
                await second.on_presence(late.changed)
                assert set(late.present) == {"host-1", "host-2"}  # before on_presence returns
                await runner.withdraw("host-1")
                await early.until("host-2")
                await late.until("host-2")

            async with nats.bus("third-scheduler") as third:
                later = Watcher()
                await third.on_presence(later.changed)
                assert set(later.present) == {"host-2"}

    asyncio.run(scenario())


def test_each_heartbeat_is_told(nats: NatsServer) -> None:
    async def scenario() -> None:
        async with nats.bus() as bus:
            watcher = Watcher()
            await bus.on_presence(watcher.changed)
            for _ in range(3):
                await bus.announce(info("host-1"))
            async with patiently():
                while watcher.changes < 3:
                    await asyncio.sleep(0.01)

    asyncio.run(scenario())


def test_who_has_said_farewell_hides_no_other(nats: NatsServer) -> None:
    async def scenario() -> None:
        async with nats.bus() as bus:
            for runner in ("host-1", "host-2"):
                await bus.announce(info(runner))
            await bus.withdraw("host-1")
            watcher = Watcher()
            await bus.on_presence(watcher.changed)
            assert set(watcher.present) == {"host-2"}
            assert watcher.changes == 1
            assert await bus.runner("host-1") is None
            assert await bus.runner("host-2") == watcher.present["host-2"]

    asyncio.run(scenario())


@pytest.mark.usefixtures("in_a_hurry")
def test_runners_are_seen_again_after_a_restart_of_nats(nats: NatsServer) -> None:
    """Whether or not its list of runners goes with it."""

    async def scenario() -> None:
        async with nats.bus("runner") as runner, nats.bus("scheduler") as scheduler:
            watcher = Watcher()
            await scheduler.on_presence(watcher.changed)
            await runner.announce(info("host-1"))
            await watcher.until("host-1")
            nats.kill()
            nats.start_again()
            await store_until_kept(runner, [1])  # it is back
            await runner.announce(info("host-2"))
            await watcher.until("host-1", "host-2")

    asyncio.run(scenario())


def test_presence_is_kept_for_a_short_time_only(nats: NatsServer) -> None:
    async def scenario() -> None:
        async with nats.bus(), nats.raw() as raw:
            bucket = await raw.key_value(PRESENCE)
            assert (await bucket.status()).ttl == 15

    asyncio.run(scenario())


def test_the_heartbeat_of_a_runner_that_died_is_not_taken_for_life(nats: NatsServer) -> None:
    async def scenario() -> None:
        async with nats.bus("runner") as runner, nats.bus("scheduler") as scheduler:
            old = info("host-1").model_copy(update={"at": utc_now() - timedelta(seconds=13)})
            await runner.announce(old)
            await runner.announce(info("host-2"))
            watcher = Watcher()
            await scheduler.on_presence(watcher.changed)
            assert set(watcher.present) == {"host-2"}

    asyncio.run(scenario())


@pytest.mark.parametrize("login", [{}, {"password": "p"}, {"user": "u", "password": "p"}])
def test_a_server_without_users_serves_everybody(nats: NatsServer, login: dict[str, str]) -> None:
    """And its bucket of an earlier release is changed, not refused."""
    nats.let_everybody_in()
    settings = NatsSettings.model_validate({"url": nats.url, **login})

    async def scenario() -> None:
        async with connected(settings, "scheduler") as bus, nats.raw() as raw:
            await raw.create_key_value(KeyValueConfig(bucket=PRESENCE, ttl=15))
            await bus.ensure_stores(settings)
            await store(bus, [1])
            assert (await bus.stream_state(EVENTS)).last == 1
            await bus.announce(info("host-1"))
            assert await bus.runner("host-1") is not None

    asyncio.run(scenario())


def test_a_home_outlives_a_change_of_its_streams(nats: NatsServer) -> None:
    """Another release, or another setting, wants them otherwise: they are changed, not refused."""

    async def scenario() -> None:
        small = nats.settings.model_copy(update={"artifacts_max_bytes": 60_000})
        async with connected(small, "small") as bus:
            await bus.ensure_stores(small)
            for number in range(12):  # more than it holds: the cache is emptied, nothing refused
                await bus.put_artifact(str(number), bytes(20_000))
        large = small.model_copy(update={"artifacts_max_bytes": 10_000_000})
        async with connected(large, "large") as bus:
            await bus.ensure_stores(large)
            await bus.put_artifact("large", bytes(1_000_000))
            assert await bus.get_artifact("large") == bytes(1_000_000)

    asyncio.run(scenario())


def test_a_command_that_comes_too_late_is_not_carried_out(nats: NatsServer) -> None:
    """Its caller has been told that nobody answered; a start must not happen after that."""
    done: list[str] = []

    async def answer(command: StopRun) -> Done:
        done.append(command.run_id)
        return Done()

    async def scenario() -> None:
        async with nats.bus() as bus:
            await bus.answer(StopRun, answer, "late")
            client = cast("Any", bus)._client
            payload = a_stop().encode()
            for deadline in (utc_now().timestamp() - 1, utc_now().timestamp() + 60):
                headers = {"Openbell-Deadline": repr(deadline)}
                with contextlib.suppress(TimeoutError):
                    subject = StopRun.subject("late")
                    await client.request(subject, payload, timeout=0.5, headers=headers)
            assert len(done) == 1

    asyncio.run(scenario())


def a_stop() -> StopRun:
    return StopRun(
        run_id="s-1", strategy_id="s", epoch=1, reason=ExitReason.STOPPED_BY_USER, ladder=()
    )


@pytest.mark.parametrize("outcome", ["answer", "error"])
def test_a_cancellation_that_comes_with_the_answer_is_not_lost(
    nats: NatsServer, monkeypatch: pytest.MonkeyPatch, outcome: str
) -> None:
    """A stop during a start waited for ever, on Python 3.11."""

    async def losing(*_: Any, **__: Any) -> Msg:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        if outcome == "error":
            raise NoRespondersError
        return Msg(cast("Any", None), data=Standing(strategy_id="s", intent=Intent.RUN).encode())

    async def scenario() -> None:
        async with nats.bus() as bus:
            monkeypatch.setattr(bus._client, "request", losing)  # pyright: ignore[reportPrivateUsage]
            asking = asyncio.create_task(bus.request(StopStrategy(strategy_id="s")))
            await asyncio.sleep(0)
            asking.cancel()
            await asyncio.wait([asking])
            assert asking.cancelled()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await bus.request(StopStrategy(strategy_id="s"))

    asyncio.run(scenario())
