"""The only module that talks to NATS: typed requests, durable events, the artifact cache."""

import asyncio
import base64
import contextlib
import hashlib
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeVar

import nats
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import ConnectionClosedError, NoRespondersError
from nats.errors import Error as NatsError
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, ObjectStoreConfig, RePublish, StorageType, StreamConfig
from nats.js.errors import APIError, NotFoundError
from nats.js.object_store import ObjectStore

from openbell.contracts.base import ROOT, Command, Event, Message, utc_now
from openbell.contracts.errors import (
    NoAnswer,
    OpenbellError,
    Problem,
    ServiceUnavailable,
    TooLarge,
    raised_from,
)
from openbell.contracts.events import CalendarChanged, RunnerEvent
from openbell.contracts.logs import LogLines
from openbell.contracts.metrics import RunnerMetrics
from openbell.contracts.model import RunnerInfo
from openbell.settings import NatsSettings

EVENTS = "OPENBELL_EVENTS"
RUNNERS = "OPENBELL_RUNNERS"
ARTIFACTS = "openbell_artifacts"
ARTIFACTS_STREAM = f"OBJ_{ARTIFACTS}"
PRESENCE = "openbell_runners"
PRESENCE_STREAM = f"KV_{PRESENCE}"
PRESENCE_TTL_S = 15
STALE_S = 12
"""A heartbeat of this age was the last one of a runner that has died."""
DAY_S = 86_400
STORED = f"{ROOT}.stored"
PROBLEM = "Openbell-Problem"
DEADLINE = "Openbell-Deadline"
CLOSE_S = 5
PING_S = 86_400
"""How long the server may take to answer that it is there, before that is asked anew."""
CONNECT_S = 5
STORES_S = 30
STORES_RETRY_S = 0.1
DUPLICATES_S = 3600
HEADERS_MOST = 256
"""Bytes that are kept free for headers: the server counts them too, and ends the connection of who
sends more than it takes.
"""

log = structlog.get_logger()
M = TypeVar("M", bound=Message)
ReplyT = TypeVar("ReplyT", bound=Message)


@dataclass(frozen=True, slots=True)
class Stored:
    """A message as its stream keeps it."""

    sequence: int
    subject: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class StreamState:
    """A stream at one moment."""

    incarnation: str
    """What tells this life of the stream from an earlier one that used the same numbers."""
    first: int
    last: int


