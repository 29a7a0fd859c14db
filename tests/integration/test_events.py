"""GET /python/events, as an ASGI app: no browser misses an event, nor gets one twice."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, MutableMapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from openbell.bus import EVENTS, Bus, Stored, StreamState
from openbell.contracts.errors import NotSignedIn, ServiceUnavailable
from openbell.contracts.events import AccessChanged, IntentChanged
from openbell.contracts.model import Intent, Permission, Role, Scope
from openbell.db.models import ApiToken
from openbell.db.session import Database
from openbell.front_door import Asgi
from openbell.identity import LOCAL_USER, Caller, Identities, digest
from openbell.settings import DatabaseSettings, Settings, StatusSettings
from services.status import stream
from services.status.fanout import Client, Fanout, Frame
from services.status.service import serve
from services.status.stream import EventStream
from tests.fixtures import databases
from tests.fixtures.nats import NatsServer
from tests.fixtures.people import somebody

NOW = datetime(2026, 8, 3, 3, 45, tzinfo=UTC)
BORN = "5f3a"
PATIENCE_S = 10
NO_BUS = cast("Bus", None)
TOKEN = "obt_test"


def told(number: int, owner: str = "local") -> IntentChanged:
    return IntentChanged(owner=owner, strategy_id=f"s{number}", at=NOW, intent=Intent.RUN)


def stored(number: int, owner: str = "local") -> Stored:
    event = told(number, owner)
    return Stored(number, event.subject, event.encode())


async def keep(bus: Bus, numbers: Sequence[int], owner: str = "local") -> None:
    for number in numbers:
        event = told(number, owner)
        await bus.store(event.subject, event.encode(), f"{owner}-{number}")


@dataclass(frozen=True)
class Told:
    """One event, as a browser understands it."""

    id: str
    kind: str
    data: Any

    @property
    def sequence(self) -> int:
        return int(self.id.rpartition("-")[2])


class Browser:
    """One client of the stream. While `reads` is not set, it takes nothing from its connection."""

    def __init__(
        self,
        app: Asgi,
        last_id: str = "",
        *,
        method: str = "GET",
        owner: str = "",
        query: bytes = b"",
    ) -> None:
        self.reads = asyncio.Event()
        self.reads.set()
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.text = ""
        self.ended = False
        self._leaves = asyncio.Event()
        self._more = asyncio.Event()
        given = [(b"authorization", b"Bearer " + TOKEN.encode())]
        given += [(b"last-event-id", last_id.encode())] if last_id else []
        given += [(b"x-owner", owner.encode())] if owner else []
        scope: dict[str, Any] = {
            "type": "http",
            "method": method,
            "path": "/python/events",
            "headers": given,
            "query_string": query,
        }
        self.request = asyncio.ensure_future(app(scope, self._receive, self._send))

    @property
    def events(self) -> list[Told]:
        blocks = [block for block in self.text.split("\n\n") if not block.startswith(":")]
        parsed = [dict(line.split(": ", 1) for line in block.splitlines()) for block in blocks]
        return [Told(b["id"], b["event"], json.loads(b["data"])) for b in parsed if b]

    @property
    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]

    @property
    def taken(self) -> list[int]:
        """The numbers of the events, without those of the stream itself."""
        return [e.sequence for e in self.events if e.kind not in {"hello", "reset", "signed_out"}]

    @property
    def last_id(self) -> str:
        return self.events[-1].id

    async def until(self, reached: Callable[["Browser"], bool]) -> "Browser":
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not reached(self):
                    self._more.clear()
                    await self._more.wait()
        except TimeoutError:
            pytest.fail(f"it got {self.text!r}")
        return self

    async def connected(self) -> "Browser":
        return await self.until(lambda browser: bool(browser.events))

    async def until_number(self, sequence: int) -> "Browser":
        return await self.until(lambda browser: sequence in browser.taken)

    async def let_go(self, within_s: float = PATIENCE_S) -> bool:
        """Whether the app is done with this client."""
        await asyncio.wait({self.request}, timeout=within_s)
        return self.request.done()

    async def leave(self, within_s: float = PATIENCE_S) -> bool:
        self._leaves.set()
        return await self.let_go(within_s)

    async def end(self) -> None:
        self._leaves.set()
        self.reads.set()
        while not self.request.done():  # the first one may be swallowed: see the test of just that
            self.request.cancel()
            await asyncio.wait({self.request}, timeout=0.05)
        if not self.request.cancelled():
            await self.request

    async def _receive(self) -> MutableMapping[str, Any]:
        await self._leaves.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], dict(message["headers"])
            return
        await self.reads.wait()
        assert not self.ended
        self.text += message.get("body", b"").decode()
        self.ended = not message.get("more_body", False)
        self._more.set()


class Named:
    """Callers as a header names them; who is called `nobody` is not signed in."""

    def __init__(self) -> None:
        self.shared: dict[str, Permission] = {}
        self.fields: dict[str, Any] = {}
        self.asked: list[float] = []

    async def caller(self, headers: dict[bytes, bytes], within_s: float = 5) -> Caller:
        self.asked.append(within_s)
        name = headers.get(b"x-owner", b"local").decode()
        if name in self.gone:
            raise NotSignedIn("this session is over")
        return somebody(name, shared=dict(self.shared), **self.fields)

    gone: frozenset[str] = frozenset()


NAMED = cast("Identities", Named())


class Hall(Fanout):
    """A fan-out whose clients can be counted, and whose encodings."""

    def __init__(self, last: int = 0, incarnation: str = BORN) -> None:
        super().__init__(StreamState(incarnation, 1, last))
        self.present: list[Client] = []
        self.encoded: list[int] = []

    def join(self, client: Client) -> None:
        super().join(client)
        self.present.append(client)

    def leave(self, client: Client) -> None:
        super().leave(client)
        self.present.remove(client)

    def encode(self, event: Stored) -> Frame:
        self.encoded.append(event.sequence)
        return super().encode(event)

    def tell(self, *numbers: int, owner: str = "local") -> None:
        for number in numbers:
            self.publish(stored(number, owner))


class Scene:
    """The app over a fan-out that the test feeds by hand, and its browsers."""

    def __init__(self, hall: Hall, bus: Bus, settings: StatusSettings) -> None:
        self.hall = hall
        self.named = Named()
        self.app = EventStream(bus, hall, cast("Identities", self.named), settings)
        self.browsers: list[Browser] = []

    async def open(self, last_id: str = "", **how: Any) -> Browser:
        return await self.visit(last_id, **how).connected()

    def visit(self, last_id: str = "", **how: Any) -> Browser:
        self.browsers.append(browser := Browser(self.app, last_id, **how))
        return browser


@asynccontextmanager
async def scene(
    last: int = 0, bus: Bus = NO_BUS, incarnation: str = BORN, **settings: Any
) -> AsyncGenerator[Scene]:
    set_up = Scene(Hall(last, incarnation), bus, StatusSettings(**settings))
    try:
        yield set_up
    finally:
        for browser in set_up.browsers:
            await browser.end()
        assert set_up.hall.present == []


# ---- who gets what


def test_an_owner_sees_only_their_own_live_and_replayed() -> None:
    async def scenario() -> None:
        async with scene() as on:
            alice, bob = await on.open(owner="alice"), await on.open(owner="bob")
            on.hall.tell(1, 3, 4, owner="alice")
            on.hall.tell(5, owner="alicia")
            on.hall.tell(6, owner="bob")
            on.hall.tell(7, owner="alice")
            assert (await alice.until_number(7)).taken == [1, 3, 4, 7]
            assert (await bob.until_number(6)).taken == [6]
            assert "alice" not in bob.text
            again = await on.open(f"{BORN}-0", owner="bob")
            assert again.taken == [6]
            assert "alice" not in again.text

    asyncio.run(scenario())


def test_an_owner_sees_only_their_own_out_of_the_stream(nats: NatsServer) -> None:
    async def scenario() -> None:
        async with nats.bus() as bus:
            await keep(bus, [1], "alice")
            await keep(bus, [2], "bob")
            await keep(bus, [3], "alice")
            async with scene(3, bus) as on:
                assert (await on.open(f"{BORN}-0", owner="alice")).taken == [1, 3]
                bob = await on.open(f"{BORN}-0", owner="bob")
                assert bob.taken == [2]
                assert "alice" not in bob.text

    asyncio.run(scenario())


def test_what_an_account_may_see_changes_while_it_watches() -> None:
    """From the event on that says so: neither what was shared late is missed, nor what is shared
    no more still told.
    """

    async def scenario() -> None:
        async with scene() as on:
            bob = await on.open(owner="bob")

            def changed(number: int) -> None:
                event = AccessChanged(owner="bob", at=NOW)
                on.hall.publish(Stored(number, event.subject, event.encode()))

            on.hall.tell(1, owner="alice")
            on.named.shared["s3"] = Permission.VIEWER
            changed(2)
            await bob.until_number(2)
            on.hall.tell(3, owner="alice")
            await bob.until_number(3)
            on.named.shared.clear()
            changed(4)
            on.hall.tell(3, owner="alice")
            on.hall.tell(6, owner="bob")
            assert (await bob.until_number(6)).taken == [2, 3, 4, 6]
            on.named.gone = frozenset({"bob"})
            changed(7)
            assert await bob.let_go()
            assert bob.kinds[-1] == "signed_out"
            assert bob.taken == [2, 3, 4, 6]

    asyncio.run(scenario())


def test_what_is_shared_no_more_is_not_told_though_nobody_has_said_so_yet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The event that says so comes out of another outbox, or behind another of the same one."""
    monkeypatch.setattr(stream, "SHARED_S", 0.0)

    async def scenario() -> None:
        async with scene() as on:
            on.named.shared = {"s1": Permission.VIEWER, "s2": Permission.VIEWER}
            bob = await on.open(owner="bob")
            on.hall.tell(1, owner="alice")
            await bob.until_number(1)
            on.named.shared.clear()
            on.hall.tell(2, owner="alice")
            on.hall.tell(3, owner="bob")
            assert (await bob.until_number(3)).taken == [1, 3]
            assert (await on.open(f"{BORN}-0", owner="bob")).taken == [3]
            assert set(on.named.asked) == {0}  # and not what Identities still remember

    asyncio.run(scenario())


