"""Keeps requests small: a body beyond the limit is refused, and never held."""

from collections.abc import MutableMapping
from typing import Any

from openbell.contracts.errors import TooLarge
from openbell.front_door import Asgi, Incoming, Outgoing, Scope, send_problem

DISCARD_MOST = 128 * 1024**2
"""Read and thrown away before refusing, since a client that is still sending hears nothing."""


def limited(app: Asgi, most_bytes: int) -> Asgi:
    """The app, behind a limit on the size of a request's body."""

    async def serve(scope: Scope, receive: Incoming, send: Outgoing) -> None:
        if scope["type"] != "http" or scope["method"] in {"GET", "HEAD"}:
            await app(scope, receive, send)
            return
        try:
            body = await _read(receive, most_bytes)
        except ClientGone:
            return
        except TooLarge as error:
            await send_problem(send, error)
            return
        await app(scope, _replayed(body, receive), send)

    return serve


class ClientGone(ConnectionError):
    """The client left before its request was whole."""


async def _read(receive: Incoming, most_bytes: int) -> bytes:
    """The whole body. Raises ClientGone, TooLarge."""
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size <= most_bytes:
            chunks.append(chunk)
        if not message.get("more_body", False) or size > DISCARD_MOST:
            break
    if size > most_bytes:
        raise TooLarge(f"at most {most_bytes} bytes are taken")
    return b"".join(chunks)


def _replayed(body: bytes, receive: Incoming) -> Incoming:
    pending: list[MutableMapping[str, Any]] = [
        {"type": "http.request", "body": body, "more_body": False}
    ]

    async def receive_again() -> MutableMapping[str, Any]:
        return pending.pop() if pending else await receive()

    return receive_again
