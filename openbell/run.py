"""Composes any subset of the services into one process, behind one front door.

The only place that knows which services there are.
"""

import asyncio
import contextlib
import importlib
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import FrameType
from typing import cast

import structlog

from openbell import alive, descriptors, permissions
from openbell import bus as buses
from openbell.bus import Bus
from openbell.connections import backlog, bounded, room
from openbell.front_door import LOOPBACK, Asgi, FrontDoor
from openbell.settings import HttpSettings, Settings

log = structlog.get_logger()

Serve = Callable[[Settings, Bus], AbstractAsyncContextManager[Asgi | None]]


@dataclass(frozen=True, slots=True)
class Service:
    """Where a service is, and which addresses it answers."""

    module: str
    paths: tuple[str, ...] = ()

    def serve(self) -> Serve:
        return cast("Serve", importlib.import_module(self.module).serve)


# In the order of starting: what a runner needs for a start is there before anything is granted.
# The reverse is the order of ending: the scheduler goes before the runner, or it would start again
# what the runner stops because the host shuts down.
SERVICES: dict[str, Service] = {
    "calendar": Service("services.calendar.service"),
    "status": Service("services.status.service", paths=("/python/events",)),
    "api": Service("services.api.service", paths=("/",)),
    "runner": Service("services.runner.service"),
    "scheduler": Service("services.scheduler.service"),
}


async def run(
    names: Sequence[str],
    settings: Settings,
    *,
    listening: Callable[[str], None] = lambda _: None,
    stopping: Callable[[], None] = lambda: None,
) -> None:
    """Serve until SIGINT or SIGTERM. `listening` is told the address once requests are answered.

    Raises ServiceUnavailable without a NATS server, OSError when the port is taken.
    """
    descriptors.raise_limit()
    wanted = {name: service for name, service in SERVICES.items() if name in names}
    listener = None
    if any(service.paths for service in wanted.values()):
        await _require_somebody(settings)
        listener = _listener(settings)
    door = FrontDoor(_names(settings.http))
    with _signals() as leave:
        async with contextlib.AsyncExitStack() as stack:
            connections = await _connect(wanted, settings, stack)
            for name, service in wanted.items():
                app = await stack.enter_async_context(service.serve()(settings, connections[name]))
                if app is not None:
                    door.mount(service.paths, app)
            if listener is not None:
                trusted = [str(network) for network in settings.http.trusted_proxies]
                await stack.enter_async_context(_http(door, listener, trusted))
                host, port = listener.getsockname()[:2]
                listening(f"http://{host}:{port}")
            else:
                listening("")
            if settings.alive is not None:
                told = alive.told(settings.alive, list(connections.values()))
                await stack.enter_async_context(told)
            await leave.wait()
            stopping()


async def _connect(
    names: Iterable[str], settings: Settings, stack: contextlib.AsyncExitStack
) -> dict[str, Bus]:
    """A connection for each service, with its own rights. What they read is there by then."""
    connections: dict[str, Bus] = {}
    for name in names:
        user = permissions.user_of(name, settings.runner.id)
        connected = buses.connected(settings.nats, user)
        connections[name] = await stack.enter_async_context(connected)
    if permissions.STORE_KEEPER in connections:
        await connections[permissions.STORE_KEEPER].ensure_stores(settings.nats)
    for name, bus in connections.items():
        for stream in permissions.READS.get(name, ()):
            await bus.wait_for(stream)
    return connections


def _names(http: HttpSettings) -> frozenset[str] | None:
    """Under which names it is asked; None: under any."""
    known = http.names or http.private or http.host in LOOPBACK
    return LOOPBACK | http.names if known else None


async def _require_somebody(settings: Settings) -> None:
    """Until somebody can sign in, nothing but this machine is served.

    Raises OSError, ServiceUnavailable.
    """
    http = settings.http
    reached_by = http.names if http.private else http.names | {http.host}
    others = reached_by - LOOPBACK
    if not others:
        return
    from openbell.db.migrate import require_current  # noqa: PLC0415 - the runner has none
    from openbell.db.session import Database  # noqa: PLC0415
    from openbell.identity import is_claimed  # noqa: PLC0415

    await require_current(settings.database_url)
    database = Database(settings.database_url)
    try:
        async with database.read() as session:
            if await is_claimed(session):
                return
    finally:
        await database.close()
    raise OSError(
        f"{', '.join(sorted(others))} is refused until somebody can sign in: start on 127.0.0.1"
        " alone first, and open the setup link"
    )


def _listener(settings: Settings) -> socket.socket:
    """Bound at once, so that a taken port is said before anything is started."""
    host, port = settings.http.host, settings.http.port
    try:
        return socket.create_server((host, port), backlog=backlog(descriptors.limit()))
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(f"{host}:{port} cannot be served: {reason}; try --port") from None


@contextlib.asynccontextmanager
async def _http(
    door: FrontDoor, listener: socket.socket, trusted_proxies: list[str]
) -> AsyncGenerator[None]:
    """The outermost context: open streams end, and requests finish, before any service leaves."""
    import uvicorn  # noqa: PLC0415 - a process without addresses needs none
    from uvicorn.protocols.http.auto import AutoHTTPProtocol  # noqa: PLC0415

    class Server(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Generator[None]:
            yield  # uvicorn raises them again when it ends, before the services have left

    limit = descriptors.limit()
    config = uvicorn.Config(
        door,
        http=bounded(AutoHTTPProtocol, room(limit)),
        ws="none",
        backlog=backlog(limit),
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(trusted_proxies),
        forwarded_allow_ips=trusted_proxies,
        timeout_graceful_shutdown=5,
    )
    server = Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
        if serving.done():
            await serving
        await asyncio.sleep(0.001)
    try:
        yield
    finally:
        door.close()
        server.should_exit = True
        await serving


@contextlib.contextmanager
def _signals() -> Generator[asyncio.Event]:
    """An event that SIGINT, SIGTERM and the like set. The process owns its signals, no library."""
    leave = asyncio.Event()
    loop = asyncio.get_running_loop()

    def ask_to_leave(_signal: int, _frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(leave.set)

    handled = [signal.SIGINT, signal.SIGTERM]
    if sys.platform == "win32":
        handled.append(signal.SIGBREAK)
    else:
        handled.append(signal.SIGHUP)  # its terminal was closed
    before = [signal.signal(number, ask_to_leave) for number in handled]
    try:
        yield leave
    finally:
        for number, handler in zip(handled, before, strict=True):
            signal.signal(number, handler)
