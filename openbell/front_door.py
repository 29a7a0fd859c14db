"""One origin for several ASGI apps: picks the app by path, and lets go of streams at the end."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Container, Iterable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from openbell.contracts.errors import (
    ForeignOrigin,
    NoSuchPage,
    OpenbellError,
    ServiceUnavailable,
)

Scope = MutableMapping[str, Any]
Incoming = Callable[[], Awaitable[MutableMapping[str, Any]]]
Outgoing = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Asgi = Callable[[Scope, Incoming, Outgoing], Awaitable[None]]

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
DISCONNECTED = {"type": "http.disconnect"}
CLOSE_S = 0.5


class FrontDoor:
    """Answers under known names alone, and no page of another site.

    A page of another site, opened in a browser on this machine, could reach this port: by its own
    name resolved to this address, or by a form. Hence Host must be one of `names`, and Origin, if
    sent, the same host. Without names, any will do: for a port that others reach, where the
    cookies of this site are sent to no other.
    """

    def __init__(self, names: Container[str] | None) -> None:
        self._names = names
        self._routes: list[tuple[str, Asgi]] = []
        self._closing = asyncio.Event()
        self._requests: set[asyncio.Task[Any]] = set()

    def mount(self, paths: Iterable[str], app: Asgi) -> None:
        self._routes += [(path, app) for path in paths]
        self._routes.sort(key=lambda route: len(route[0]), reverse=True)

    def close(self) -> None:
        """Tell every open request that its client has gone, so that endless streams end.

        Those that do not listen, since they wait for something else, are ended a moment later.
        """
        self._closing.set()
        asyncio.get_running_loop().call_later(CLOSE_S, self._end_requests)

    def _end_requests(self) -> None:
        for request in self._requests:
            request.cancel()

    async def __call__(self, scope: Scope, receive: Incoming, send: Outgoing) -> None:
        if scope["type"] != "http":
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        if not self._is_ours(headers):
            await send_problem(
                send, ForeignOrigin("Openbell answers its own pages, under its own name, only")
            )
            return
        for prefix, app in self._routes:
            if prefix == "/" or scope["path"] == prefix:
                await self._serve(app, scope, receive, send)
                return
        await send_problem(send, NoSuchPage(scope["path"][:200]))

    def _is_ours(self, headers: dict[bytes, bytes]) -> bool:
        host = headers.get(b"host", b"").decode("latin-1")
        origin = headers.get(b"origin")
        try:
            if (
                self._names is not None
                and (urlsplit(f"//{host}").hostname or "") not in self._names
            ):
                return False
            return origin is None or urlsplit(origin.decode("latin-1")).netloc == host
        except ValueError:
            return False

    async def _serve(self, app: Asgi, scope: Scope, receive: Incoming, send: Outgoing) -> None:
        answered = False

        async def answer(message: MutableMapping[str, Any]) -> None:
            nonlocal answered
            answered = True
            await send(message)

        request = asyncio.current_task()
        assert request is not None
        self._requests.add(request)
        try:
            await app(scope, self._until_closing(receive), answer)
        except asyncio.CancelledError:
            if not self._closing.is_set():
                raise
            if not answered:
                await send_problem(send, ServiceUnavailable("Openbell is shutting down"))
        finally:
            self._requests.discard(request)

    def _until_closing(self, receive: Incoming) -> Incoming:
        async def receive_or_leave() -> MutableMapping[str, Any]:
            if self._closing.is_set():
                return dict(DISCONNECTED)
            message = asyncio.ensure_future(receive())
            closing = asyncio.ensure_future(self._closing.wait())
            try:
                await asyncio.wait({message, closing}, return_when=asyncio.FIRST_COMPLETED)
                return message.result() if message.done() else dict(DISCONNECTED)
            finally:
                message.cancel()
                closing.cancel()

        return receive_or_leave


async def send_problem(send: Outgoing, error: OpenbellError) -> None:
    """Answer with problem+json, without any framework."""
    problem = error.problem()
    body = json.dumps(problem.model_dump(exclude_none=True)).encode()
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