def test_ones_own_events_cost_no_look_at_who_one_is() -> None:
    async def scenario() -> None:
        async with scene() as on:
            await on.open(owner="alice")
            asked = len(on.named.asked)
            for number in range(1, 20):
                on.hall.tell(number, owner="alice")
                await asyncio.sleep(0)
            assert len(on.named.asked) == asked

    asyncio.run(scenario())


def test_a_share_that_ends_during_a_replay_ends_the_replay() -> None:
    async def scenario() -> None:
        hall = Hall(last=3)
        named = Named()
        named.shared = {"s1": Permission.VIEWER, "s2": Permission.VIEWER}

        class Stored3:
            async def stream_state(self, _: str) -> StreamState:
                return StreamState(BORN, 1, 3)

            async def next_stored(self, _: str, after: int, _subjects: str) -> Stored | None:
                named.shared.clear()
                return stored(after + 1, "alice" if after < 2 else "bob") if after < 3 else None

        app = EventStream(cast("Bus", Stored3()), hall, cast("Identities", named), StatusSettings())
        browser = await Browser(app, f"{BORN}-0", owner="bob").connected()
        assert browser.taken == [3]
        await browser.end()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream, "SHARED_S", 0.0)
        asyncio.run(scenario())


@pytest.mark.parametrize(
    ("fields", "query"),
    [
        ({"scopes": frozenset({Scope.OPERATE})}, b""),
        ({"scopes": frozenset({Scope.ADMIN}), "role": Role.ADMIN}, b"everybody=true"),
        ({}, b"everybody=true"),
    ],
)
def test_who_may_not_read_hears_nothing(fields: dict[str, Any], query: bytes) -> None:
    async def scenario() -> None:
        async with scene() as on:
            on.named.fields = fields
            browser = on.visit(query=query)
            assert await browser.let_go()
            assert browser.status == 403
            assert json.loads(browser.text)["code"] == "not_allowed"

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "query", [b"everybody=1", b"everybody=", b"everybody=True", b"everybody=true&everybody=false"]
)
def test_whose_events_are_asked_for_is_said_plainly(query: bytes) -> None:
    """Or somebody who asks for everybody's is given just their own, and does not know it."""

    async def scenario() -> None:
        async with scene() as on:
            browser = on.visit(query=query)
            assert await browser.let_go()
            assert browser.status == 422
            (error,) = json.loads(browser.text)["errors"]
            assert error["field"] == "everybody"

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("query", "sees"),
    [
        (b"everybody=true", [1, 2]),
        (b"x=1&everybody=%74rue", [1, 2]),
        (b"everybody=false", [2]),
        (b"x=everybody=true", [2]),
    ],
)
def test_an_admin_hears_everybody_when_asked_to(query: bytes, sees: list[int]) -> None:
    async def scenario() -> None:
        async with scene(bus=cast("Bus", SimpleNamespace(request=_recorded))) as on:
            on.named.fields = {"role": Role.ADMIN}
            browser = await on.open(query=query)
            on.hall.tell(1, owner="alice")
            on.hall.tell(2)
            assert (await browser.until_number(2)).taken == sees

    asyncio.run(scenario())


