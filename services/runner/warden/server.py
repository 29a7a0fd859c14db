"""The warden's clients: many, none of them trusted to behave, none of them waited for."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from selectors import EVENT_READ, EVENT_WRITE, BaseSelector

from .journal import Journal
from .protocol import (
    Json,
    Lines,
    RefusedError,
    Request,
    Subscribe,
    decode,
    encode,
    request_from_json,
)

OUT_LIMIT = 8 << 20
ENOUGH = 1 << 16
BATCH = 200
CLIENTS = 128


class Client:
    def __init__(self, connection: socket.socket, *, admitted: bool) -> None:
        self.connection = connection
        self.lines = Lines()
        self.out = bytearray()
        self.admitted = admitted
        self.heard_until: int | None = None


class Server:
    """Answers wait in the clients' buffers until `flush`, which comes after the commit.

    A subscriber has no queue but a place in the journal, and is fed as it drains.
    """

    def __init__(
        self,
        listener: socket.socket,
        selector: BaseSelector,
        journal: Journal,
        answer: Callable[[Request], Json],
        token: str = "",
    ) -> None:
        self._listener = listener
        self._selector = selector
        self._journal = journal
        self._answer = answer
        self._token = token
        self._clients: set[Client] = set()
        selector.register(listener, EVENT_READ, self._accept)

    @property
    def connected(self) -> bool:
        return bool(self._clients)

    def flush(self) -> None:
        for client in tuple(self._clients):
            self._write(client)

    def close(self) -> None:
        self._selector.unregister(self._listener)
        self._listener.close()
        for client in tuple(self._clients):
            self._drop(client)

    def _accept(self) -> None:
        with suppress(OSError):
            connection, _ = self._listener.accept()
            if len(self._clients) >= CLIENTS:
                connection.close()
                return
            connection.settimeout(0)
            client = Client(connection, admitted=not self._token)
            self._clients.add(client)
            self._selector.register(connection, EVENT_READ, lambda: self._read(client))

    def _read(self, client: Client) -> None:
        try:
            data = client.connection.recv(ENOUGH)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(client)
            return
        try:
            for line in client.lines.feed(data):
                self._hear(client, line)
        except RefusedError:
            self._drop(client)

    def _hear(self, client: Client, line: bytes) -> None:
        if not client.admitted:
            if line.decode(errors="replace") != self._token:
                raise RefusedError("unauthorised", "the first line must be the token")
            client.admitted = True
            return
        client.out += encode(self._reply(client, line))
        if len(client.out) > OUT_LIMIT:
            raise RefusedError("overflow", "answers are not read")

    def _reply(self, client: Client, line: bytes) -> Json:
        number: object = None
        try:
            message = decode(line)
            number = message.get("id")
            request = request_from_json(message)
            if isinstance(request, Subscribe):
                client.heard_until = request.after
                return {"id": number, "ok": {}}
            return {"id": number, "ok": self._answer(request)}
        except RefusedError as refused:
            code, detail = refused.code, refused.detail
        except Exception as error:  # noqa: BLE001 - a client's request never ends the warden
            sys.excepthook(type(error), error, error.__traceback__)
            code, detail = "internal", repr(error)
        return {"id": number, "error": {"code": code, "detail": detail}}

    def _write(self, client: Client) -> None:
        try:
            while self._feed(client):
                sent = client.connection.send(client.out)
                del client.out[:sent]
        except BlockingIOError:
            pass
        except OSError:
            self._drop(client)
            return
        events = EVENT_READ | EVENT_WRITE if client.out else EVENT_READ
        key = self._selector.get_key(client.connection)
        if key.events != events:
            self._selector.modify(client.connection, events, key.data)

    def _feed(self, client: Client) -> bool:
        if client.heard_until is not None and len(client.out) < ENOUGH:
            for entry in self._journal.after(client.heard_until, BATCH):
                client.out += encode({"entry": entry.to_json()})
                client.heard_until = entry.seq
        return bool(client.out)

    def _drop(self, client: Client) -> None:
        self._clients.discard(client)
        self._selector.unregister(client.connection)
        client.connection.close()
