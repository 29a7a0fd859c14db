"""A request's body is limited, however it is sent."""

import asyncio
import json
from collections.abc import MutableMapping
from typing import Any

import pytest

from openbell.front_door import Incoming, Outgoing, Scope
from services.api import limits
from services.api.limits import limited

LIMIT = 1000
Message = MutableMapping[str, Any]
GONE: Message = {"type": "http.disconnect"}
ADDRESS: dict[str, Any] = {"type": "http", "path": "/", "query_string": b""}


def part(body: bytes, *, more: bool) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


def chunks(*sizes: int) -> list[Message]:
    last = len(sizes) - 1
    return [part(bytes([n % 256]) * size, more=n < last) for n, size in enumerate(sizes)]


class Exchange:
    """One request: what the app was given, and what the client was answered."""

    def __init__(
        self, incoming: list[Message], method: str = "POST", length: str | None = None
    ) -> None:
        self._incoming = incoming
        self.sent: list[Message] = []
        self.given: list[Message] = []
        self.called = False
        self.left_unread = 0
        headers = [(b"content-length", length.encode())] if length is not None else []
        scope = ADDRESS | {"method": method, "headers": headers}
        asyncio.run(self._serve(scope))

    async def _serve(self, scope: Scope) -> None:
        await limited(self._app, LIMIT)(scope, self._receive, self._send)

    async def _app(self, _scope: Scope, receive: Incoming, send: Outgoing) -> None:
        self.called = True
        while True:
            message = await receive()
            self.given.append(message)
            if message["type"] == "http.disconnect" or not message.get("more_body"):
                break
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def _receive(self) -> Message:
        return self._incoming.pop(0) if self._incoming else dict(GONE)

    async def _send(self, message: Message) -> None:
        self.sent.append(message)

    @property
    def status(self) -> int:
        return self.sent[0]["status"]

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.given)

    @property
    def complete(self) -> bool:
        """Whether the app took what it was given for the whole body."""
        return any(m["type"] == "http.request" and not m.get("more_body") for m in self.given)


@pytest.mark.parametrize(
    "sizes",
    [(LIMIT + 1,), (LIMIT, 1), (0, LIMIT, 1), (600, 600), (1,) * (LIMIT + 1), (5 * LIMIT, 1, 1)],
    ids=lambda sizes: f"{len(sizes)} chunks",
)
@pytest.mark.parametrize("length", ["exact", "absent", "a lie", "no number"])
def test_a_body_over_the_limit_is_refused(sizes: tuple[int, ...], length: str) -> None:
    said = {"exact": str(sum(sizes)), "absent": None, "a lie": "1", "no number": "x"}[length]
    exchange = Exchange(chunks(*sizes), length=said)
    assert not exchange.called
    assert exchange.status == 413
    problem = json.loads(exchange.sent[1]["body"])
    assert problem["code"] == "too_large"
    assert str(LIMIT) in problem["detail"]


@pytest.mark.parametrize(
    "sizes",
    [(LIMIT,), (LIMIT - 1, 1), (0, LIMIT, 0), (1,) * LIMIT, (0,), (1,), (0, 0, 0)],
    ids=lambda sizes: f"{sum(sizes)} bytes in {len(sizes)}",
)
@pytest.mark.parametrize("length", ["exact", "absent"])
def test_a_body_up_to_the_limit_is_handed_on_unchanged(sizes: tuple[int, ...], length: str) -> None:
    expected = b"".join(message["body"] for message in chunks(*sizes))
    exchange = Exchange(chunks(*sizes), length=str(sum(sizes)) if length == "exact" else None)
    assert exchange.status == 200
    assert exchange.body == expected
    assert exchange.complete


def test_a_message_without_its_optional_fields_is_an_empty_body() -> None:
    exchange = Exchange([{"type": "http.request"}])
    assert (exchange.status, exchange.body) == (200, b"")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "MADEUP"])
def test_whatever_may_have_a_body_is_limited(method: str) -> None:
    assert Exchange(chunks(LIMIT + 1), method).status == 413


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_what_has_no_body_is_not_waited_for(method: str) -> None:
    exchange = Exchange([], method)
    assert exchange.given == [GONE]


def test_the_app_hears_of_a_client_that_leaves_after_its_body() -> None:
    heard: list[str] = []

    async def app(_scope: Scope, receive: Incoming, _send: Outgoing) -> None:
        heard.extend([(await receive())["type"], (await receive())["type"]])

    async def scenario() -> None:
        incoming = [part(b"x", more=False), dict(GONE)]

        async def receive() -> Message:
            return incoming.pop(0)

        async def send(_message: Message) -> None:
            raise AssertionError

        await limited(app, LIMIT)(ADDRESS | {"method": "POST"}, receive, send)

    asyncio.run(scenario())
    assert heard == ["http.request", "http.disconnect"]


def test_a_large_body_is_read_to_its_end_and_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that is still sending hears nothing; but there is an end to patience."""
    monkeypatch.setattr(limits, "DISCARD_MOST", 50 * LIMIT)
    read_to_its_end = chunks(*(LIMIT,) * 40)
    assert Exchange(read_to_its_end).status == 413
    assert read_to_its_end == []
    endless = chunks(*(LIMIT,) * 100)
    assert Exchange(endless).status == 413
    assert len(endless) == 49


@pytest.mark.parametrize("before", [[], [10], [10, 10]], ids=str)
def test_half_a_body_is_never_taken_for_a_whole_one(before: list[int]) -> None:
    exchange = Exchange([*(part(b"x" * size, more=True) for size in before), dict(GONE)])
    assert not exchange.complete


def test_the_beginning_of_a_body_over_the_limit_is_never_taken_for_a_whole_one() -> None:
    begun = [part(b"x" * 600, more=True), part(b"y" * 600, more=True), dict(GONE)]
    assert not Exchange(begun).complete


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ({"path": "/a\0b"}, 404),
        ({"query_string": b"user=%00"}, 422),
        ({"query_string": b"a=b&%00"}, 422),
        ({"query_string": b"user=%2500"}, 200),
        ({"path": "/%00"}, 200),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_address_holds_no_nul(address: dict[str, Any], status: int, method: str) -> None:
    async def app(_scope: Scope, _receive: Incoming, send: Outgoing) -> None:
        await send({"type": "http.response.start", "status": 200})

    async def scenario() -> list[Message]:
        sent: list[Message] = []

        async def receive() -> Message:
            return part(b"", more=False)

        async def send(message: Message) -> None:
            sent.append(message)

        await limited(app, LIMIT)(ADDRESS | {"method": method} | address, receive, send)
        return sent

    assert asyncio.run(scenario())[0]["status"] == status


def test_nothing_but_http_is_touched() -> None:
    seen: list[str] = []

    async def app(scope: Scope, _receive: Incoming, _send: Outgoing) -> None:
        seen.append(scope["type"])

    async def untouched(*_: Any) -> Any:
        raise AssertionError

    async def scenario() -> None:
        await limited(app, LIMIT)({"type": "lifespan"}, untouched, untouched)

    asyncio.run(scenario())
    assert seen == ["lifespan"]