async def _recorded(_: Any) -> None:
    """A look was audited."""


def test_a_credential_that_has_expired_unheard_ends_the_stream() -> None:
    async def scenario() -> None:
        async with scene(heartbeat_s=0.02) as on:
            bob = await on.open(owner="bob")
            on.named.gone = frozenset({"bob"})
            assert await bob.let_go()
            assert bob.kinds == ["hello", "signed_out"]

    asyncio.run(scenario())


def test_a_new_client_is_greeted_with_where_it_begins() -> None:
    async def scenario() -> None:
        async with scene(last=41) as on:
            browser = await on.open()
            assert browser.status == 200
            assert browser.headers[b"content-type"] == b"text/event-stream; charset=utf-8"
            assert browser.headers[b"cache-control"] == b"no-store"
            assert [(e.id, e.kind) for e in browser.events] == [(f"{BORN}-41", "hello")]
            on.hall.tell(42)
            told_42 = (await browser.until_number(42)).events[1]
            assert (told_42.id, told_42.kind) == (f"{BORN}-42", "intent_changed")
            assert told_42.data == json.loads(told(42).encode())

    asyncio.run(scenario())


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS"])
def test_another_method_is_a_405_problem(method: str) -> None:
    async def scenario() -> None:
        hall = Hall()
        browser = Browser(EventStream(NO_BUS, hall, NAMED, StatusSettings()), method=method)
        assert await browser.let_go()
        assert browser.status == 405
        assert browser.headers[b"content-type"] == b"application/problem+json"
        assert json.loads(browser.text)["code"] == "method_not_allowed"
        assert browser.ended
        assert hall.present == []

    asyncio.run(scenario())