class Bus:
    """One connection. Create it with `connected`."""

    def __init__(
        self, client: Client, reconnected: list[Callable[[], None]], password: str
    ) -> None:
        self._client = client
        self._password = password
        self._reconnected = reconnected
        self._stream: JetStreamContext = client.jetstream(timeout=5)
        self._tasks: set[asyncio.Task[None]] = set()
        self._asking: asyncio.Task[None] | None = None
        """Whether the server is there; on which of the client's connections, one after another."""
        self._asked_on = 0

    # ---- requests

    async def request(
        self, command: Command[ReplyT], target: str | None = None, *, timeout_s: float = 5
    ) -> ReplyT:
        """Ask, and wait for the answer.

        Raises the typed error that the other side raised; ServiceUnavailable when nobody is
        there, NoAnswer when it may have been heard.
        """
        subject = command.sent_to(target)
        try:
            deadline = {DEADLINE: repr(time.time() + timeout_s)}
            with _heeding_cancellation():
                answer = await self._client.request(
                    subject, command.encode(), timeout=timeout_s, headers=deadline
                )
        except NoRespondersError:
            raise ServiceUnavailable(f"no {type(command).service} is connected") from None
        except (NatsTimeoutError, TimeoutError):
            raise NoAnswer(
                f"the {type(command).service} did not answer within {timeout_s:g} s"
            ) from None
        except (NatsError, OSError) as error:
            raise NoAnswer(f"the message bus does not answer: {error}") from None
        if answer.headers and PROBLEM in answer.headers:
            raise raised_from(Problem.model_validate_json(answer.data))
        return type(command).reply_type().model_validate_json(answer.data)

    async def answer(
        self,
        kind: type[Command[ReplyT]],
        handler: Callable[[Any], Awaitable[ReplyT]],
        target: str | None = None,
    ) -> None:
        """Answer every command of this kind with `handler`, several at a time."""

        async def respond(message: Msg) -> None:
            if time.time() > float((message.headers or {}).get(DEADLINE, "inf")):
                # the caller was told that it did not happen: it must not happen now
                log.warning("a command came too late", command=kind.__name__)
                return
            if not message.reply:
                # nats-server itself sends stored messages to wherever their reader wants them
                log.warning("a command that nobody asked", command=kind.__name__)
                return
            try:
                reply = await handler(_read(kind, message, target))
                await message.respond(reply.encode())
            except OpenbellError as error:
                await self._refuse(message, error)
            except Exception:
                log.exception("a command failed", command=kind.__name__)
                await self._refuse(message, OpenbellError("see this service's log"))

        async def receive(message: Msg) -> None:
            self._spawn(respond(message))

        await self._client.subscribe(kind.subject(target), queue=kind.service, cb=receive)
        await self._confirm_sent()  # the server knows it, before others are told that we are up

    async def is_alive(self, within_s: float) -> bool:
        """Whether the server answers now.

        A connection that is lost meanwhile may end the client's wait as an answer does, or not. The
        wait goes on behind a look that finds no answer, for as long as this connection lasts: to
        nats-py an answer that comes to nobody is an error, with which it stops listening.
        """
        connection = self._client.stats["reconnects"]
        if self._asking is not None and self._asked_on != connection:
            self._asking.cancel()
            self._asking = None
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._client.flush(timeout=PING_S))
            self._asked_on = connection
        await asyncio.wait({self._asking}, timeout=within_s)
        if not self._asking.done() or self._asking.cancelled():
            return False
        return self._asking.exception() is None and self._client.is_connected

    async def _confirm_sent(self) -> None:
        """The client's ping overtakes what it has not sent yet; a second one comes after it."""
        await self._client.flush()
        await self._client.flush()

    async def _refuse(self, message: Msg, error: OpenbellError) -> None:
        problem = error.problem()
        await self._client.publish(message.reply, problem.encode(), headers={PROBLEM: problem.code})

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ---- durable events

    @contextlib.contextmanager
    def _confirmed(self, what: str) -> Generator[None]:
        """Turns every failure of NATS into ServiceUnavailable."""
        try:
            with _heeding_cancellation():
                yield
        except (NatsError, TimeoutError, OSError) as error:
            raise ServiceUnavailable(f"{what} did not confirm: {error!r}") from error

    async def store(self, subject: str, payload: bytes, message_id: str) -> None:
        """Publish into the stream that keeps `subject`; one id is kept once.

        Raises ServiceUnavailable when the stream did not confirm it, TooLarge when it never will.
        """
        most = self._client.max_payload - HEADERS_MOST
        if len(payload) > most:
            raise TooLarge(f"{len(payload)} bytes, of which the message bus takes {most} at most")
        with self._confirmed("the stream"):
            await self._stream.publish(subject, payload, headers={"Nats-Msg-Id": message_id})

    async def report(self, event: RunnerEvent, message_id: str) -> None:
        """Like `store`. The id is one that no other runner can use up beforehand."""
        own_id = hashlib.sha256(f"{self._password} {message_id}".encode()).hexdigest()
        await self.store(event.subject, event.encode(), own_id)

    async def stream_state(self, stream: str) -> StreamState:
        """Raises ServiceUnavailable."""
        with self._confirmed("the stream"):
            info = await self._stream.stream_info(stream)
        born = f"{int(info.created.timestamp() * 1000):x}" if info.created else "0"
        return StreamState(born, info.state.first_seq, info.state.last_seq)

    async def next_stored(self, stream: str, after: int, subjects: str = ">") -> Stored | None:
        """The first message on `subjects` that the stream keeps after this number.

        Asked by number, without a consumer: there is none that could leak or fall silent.
        """
        with self._confirmed("the stream"):
            try:
                message = await self._stream.get_msg(
                    stream, seq=after + 1, subject=subjects, direct=True, next=True
                )
            except NotFoundError:
                return None
        return Stored(message.seq or 0, message.subject or "", message.data or b"")

    @contextlib.asynccontextmanager
    async def listening(
        self, stream: str, told: Callable[[Stored | None], None]
    ) -> AsyncGenerator[None]:
        """Call `told` with each message once the stream keeps it; with None after a gap.

        The server republishes what it has stored, with its number: a live feed that needs no
        consumer. For those who must not miss any there is `openbell.feed`.
        """
        prefix = f"{STORED}.{stream}."

        async def receive(message: Msg) -> None:
            sequence = int((message.headers or {})["Nats-Sequence"])
            told(Stored(sequence, message.subject.removeprefix(prefix), message.data))

        def gap() -> None:
            told(None)

        subscription = await self._client.subscribe(f"{prefix}>", cb=receive)
        self._reconnected.append(gap)
        try:
            yield
        finally:
            self._reconnected.remove(gap)
            with contextlib.suppress(NatsError):
                await subscription.unsubscribe()

    # ---- artifacts and presence

    async def put_artifact(self, sha256: str, body: bytes) -> None:
        """Raises ServiceUnavailable. A full cache is emptied: the database holds all of it."""
        store = ObjectStore(ARTIFACTS, ARTIFACTS_STREAM, self._stream)
        with self._confirmed("the artifact store"):
            try:
                await store.put(sha256, body)
            except APIError:
                await self._stream.purge_stream(ARTIFACTS_STREAM)
                await store.put(sha256, body)

    async def get_artifact(self, sha256: str) -> bytes | None:
        """The source with this hash, or none when the cache does not hold it, or not whole.

        Its parts are read by number: the client's own `get` makes a consumer, which now and then
        falls silent when several are made at once.
        """
        name = base64.urlsafe_b64encode(sha256.encode()).decode()
        described = await self.next_stored(ARTIFACTS_STREAM, 0, f"$O.{ARTIFACTS}.M.{name}")
        if described is None:
            return None
        info = json.loads(described.payload)
        chunks = f"$O.{ARTIFACTS}.C.{info['nuid']}"
        body, sequence = bytearray(), 0
        for _ in range(info.get("chunks", 0)):
            chunk = await self.next_stored(ARTIFACTS_STREAM, sequence, chunks)
            if chunk is None:
                return None
            body += chunk.payload
            sequence = chunk.sequence
        return bytes(body)

    async def announce(self, info: RunnerInfo) -> None:
        with self._confirmed("the list of runners"):
            await self._stream.publish(presence(info.runner), info.encode())

    async def runner(self, runner: str) -> RunnerInfo | None:
        """What a runner said of itself with its last heartbeat, if that was a short while ago."""
        with self._confirmed("the list of runners"), contextlib.suppress(NotFoundError):
            told = await self._stream.get_msg(
                PRESENCE_STREAM, subject=presence(runner), direct=True
            )
            return RunnerInfo.model_validate_json(told.data) if told.data else None
        return None

    async def withdraw(self, runner: str) -> None:
        with self._confirmed("the list of runners"):
            await self._stream.publish(presence(runner))

    async def on_presence(self, changed: Callable[[str, RunnerInfo | None], None]) -> None:
        """Tell of each runner that is there now, then of each heartbeat and each farewell.

        A plain subscription sees every put; unlike a watch there is no consumer that can stall.
        """

        async def receive(message: Msg) -> None:
            runner, info = _present(message.subject, message.data)
            changed(runner, info)

        await self._client.subscribe(presence(">"), cb=receive)
        sequence = 0
        while told := await self.next_stored(PRESENCE_STREAM, sequence):
            sequence = told.sequence
            runner, info = _present(told.subject, told.payload)
            if info is not None and (utc_now() - info.at).total_seconds() < STALE_S:
                changed(runner, info)

    async def tell(self, notice: CalendarChanged) -> None:
        """Tell all who listen just now."""
        await self._client.publish(notice.SUBJECT, notice.encode())

    async def on_calendar(self, changed: Callable[[CalendarChanged], None]) -> None:
        """Hear what the calendar tells. What is told while the bus is away is not heard."""

        async def receive(message: Msg) -> None:
            changed(CalendarChanged.model_validate_json(message.data))

        await self._client.subscribe(CalendarChanged.SUBJECT, cb=receive)

    async def tell_lines(self, lines: LogLines) -> None:
        """Tell all who follow this run just now. Lost while the bus is away."""
        with contextlib.suppress(NatsError):
            await self._client.publish(lines.subject, lines.encode())

    @contextlib.asynccontextmanager
    async def hearing_lines(
        self, subject: str, told: Callable[[LogLines | None], None]
    ) -> AsyncGenerator[None]:
        """Call `told` with what a run writes; with None when some of it may have been missed."""

        async def receive(message: Msg) -> None:
            lines = LogLines.model_validate_json(message.data)
            if lines.subject == message.subject:
                told(lines)

        def gap() -> None:
            told(None)

        subscription = await self._client.subscribe(subject, cb=receive)
        self._reconnected.append(gap)
        try:
            await self._confirm_sent()
            yield
        finally:
            self._reconnected.remove(gap)
            with contextlib.suppress(NatsError):
                await subscription.unsubscribe()

    async def tell_metrics(self, metrics: RunnerMetrics) -> None:
        """Tell all who listen just now. Lost while the bus is away: there is more in seconds."""
        with contextlib.suppress(NatsError):
            await self._client.publish(metrics.subject, metrics.encode())

    @contextlib.asynccontextmanager
    async def hearing_metrics(
        self, told: Callable[[RunnerMetrics], Awaitable[None]]
    ) -> AsyncGenerator[None]:
        """Call `told` with what each runner tells of itself, one after another."""

        async def receive(message: Msg) -> None:
            metrics = RunnerMetrics.model_validate_json(message.data)
            if metrics.subject == message.subject:
                await told(metrics)

        subscription = await self._client.subscribe(RunnerMetrics.subjects(), cb=receive)
        try:
            await self._confirm_sent()
            yield
        finally:
            with contextlib.suppress(NatsError):
                await subscription.unsubscribe()

    # ---- the streams and buckets themselves

    async def ensure_stores(self, settings: NatsSettings) -> None:
        """Make the streams and buckets, or change them to what this release wants of them.

        Raises ServiceUnavailable.
        """
        with self._confirmed("the message store"):
            await asyncio.gather(
                self._ensure(_durable(EVENTS, Event.subjects())),
                self._ensure(_durable(RUNNERS, RunnerEvent.subjects())),
                self._ensure(_PRESENCE),
                self._ensure_artifacts(settings.artifacts_max_bytes),
            )

    async def wait_for(self, stream: str) -> None:
        """Return once this stream is there: another service makes it, sooner or later than now.

        Raises ServiceUnavailable when it is not in time.
        """
        reason = ""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STORES_S):
                while True:
                    try:
                        await self.next_stored(stream, 0)
                    except ServiceUnavailable as error:
                        reason = error.detail
                        await asyncio.sleep(STORES_RETRY_S)
                    else:
                        return
        raise ServiceUnavailable(
            f"the stream {stream} is not there: does a scheduler run, and may this service"
            f" read it? {reason}"
        )

    async def _ensure(self, config: StreamConfig) -> None:
        try:
            await self._stream.add_stream(config)
        except APIError:  # it is there, made by another release
            await self._stream.update_stream(config)

    async def _ensure_artifacts(self, max_bytes: int) -> None:
        file = StorageType.FILE
        try:
            config = ObjectStoreConfig(max_bytes=max_bytes, storage=file)
            await self._stream.create_object_store(ARTIFACTS, config)
        except APIError:
            there = (await self._stream.stream_info(ARTIFACTS_STREAM)).config
            there.max_bytes = max_bytes
            await self._stream.update_stream(there)

    async def close(self) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_S)
        with contextlib.suppress(NatsError, TimeoutError, OSError):
            async with asyncio.timeout(CLOSE_S):
                await self._client.flush(timeout=CLOSE_S)
        if self._asking is not None:
            self._asking.cancel()
        with contextlib.suppress(ConnectionClosedError, OSError):
            await self._client.close()


