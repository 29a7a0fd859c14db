"""The front door: who is let in, who answers, and that nobody is held when it closes."""

import asyncio
import json
from collections.abc import MutableMapping
from typing import Any

import pytest

from openbell.front_door import DISCONNECTED, LOOPBACK, Asgi, FrontDoor, Incoming, Outgoing, Scope

Sent = list[MutableMapping[str, Any]]


def answering(text: str) -> Asgi:
    async def app(_scope: Scope, _receive: Incoming, send: Outgoing) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": text.encode()})

    return app


def door() -> FrontDoor:
    front = FrontDoor(LOOPBACK)
    front.mount(["/"], answering("api"))
    front.mount(["/python/events"], answering("status"))
    return front


async def never() -> MutableMapping[str, Any]:
    await asyncio.Event().wait()
    raise AssertionError


def request(front: FrontDoor, path: str = "/", **headers: str) -> Sent:
    sent: Sent = []

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    given = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    scope = {"type": "http", "method": "GET", "path": path, "headers": given}
    asyncio.run(front(scope, never, send))
    return sent


def body(sent: Sent) -> str:
    return sent[1]["body"].decode()


def assert_refused(sent: Sent) -> None:
    assert sent[0]["status"] == 403
    headers = dict(sent[0]["headers"])
    assert headers[b"content-type"] == b"application/problem+json"
    assert int(headers[b"content-length"]) == len(sent[1]["body"])
    problem = json.loads(sent[1]["body"])
    assert (problem["status"], problem["code"]) == (403, "foreign_origin")
    assert not sent[1].get("more_body")


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.0.0.1:8000", "localhost", "localhost:8000", "LOCALHOST:80", "[::1]:8000"],
)
def test_this_machine_is_let_in(host: str) -> None:
    assert body(request(door(), host=host)) == "api"


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",  # DNS rebinding: the attacker's name, resolved to this address
        "evil.example:8000",
        "127.0.0.1.evil.example",
        "localhost.evil.example:8000",
        "evil.example#127.0.0.1",
        "evil.example?@127.0.0.1",
        "evil.example/@localhost",
        "192.168.1.5:8000",
        "0.0.0.0:8000",
        "[::ffff:192.168.1.5]",
        "[fe80::1]:8000",
        "2130706433",
        "0x7f.1",
        "",
        " ",
        "[",
        "]",
        "[::1",
        "::1",
        "a b",
        ":8000",
        "@",
        "\xff\xfe",
        "\u00bd",  # no host name once normalised
        "x" * 10_000,
    ],
)
def test_another_name_for_this_machine_is_refused(host: str) -> None:
    assert_refused(request(door(), host=host))


def test_a_request_without_a_host_is_refused() -> None:
    assert_refused(request(door()))


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("localhost:8000", "http://localhost:8000"),
        ("[::1]:8000", "http://[::1]:8000"),
        ("localhost", "http://localhost"),
    ],
)
def test_our_own_page_is_let_in(host: str, origin: str) -> None:
    assert body(request(door(), host=host, origin=origin)) == "api"


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "http://127.0.0.1:8001",  # another program's page on this machine
        "http://127.0.0.1",
        "http://localhost:8000",
        "http://127.0.0.1:8000.evil.example",
        "http://user@127.0.0.1:8000",
        "null",
        "",
        "127.0.0.1:8000",
        "http://[",
        "file://",
        "\xff",
    ],
)
def test_a_page_of_another_origin_is_refused(origin: str) -> None:
    assert_refused(request(door(), host="127.0.0.1:8000", origin=origin))


PUBLIC = LOOPBACK | {"openbell.example"}


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("openbell.example", "https://openbell.example"),
        ("openbell.example:8443", "https://openbell.example:8443"),
        ("OPENBELL.example", None),
        ("127.0.0.1:8000", "http://127.0.0.1:8000"),
    ],
)
def test_a_public_name_is_let_in_beside_those_of_this_machine(
    host: str, origin: str | None
) -> None:
    front = FrontDoor(PUBLIC)
    front.mount(["/"], answering("api"))
    headers = {"host": host} | ({"origin": origin} if origin else {})
    assert body(request(front, **headers)) == "api"


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("evil.example", None),
        ("openbell.example.evil.example", None),
        ("openbell.example", "https://evil.example"),
        ("openbell.example", "https://openbell.example:8443"),
        ("127.0.0.1:8000", "https://openbell.example"),  # Host was rewritten on the way
    ],
)
def test_beside_a_public_name_no_other_is_let_in(host: str, origin: str | None) -> None:
    front = FrontDoor(PUBLIC)
    headers = {"host": host} | ({"origin": origin} if origin else {})
    assert_refused(request(front, **headers))