def test_an_event_is_encoded_once_however_many_clients() -> None:
    async def scenario() -> None:
        async with scene() as on:
            browsers = [await on.open() for _ in range(50)]
            on.hall.tell(1, 2, 3)
            for browser in browsers:
                assert (await browser.until_number(3)).taken == [1, 2, 3]
            late = [await on.open(f"{BORN}-1") for _ in range(20)]
            assert [browser.taken for browser in late] == [[2, 3]] * 20
            assert on.hall.encoded == [1, 2, 3]

    asyncio.run(scenario())


def test_a_silent_stream_has_a_heartbeat() -> None:
    async def scenario() -> None:
        async with scene(heartbeat_s=0.02) as on:
            browser = await on.open()
            await browser.until(lambda b: b.text.count(": still here\n\n") >= 3)
            on.hall.tell(1)
            await browser.until_number(1)
            assert browser.kinds == ["hello", "intent_changed"]  # a comment is no event

    asyncio.run(scenario())


def test_a_client_that_leaves_is_forgotten() -> None:
    async def scenario() -> None:
        async with scene() as on:
            stays, leaves = await on.open(), await on.open()
            assert await leaves.leave()
            assert len(on.hall.present) == 1
            on.hall.tell(1)
            await stays.until_number(1)
            assert leaves.taken == []

    asyncio.run(scenario())


def test_a_client_that_leaves_as_an_event_comes_is_forgotten() -> None:
    async def scenario() -> None:
        async with scene() as on:
            browser = await on.open()
            await asyncio.sleep(0.02)
            leaving = asyncio.ensure_future(browser.leave(within_s=0.3))
            for number in range(1, 20):  # one with each turn of the loop, until it has left
                on.hall.tell(number)
                await asyncio.sleep(0)
            assert await leaving

    asyncio.run(scenario())


# ---- slow clients


