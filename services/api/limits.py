"""Keeps requests small and storable, before anybody looks at them.

A body beyond the limit is refused, and never held. A NUL is in no address: PostgreSQL keeps none
in a text.
"""

from collections.abc import MutableMapping
from typing import Annotated, Any

from pydantic import StringConstraints

from openbell.contracts.errors import InvalidRequest, NoSuchPage, OpenbellError, TooLarge
from openbell.front_door import Asgi, Incoming, Outgoing, Scope, send_problem

Storable = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$")]
"""A text in a body, which is looked up as it is."""
DISCARD_MOST = 128 * 1024**2
"""Read and thrown away before refusing, since a client that is still sending hears nothing."""


def limited(app: Asgi, most_bytes: int) -> Asgi:
    """The app, behind what its requests may be."""

    async def serve(scope: Scope, receive: Incoming, send: Outgoing) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        refusal = _refusal(scope)
        if refusal is not None:
            await send_problem(send, refusal)
            return
        if scope["method"] in {"GET", "HEAD"}:
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


def _refusal(scope: Scope) -> OpenbellError | None:
    """Of an address with a NUL in it."""
    if "\0" in scope["path"]:
        return NoSuchPage("no address has a NUL in it")
    if b"%00" in scope["query_string"]:
        return InvalidRequest("no parameter has a NUL in it")
    return None


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