def _read(kind: type[Command[ReplyT]], message: Msg, target: str | None) -> Command[ReplyT]:
    """The command in a message, if it came to its own address: see RunnerAsks."""
    command = kind.model_validate_json(message.data)
    if message.subject != command.sent_to(target):
        raise OpenbellError(f"{message.subject} is not the address of this command")
    return command


def _durable(name: str, subjects: str) -> StreamConfig:
    return StreamConfig(
        name=name,
        subjects=[subjects],
        storage=StorageType.FILE,
        max_age=7 * DAY_S,
        duplicate_window=DUPLICATES_S,
        allow_direct=True,
        republish=RePublish(src=">", dest=f"{STORED}.{name}.>"),
    )


_PRESENCE = StreamConfig(
    name=PRESENCE_STREAM,
    subjects=[f"$KV.{PRESENCE}.>"],
    storage=StorageType.FILE,
    max_msgs_per_subject=1,
    max_age=PRESENCE_TTL_S,
    duplicate_window=PRESENCE_TTL_S,
    discard=DiscardPolicy.NEW,
    allow_direct=True,
    allow_msg_ttl=True,
    deny_delete=True,
    allow_rollup_hdrs=False,  # one runner's message could remove those of all others
)
"""A bucket of keys and values, but for the last line."""