def test_a_client_that_does_not_read_is_reset_and_let_go_and_others_are_unaffected() -> None:
    several = 300

    async def scenario() -> None:
        async with scene(queue_size=10) as on:
            slow, quick = await on.open(), await on.open()
            slow.reads.clear()
            for number in range(1, several + 1):
                on.hall.tell(number)
                if not number % 5:
                    await quick.until_number(number)
                assert all(client.queue.qsize() <= 10 for client in on.hall.present)
            assert quick.taken == list(range(1, several + 1))

            slow.reads.set()
            assert await slow.let_go()
            assert slow.ended
            assert slow.kinds[-1] == "reset"
            assert slow.events[-1].data == {"reason": "this client is too slow"}
            assert slow.taken == list(range(1, len(slow.taken) + 1))  # no gap before it
            assert len(slow.taken) <= 10
            assert len(on.hall.present) == 1
            on.hall.tell(several + 1)
            await quick.until_number(several + 1)

    asyncio.run(scenario())


def test_a_client_that_takes_its_time_but_keeps_up_is_not_reset() -> None:
    async def scenario() -> None:
        async with scene(queue_size=10) as on:
            browser = await on.open()
            for number in range(1, 101, 10):
                browser.reads.clear()
                on.hall.tell(*range(number, number + 10))
                browser.reads.set()
                await browser.until_number(number + 9)
            assert browser.taken == list(range(1, 101))
            assert browser.kinds.count("reset") == 0

    asyncio.run(scenario())


def test_a_client_that_never_reads_again_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "LET_GO_S", 0.05)

    async def scenario() -> None:
        async with scene(queue_size=10, heartbeat_s=0.05) as on:
            browser = await on.open()
            browser.reads.clear()
            for number in range(1, 100):
                on.hall.tell(number)
                await asyncio.sleep(0)
            assert await browser.let_go(within_s=0.5)

    asyncio.run(scenario())


def test_after_a_reset_a_client_goes_on_where_the_stream_was() -> None:
    async def scenario() -> None:
        async with scene(queue_size=10) as on:
            browser = await on.open()
            on.hall.tell(1, 2, 3)
            await browser.until_number(3)
            browser.reads.clear()
            for number in range(4, 40):
                on.hall.tell(number)
                await asyncio.sleep(0)
            browser.reads.set()
            await browser.let_go()
            assert browser.kinds[-1] == "reset"
            again = await on.open(browser.last_id)  # as EventSource does
            on.hall.tell(40)
            await again.until_number(40)
            assert not set(again.taken) & set(browser.taken)
            assert again.events[0].kind == "hello"

    asyncio.run(scenario())


# ---- coming back


@pytest.mark.parametrize("after", [10, 11, 14, 15])
def test_what_was_missed_is_replayed_from_memory(after: int) -> None:
    async def scenario() -> None:
        async with scene(last=10) as on:  # without a bus: the stream cannot be asked
            on.hall.tell(11, 12)
            on.hall.tell(13, owner="another")
            on.hall.tell(14, 15)
            browser = await on.open(f"{BORN}-{after}")
            assert browser.kinds[0] == "hello"
            assert browser.taken == [n for n in (11, 12, 14, 15) if n > after]
            on.hall.tell(16)
            assert (await browser.until_number(16)).taken[-1] == 16

    asyncio.run(scenario())


@pytest.mark.parametrize("after", [0, 7, 20])
@pytest.mark.parametrize("known_from", [20, 15])
def test_what_was_missed_is_replayed_from_the_stream(
    nats: NatsServer, after: int, known_from: int
) -> None:
    async def scenario() -> None:
        async with nats.bus() as bus:
            await keep(bus, range(1, 21))
            async with scene(known_from, bus) as on:
                on.hall.tell(*range(known_from + 1, 21))
                browser = await on.open(f"{BORN}-{after}")
                assert browser.kinds[0] == "hello"
                assert browser.taken == list(range(after + 1, 21))
                on.hall.tell(21)
                assert (await browser.until_number(21)).taken == list(range(after + 1, 22))

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "last_id",
    [
        "0-3",  # another life of the stream
        "5f3b-3",
        "3",
        "-3",
        f"{BORN}",
        f"{BORN}-",
        f"{BORN}--3",
        f"{BORN}-x",
        f"{BORN}-1.5",
        f"{BORN}-\u00b2",
        f"{BORN}-6",  # ahead of the stream
        f"{BORN}-99999999999999999999",
        f"x-{BORN}-3",
        "garbage",
        f"{BORN}-{'1' * 5000}",
    ],
    ids=lambda last_id: last_id[:24],
)
def test_what_cannot_be_continued_is_reset(last_id: str) -> None:
    async def scenario() -> None:
        async with scene(last=2) as on:
            on.hall.tell(3, 4, 5)
            browser = on.visit(last_id)
            await browser.until(lambda b: bool(b.events) or b.ended)
            assert browser.kinds == ["reset"]
            assert browser.last_id == f"{BORN}-5"
            on.hall.tell(6)  # and it goes on
            assert (await browser.until_number(6)).taken == [6]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("after", "kinds"), [(2, ["reset"]), (5, ["reset"]), (6, ["hello"]), (9, ["hello"])]
)
def test_what_the_stream_has_forgotten_is_a_reset(
    nats: NatsServer, after: int, kinds: list[str]
) -> None:
    async def scenario() -> None:
        async with nats.bus() as bus, nats.raw() as raw:
            await keep(bus, range(1, 11))
            await raw.purge_stream(EVENTS, seq=7)
            async with scene(10, bus) as on:
                browser = await on.open(f"{BORN}-{after}")
                missed = list(range(after + 1, 11)) if kinds == ["hello"] else []
                assert browser.kinds[:1] == kinds
                assert browser.taken == missed

    asyncio.run(scenario())


