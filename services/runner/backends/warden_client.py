"""The runner's side of the warden's wire.

A client is one connection. When it is lost, everything pending on it raises
`WardenUnavailable`; the caller connects anew and replays from the last entry it handled.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, cast

from openbell import descriptors
from services.runner.warden.address import ADDRESS
from services.runner.warden.build import BUILD
from services.runner.warden.protocol import (
    LINE_LIMIT,
    VERSION,
    Ack,
    Entry,
    Hello,
    Json,
    ListRuns,
    RefusedError,
    Request,
    Shutdown,
    Start,
    Stop,
    Subscribe,
    Upgrade,
    decode,
    encode,
    request_to_json,
)

ROOT = Path(__file__).parents[3]
BOOT = "import sys; sys.path.insert(0, {root!r}); from services.runner.warden.main import main; "
ALREADY_RUNNING = 3
PATIENCE = 10.0
# A hidden console of its own: no Ctrl-C of ours reaches it, and it can send CTRL_BREAK.
DETACHED = subprocess.CREATE_NO_WINDOW if sys.platform == "win32" else 0
GLANCE, PAUSE = 0.002, 0.1
SHORT = 100
"""A socket's path must fit into 104 bytes on macOS, 108 on Linux."""


class WardenUnavailable(ConnectionError):
    """No warden answers: it cannot be reached, or the connection to it was lost."""