def test_whom_a_page_asks_does_not_matter() -> None:
    evil = {"host": "127.0.0.1:8000", "origin": "http://evil.example"}
    assert_refused(request(door(), "/python/events", **evil))
    assert_refused(request(door(), "/nowhere", **evil))


@pytest.mark.parametrize(
    ("path", "who"),
    [
        ("/python/events", "status"),
        ("/python/events/", "api"),
        ("/python/events/x", "api"),
        ("/python/eventsx", "api"),
        ("/PYTHON/EVENTS", "api"),
        ("/python/", "api"),
        ("/", "api"),
        ("", "api"),
        ("//python/events", "api"),
    ],
)
@pytest.mark.parametrize("api_first", [True, False])
def test_an_address_is_exact_and_the_root_takes_the_rest(
    path: str, who: str, *, api_first: bool
) -> None:
    front = FrontDoor(LOOPBACK)
    mounted = [("/", "api"), ("/python/events", "status")]
    for address, name in mounted if api_first else reversed(mounted):
        front.mount([address], answering(name))
    assert body(request(front, path, host="localhost")) == who


def test_an_address_that_nobody_serves_is_a_404() -> None:
    front = FrontDoor(LOOPBACK)
    front.mount(["/python/events"], answering("status"))
    sent = request(front, "/python/", host="localhost")
    assert sent[0]["status"] == 404
    assert json.loads(sent[1]["body"])["code"] == "no_such_page"


@pytest.mark.parametrize("kind", ["websocket", "lifespan"])
def test_nothing_but_http_is_spoken(kind: str) -> None:
    async def fail(_scope: Scope, _receive: Incoming, _send: Outgoing) -> None:
        raise AssertionError

    async def scenario() -> None:
        front = FrontDoor(LOOPBACK)
        front.mount(["/"], fail)
        host = [(b"host", b"evil.example")]
        await front({"type": kind, "path": "/", "headers": host}, never, _unsent)

    asyncio.run(scenario())


async def _unsent(_message: MutableMapping[str, Any]) -> None:
    raise AssertionError


SCOPE = {"type": "http", "method": "GET", "path": "/", "headers": [(b"host", b"localhost")]}


class Listener:
    """An app that notes what it receives, until it is told that its client has gone."""

    def __init__(self) -> None:
        self.received: list[str] = []

    async def __call__(self, _scope: Scope, receive: Incoming, _send: Outgoing) -> None:
        kind = ""
        while kind != "http.disconnect":
            kind = (await receive())["type"]
            self.received.append(kind)


def test_closing_ends_every_waiting_request_and_all_that_come() -> None:
    async def scenario() -> None:
        front, app = FrontDoor(LOOPBACK), Listener()
        front.mount(["/"], app)
        waiting = [asyncio.create_task(front(SCOPE, never, _unsent)) for _ in range(5)]
        await asyncio.sleep(0)
        assert not any(task.done() for task in waiting)
        front.close()
        async with asyncio.timeout(5):
            await asyncio.gather(*waiting)
            await front(SCOPE, never, _unsent)
        assert app.received == ["http.disconnect"] * 6
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(scenario())


def test_what_the_client_sends_comes_through_in_order() -> None:
    async def scenario() -> None:
        front, app = FrontDoor(LOOPBACK), Listener()
        front.mount(["/"], app)
        incoming = [{"type": "http.request"}, {"type": "http.request"}, dict(DISCONNECTED)]

        async def receive() -> MutableMapping[str, Any]:
            await asyncio.sleep(0)
            return incoming.pop(0)

        await front(SCOPE, receive, _unsent)
        assert app.received == ["http.request", "http.request", "http.disconnect"]

    asyncio.run(scenario())


def test_a_broken_connection_is_told_to_the_app() -> None:
    async def scenario() -> None:
        front = FrontDoor(LOOPBACK)
        front.mount(["/"], Listener())

        async def receive() -> MutableMapping[str, Any]:
            raise ConnectionResetError

        with pytest.raises(ConnectionResetError):
            await front(SCOPE, receive, _unsent)

    asyncio.run(scenario())


def test_an_app_that_leaves_its_request_leaves_nothing_waiting() -> None:
    cancelled: list[bool] = []

    async def receive() -> MutableMapping[str, Any]:
        try:
            return await never()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    async def scenario() -> None:
        front = FrontDoor(LOOPBACK)
        front.mount(["/"], Listener())
        request = asyncio.create_task(front(SCOPE, receive, _unsent))
        await asyncio.sleep(0.01)
        request.cancel()
        await asyncio.gather(request, return_exceptions=True)
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(scenario())
    assert cancelled == [True]