@pytest.mark.parametrize(("most", "kind"), [(9, "reset"), (10, "reset"), (11, "hello")])
def test_a_client_that_missed_too_much_is_reset(
    nats: NatsServer, monkeypatch: pytest.MonkeyPatch, most: int, kind: str
) -> None:
    monkeypatch.setattr(stream, "REPLAY_MOST", most)

    async def scenario() -> None:
        async with nats.bus() as bus:
            await keep(bus, range(1, 11))
            async with scene(10, bus) as on:
                assert (await on.open(f"{BORN}-0")).kinds[0] == kind

    asyncio.run(scenario())


@pytest.mark.parametrize(("most", "kind"), [(10, "reset"), (11, "hello")])
def test_what_is_mostly_others_is_looked_through_for_a_while_only(
    nats: NatsServer, monkeypatch: pytest.MonkeyPatch, most: int, kind: str
) -> None:
    """Or one share would be enough to have the stream asked thousands of times at each return."""
    monkeypatch.setattr(stream, "SEARCH_MOST", most)

    async def scenario() -> None:
        async with nats.bus() as bus:
            await keep(bus, range(1, 11), "alice")
            async with scene(10, bus) as on:
                assert (await on.open(f"{BORN}-0", owner="bob")).kinds[0] == "hello"
                on.named.shared = {"s5": Permission.VIEWER}
                browser = await on.open(f"{BORN}-0", owner="bob")
                assert browser.kinds[0] == kind
                assert browser.taken == ([5] if kind == "hello" else [])

    asyncio.run(scenario())


def test_events_during_a_replay_are_neither_lost_nor_doubled(nats: NatsServer) -> None:
    """New ones come before, between and after each question that the replay asks the stream."""

    async def scenario() -> None:
        async with nats.bus() as bus:
            await keep(bus, range(1, 11))
            async with scene(10, bus) as on:
                numbers = iter(range(11, 1000))
                last = 10

                async def happens() -> None:
                    nonlocal last
                    last = next(numbers)
                    await keep(bus, [last])
                    on.hall.tell(last)

                busy = _Busy(bus, happens)
                on.app = EventStream(cast("Bus", busy), on.hall, NAMED, StatusSettings())
                browser = on.visit(f"{BORN}-0")
                on.hall.tell(next(numbers))  # after it joined, before it has looked
                await keep(bus, [11])
                await browser.until_number(10)
                await happens()
                await browser.until_number(last)
                assert last > 20
                assert browser.taken == list(range(1, last + 1))

    asyncio.run(scenario())


class _Busy:
    """A bus during whose every answer something happens."""

    def __init__(self, bus: Bus, happens: Callable[[], Any]) -> None:
        self._bus = bus
        self._happens = happens

    async def stream_state(self, name: str) -> StreamState:
        await self._happens()
        return await self._bus.stream_state(name)

    async def next_stored(self, name: str, after: int, subjects: str) -> Stored | None:
        found = await self._bus.next_stored(name, after, subjects)
        await self._happens()
        return found