def presence(runner: str) -> str:
    """The subject of a runner's heartbeats; of all runners' with a wildcard."""
    return f"$KV.{PRESENCE}.{runner}"


def _present(subject: str, payload: bytes) -> tuple[str, RunnerInfo | None]:
    """The runner, and what it said of itself; none when it said farewell."""
    info = RunnerInfo.model_validate_json(payload) if payload else None
    return subject.removeprefix(presence("")), info


def inbox(user: str) -> str:
    """What the addresses begin with to which this user's answers go: nobody else hears them."""
    return f"_INBOX_{user}"


@contextlib.contextmanager
def _heeding_cancellation() -> Generator[None]:
    """A cancellation that comes together with an answer is lost in `asyncio.wait_for` of Python
    3.11, by which nats-py waits: who was to end would go on, and who waits for that, for ever.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task else 0

    def is_lost() -> bool:
        return task is not None and task.cancelling() > before

    try:
        yield
    except Exception:
        if is_lost():
            raise asyncio.CancelledError from None
        raise
    if is_lost():
        raise asyncio.CancelledError


@contextlib.asynccontextmanager
async def connected(settings: NatsSettings, user: str) -> AsyncGenerator[Bus]:
    """A connection of this user, with its own rights. It reconnects for ever.

    Raises ServiceUnavailable when there is no server at first, or none that lets it in.
    """
    listeners: list[Callable[[], None]] = []

    async def failed(error: Exception) -> None:
        reason = str(error) or type(error).__name__
        if "permissions violation" in reason:
            log.error("NATS does not allow this service what it tried", user=user, error=reason)
        else:
            log.warning("bus", user=user, error=reason)

    async def reconnected() -> None:
        log.info("bus reconnected", user=user)
        for listener in listeners:
            listener()

    url = settings.url or "nats://127.0.0.1:4222"
    login, password = settings.login(user)
    try:
        async with asyncio.timeout(CONNECT_S):
            client = await nats.connect(
                url,
                name=f"openbell-{user}",
                user=login,
                password=password,
                inbox_prefix=inbox(user),
                max_reconnect_attempts=-1,  # at first too, hence the timeout
                reconnect_time_wait=1,
                error_cb=failed,
                reconnected_cb=reconnected,
            )
    except (NatsError, OSError) as error:
        reason = str(error) or f"no answer within {CONNECT_S} s"
        raise ServiceUnavailable(f"no NATS server that lets us in at {url}: {reason}") from None
    bus = Bus(client, listeners, password or "")
    try:
        yield bus
    finally:
        await bus.close()