class WardenRefused(Exception):
    """The warden answered with an error."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Started:
    pid: int
    start_ticks: int
    started_at: float


@dataclass(frozen=True, slots=True)
class LiveRun:
    run: str
    strategy: str
    epoch: int
    state: str
    ladder: Sequence[tuple[str, float]]
    note: str | None = None
    pid: int | None = None
    """None, like what follows, while it is held."""
    start_ticks: int | None = None
    started_at: float | None = None
    keeper: bool = False


class WardenClient:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.pid = 0
        self.boot_id = ""
        self.seq = 0
        self.acknowledged = 0
        self.holds = False
        self.build = ""
        self.host: dict[str, Any] = {}
        """What its host can do for a run; empty where it does nothing special."""
        self._writer = writer
        self._numbers = itertools.count(1)
        self._pending: dict[int, asyncio.Future[Json]] = {}
        self._heard: list[Entry] = []
        self._news = asyncio.Event()
        """Set when more was heard, or the connection was lost."""
        self._lost: str | None = None
        self._listening = asyncio.create_task(self._listen(reader))

    @classmethod
    async def connect(
        cls, folder: Path, *, python: Path = Path(sys.executable), own: bool = True
    ) -> Self:
        """Attaches to the folder's warden, and starts one where none answers, unless it is not
        our `own`: then it is left as it is, too.

        Of two wardens started at once, one holds the folder's lock and the other ends; so
        whoever finds nobody starts one, and goes on knocking.
        """
        give_up = time.monotonic() + PATIENCE
        started: subprocess.Popen[bytes] | None = None
        pause = GLANCE
        upgraded = False
        while True:
            try:
                client = await cls._attach(folder)
                if client.build == BUILD or upgraded or not own:
                    return client
                upgraded = True
                if not await client._upgrade(python):
                    return client
                continue
            except OSError as error:
                if time.monotonic() > give_up:
                    raise WardenUnavailable(f"no warden answers in {folder}: {error}") from error
            if own and (started is None or _must_start_again(started, folder)):
                started = _start(folder, python)
            await asyncio.sleep(pause)
            pause = min(1.2 * pause, PAUSE)

    async def start(self, request: Start) -> Started | None:
        """None while it is held for its instant."""
        if request.at is not None and not self.holds:
            # A warden of an earlier release would start it now, whatever the instant.
            await asyncio.sleep(max(0, request.at - time.time()))
            request = replace(request, at=None)
        answer = await self._ask(request)
        return Started(**cast("dict[str, Any]", answer)) if answer else None

    async def stop(
        self,
        run: str,
        reason: str,
        ladder: Sequence[tuple[str, float]],
        detail: str | None = None,
    ) -> None:
        await self._ask(Stop(run, reason, tuple(ladder), detail))

    async def list(self) -> list[LiveRun]:
        answer = await self._ask(ListRuns())
        return [LiveRun(**run) for run in cast("list[dict[str, Any]]", answer["runs"])]

    async def acknowledge(self, seq: int) -> None:
        await self._ask(Ack(seq))

    async def shutdown(self) -> None:
        await self._ask(Shutdown())

    async def entries(self, after: int) -> AsyncIterator[Sequence[Entry]]:
        """Every entry later than `after`, in order, for ever, as many at once as have come; one
        such reader a client.
        """
        await self._ask(Subscribe(after))
        while self._lost is None or self._heard:
            await self._news.wait()
            self._news.clear()
            batch, self._heard = self._heard, []
            if batch:
                yield batch
        raise WardenUnavailable(self._lost)

    async def close(self) -> None:
        self._listening.cancel()
        await asyncio.gather(self._listening, return_exceptions=True)

    async def _upgrade(self, python: Path) -> bool:
        """Whether it has become our own release: then it has to be connected to anew.

        It may put that off, and us with it: the connection is lost at another time then.
        """
        try:
            async with asyncio.timeout(PATIENCE):
                await self._ask(_successor(python))
                await self._news.wait()  # until the connection is lost
        except (WardenRefused, TimeoutError):
            return False
        except WardenUnavailable:
            pass
        await self.close()
        return True

    @classmethod
    async def _attach(cls, folder: Path) -> Self:
        reader, writer = await _open(folder)
        client = cls(reader, writer)
        try:
            async with asyncio.timeout(PATIENCE):
                hello = cast("dict[str, Any]", await client._ask(Hello()))
        except BaseException:
            await client.close()
            raise
        if hello["version"] != VERSION:
            await client.close()
            raise WardenRefused("version", f"the warden speaks version {hello['version']}")
        client.pid, client.boot_id = hello["pid"], hello["boot_id"]
        client.seq, client.acknowledged = hello["seq"], hello["acknowledged"]
        client.holds = hello.get("holds", False)
        client.build, client.host = hello.get("build", ""), hello.get("host", {})
        return client

    async def _ask(self, request: Request) -> Json:
        if self._lost is not None:
            raise WardenUnavailable(self._lost)
        number = next(self._numbers)
        answer = asyncio.get_running_loop().create_future()
        self._pending[number] = answer
        try:
            self._writer.write(encode({"id": number, **request_to_json(request)}))
            return await answer
        finally:
            del self._pending[number]

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        lost = "the warden closed the connection"
        try:
            while line := await reader.readline():
                self._hear(decode(line))
        except (OSError, ValueError, RefusedError) as error:
            lost = f"the connection to the warden broke: {error}"
        except asyncio.CancelledError:
            lost = "this client was closed"
            raise
        finally:
            self._lose(lost)

    def _hear(self, message: Json) -> None:
        if "entry" in message:
            self._heard.append(Entry.from_json(cast("Json", message["entry"])))
            self._news.set()
            return
        answer = self._pending.get(cast("int", message.get("id")))
        if answer is None or answer.done():
            return
        if "error" in message:
            error = cast("dict[str, str]", message["error"])
            answer.set_exception(WardenRefused(error["code"], error["detail"]))
        else:
            answer.set_result(cast("Json", message["ok"]))

    def _lose(self, why: str) -> None:
        self._lost = why
        self._writer.transport.abort()
        self._news.set()
        for answer in self._pending.values():
            if not answer.done():
                answer.set_exception(WardenUnavailable(why))


def _successor(python: Path) -> Upgrade:
    return Upgrade(str(python.absolute()), BOOT.format(root=str(ROOT)))


async def _open(folder: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        address = cast("dict[str, Any]", json.loads((folder / ADDRESS).read_bytes()))
    except ValueError as error:
        raise WardenUnavailable(f"{folder / ADDRESS}: {error}") from error
    if sys.platform == "win32":
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", address["port"], limit=LINE_LIMIT
        )
        writer.write(address["token"].encode() + b"\n")
        return reader, writer
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(0)
        with _short(Path(address["socket"])) as path:
            connection.connect(str(path))
        return await asyncio.open_unix_connection(sock=connection, limit=LINE_LIMIT)
    except BaseException:
        connection.close()
        raise


@contextmanager
def _short(path: Path) -> Generator[Path]:
    if len(os.fsencode(path)) <= SHORT:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="openbell-") as folder:
        link = Path(folder) / "w"
        link.symlink_to(path.parent)
        yield link / path.name


def _start(folder: Path, python: Path) -> subprocess.Popen[bytes]:
    try:
        return _spawn(folder, python)
    except OSError as error:
        raise WardenUnavailable(f"no warden can be started: {error}") from error


def _spawn(folder: Path, python: Path) -> subprocess.Popen[bytes]:
    """Detached: in a session of its own, so that neither Ctrl-C nor our death reaches it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    program = _as_before() + BOOT.format(root=str(ROOT)) + f"main({str(folder.absolute())!r})"
    with (folder / "warden.log").open("ab") as log:
        warden = subprocess.Popen(
            [python.absolute(), "-I", "-S", "-c", program],
            cwd=folder.anchor or "/",
            env={name: os.environ[name] for name in ("SYSTEMROOT",) if name in os.environ},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            creationflags=DETACHED,
        )
    # Whoever ends first: a warden that ends while we live must leave no zombie.
    threading.Thread(target=warden.wait, name="warden-reaper", daemon=True).start()
    return warden


def _as_before() -> str:
    """Gives back what this process has raised for itself: strategies get what they always got."""
    soft = descriptors.given()
    if soft is None:
        return ""
    return (
        "from resource import RLIMIT_NOFILE as n, getrlimit, setrlimit;"
        f" setrlimit(n, ({soft}, getrlimit(n)[1]))\n"
    )


def _must_start_again(started: subprocess.Popen[bytes], folder: Path) -> bool:
    """It ended: because another holds the lock, or was idle just now; else it is broken."""
    code = started.returncode
    if code is None:
        return False
    if code not in {0, ALREADY_RUNNING}:
        said = (folder / "warden.log").read_bytes()[-500:].decode(errors="replace")
        raise WardenUnavailable(f"the warden ended with {code}: {said}")
    return True