def test_a_replay_that_takes_too_long_ends_in_a_reset() -> None:
    """What came meanwhile does not fit into the queue; the client is not left with a gap."""

    async def scenario() -> None:
        hall = Hall(last=10)

        class Slow:
            async def stream_state(self, _: str) -> StreamState:
                for number in range(11, 31):
                    hall.tell(number)
                return StreamState(BORN, 1, 10)

            async def next_stored(self, _: str, after: int, _subjects: str) -> Stored | None:
                return stored(after + 1) if after < 10 else None

        app = EventStream(cast("Bus", Slow()), hall, NAMED, StatusSettings(queue_size=5))
        browser = Browser(app, f"{BORN}-5")
        assert await browser.let_go()
        assert browser.taken == [6, 7, 8, 9, 10]
        assert browser.kinds[-1] == "reset"
        assert hall.present == []

    asyncio.run(scenario())


def test_a_replay_that_the_stream_does_not_answer_promises_nothing() -> None:
    """The connection ends, and the browser comes back with the same id."""

    async def scenario() -> None:
        hall = Hall(last=10)

        class Away:
            async def stream_state(self, _: str) -> StreamState:
                raise ServiceUnavailable("the stream did not confirm")

        browser = Browser(
            EventStream(cast("Bus", Away()), hall, NAMED, StatusSettings()), f"{BORN}-5"
        )
        assert await browser.let_go()
        assert browser.events == []
        assert browser.ended
        assert hall.present == []

    asyncio.run(scenario())


# ---- the service


@asynccontextmanager
async def status_service(bus: Bus, home: Path) -> AsyncGenerator[Asgi]:
    """With a database in which TOKEN is the local user's."""
    (home / "data").mkdir(exist_ok=True)
    settings = Settings(
        home=home,
        status=StatusSettings(heartbeat_s=5),
        database=DatabaseSettings(url=databases.migrated(home / "data" / "openbell.db")),
    )
    await _let_in(settings)
    async with serve(settings, bus) as app:
        yield app
        await asyncio.sleep(0.05)  # until it has nothing to do: see test_bus on cancellations


async def _let_in(settings: Settings) -> None:
    database = Database(settings.database_url)
    async with database.write() as session:
        await session.merge(
            ApiToken(
                id="t",
                user_id=LOCAL_USER,
                name="t",
                token_hash=digest(TOKEN),
                scopes=list(Scope),
                created_at=NOW,
            )
        )
    await database.close()


def test_the_next_life_of_the_service_continues_where_a_browser_was(
    nats: NatsServer, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with nats.bus() as bus:
            await keep(bus, [1, 2])
            async with status_service(bus, tmp_path) as app:
                browser = await Browser(app).connected()
                await keep(bus, [3, 4])
                assert (await browser.until_number(4)).taken == [3, 4]
                last_id = browser.last_id
                await browser.end()
            await keep(bus, [5, 6])
            async with status_service(bus, tmp_path) as app:
                browser = await Browser(app, last_id).connected()
                await keep(bus, [7])
                assert (await browser.until_number(7)).taken == [5, 6, 7]
                assert browser.kinds[0] == "hello"
                await browser.end()

    asyncio.run(scenario())


def test_two_replicas_number_alike(nats: NatsServer, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            nats.bus("one") as one,
            nats.bus("two") as two,
            status_service(one, tmp_path) as first,
            status_service(two, tmp_path) as second,
        ):
            browser = await Browser(first).connected()
            await keep(one, range(1, 6))
            await browser.until_number(5)
            other = await Browser(second).connected()
            await keep(one, [6])
            await other.until_number(6)
            moved = await Browser(second, browser.events[3].id).connected()
            assert (await moved.until_number(6)).taken == [4, 5, 6]
            for each in (browser, other, moved):
                await each.end()

    asyncio.run(scenario())


@pytest.mark.usefixtures("in_a_hurry")
def test_kill_9_of_nats_costs_a_browser_nothing(nats: NatsServer, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with nats.bus() as bus, status_service(bus, tmp_path) as app:
            browser = await Browser(app).connected()
            await keep(bus, [1, 2])
            await browser.until_number(2)
            nats.kill()
            nats.start_again()
            for number in range(3, 8):
                while True:
                    try:
                        await keep(bus, [number])
                        break
                    except ServiceUnavailable:
                        await asyncio.sleep(0.02)
            assert (await browser.until_number(7)).taken == list(range(1, 8))
            assert browser.kinds.count("reset") == 0
            await browser.end()

    asyncio.run(scenario())
