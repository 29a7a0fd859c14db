"""The agent on a host: needs NATS alone, no database and no inbound port."""

import asyncio
import contextlib
import platform
import secrets
from collections.abc import AsyncGenerator, Callable

import structlog
from filelock import FileLock

from openbell import private_files
from openbell.bus import Bus
from openbell.contracts.base import utc_now
from openbell.contracts.commands import LockEnvironment, StartRun, StopRun
from openbell.contracts.errors import RunnerRefused, ServiceUnavailable
from openbell.contracts.model import RunnerInfo
from openbell.contracts.room import Room
from openbell.sealing import RunnerKey
from openbell.settings import Settings
from services.runner.artifacts import Artifacts
from services.runner.backends.process import ProcessBackend
from services.runner.collecting import Collector
from services.runner.environments import BuildFailed, Environments
from services.runner.interpreters import holds
from services.runner.locking import Locking
from services.runner.logs.service import RunLogs
from services.runner.monitor.monitor import Monitor
from services.runner.monitor.reporter import Reporter
from services.runner.monitor.room import Rooms
from services.runner.pythons import Pythons
from services.runner.reports import Reports
from services.runner.supervisor import Supervisor

log = structlog.get_logger()


@contextlib.asynccontextmanager
async def serve(settings: Settings, bus: Bus) -> AsyncGenerator[None]:
    await _refuse_a_second_one(settings, bus)
    _refuse_to_show(settings)
    settings.logs.mkdir(mode=0o700, parents=True, exist_ok=True)
    backend = ProcessBackend(settings.data / "warden", own=settings.runner.own_warden)
    pythons = Pythons()
    environments = Environments(
        settings.data / "environments", settings.runner.python, pythons, Artifacts(bus)
    )
    key = _key(settings)
    monitor = Monitor(backend.stop, settings.runner.sample_s)
    reports = Reports(settings, bus, key, monitor)
    supervisor = Supervisor(settings, bus, backend, environments, reports, monitor)
    reporter = Reporter(
        settings.runner.id, monitor, bus.tell_metrics, settings.home, settings.runner.metrics_s
    )

    def forks() -> bool:
        return settings.runner.fork and backend.capabilities.namespaces

    rooms = Rooms(backend, monitor, supervisor.expected_memory, settings.runner.most_runs, forks)
    runner = settings.runner.id
    logs = RunLogs(settings, bus, key, supervisor.may_write)

    building = asyncio.create_task(_build_ahead(environments))
    looking = asyncio.create_task(pythons.look())
    collector = Collector(
        settings.data / "environments", settings.environments, supervisor.environments_in_use
    )
    collecting = asyncio.create_task(collector.run())
    async with supervisor.running(), monitor.running(), reporter.running(), logs.serving():
        await bus.answer(StartRun, supervisor.start, runner)
        await bus.answer(StopRun, supervisor.stop, runner)
        await bus.answer(LockEnvironment, Locking(pythons, environments).answer, runner)

        def capabilities() -> dict[str, str]:
            return backend.capabilities.as_texts() | logs.capabilities

        beating = asyncio.create_task(
            _beat(settings, bus, capabilities, key, supervisor.ready, pythons, looking, rooms)
        )
        try:
            yield
        finally:
            tasks = (beating, building, looking, collecting)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await environments.close()
            await pythons.close()
            with contextlib.suppress(ServiceUnavailable):
                await bus.withdraw(runner)


async def _refuse_a_second_one(settings: Settings, bus: Bus) -> None:
    """Two runners of one name would each hold half of its runs. Raises RunnerRefused."""
    there = await bus.runner(settings.runner.id)
    if there is not None and there.home != _home_id(settings):
        raise RunnerRefused(
            f"another runner named {settings.runner.id!r} is connected:"
            " give this one a name of its own, OPENBELL_RUNNER__ID"
        )


def _refuse_to_show(settings: Settings) -> None:
    """Its keys would be every strategy's to read. Raises RunnerRefused."""
    for path in settings.runner.readable:
        if holds(path, settings.home):
            raise RunnerRefused(
                f"OPENBELL_RUNNER__READABLE: {path} holds Openbell's own home: name less of it"
            )


def _home_id(settings: Settings) -> str:
    """What tells this home from any other: random, made once, kept in it."""
    settings.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = settings.data / "home-id"
    with FileLock(settings.data / "home-id.lock"):
        if not file.exists():
            file.write_text(secrets.token_hex(16))
        return file.read_text()


def _key(settings: Settings) -> RunnerKey:
    """To which the variables of our runs are sealed. Raises ServiceUnavailable."""
    file = settings.data / "runner-key"
    try:
        return RunnerKey(private_files.kept(file, RunnerKey.made))
    except ValueError:
        raise ServiceUnavailable(f"{file} holds no key: delete it, a new one is made") from None


async def _build_ahead(environments: Environments) -> None:
    """So that the first start need not wait. A failure is told to the start that meets it."""
    try:
        await environments.interpreter()
    except (BuildFailed, OSError) as error:
        log.warning("the default environment is not built yet", reason=str(error))


async def _beat(
    settings: Settings,
    bus: Bus,
    capabilities: Callable[[], dict[str, str]],
    key: RunnerKey,
    ready: asyncio.Event,
    pythons: Pythons,
    looking: asyncio.Task[None],
    rooms: Rooms,
) -> None:
    """Only a runner that can start something asks for work. What is found is told at once."""
    home = _home_id(settings)
    while True:
        await ready.wait()
        room = await _room(rooms)
        info = RunnerInfo(
            runner=settings.runner.id,
            home=home,
            platform=platform.system(),
            python=platform.python_version(),
            at=utc_now(),
            capabilities=capabilities(),
            pythons=tuple(python.text for python in pythons.found),
            public_key=key.public,
            room=room,
        )
        with contextlib.suppress(ServiceUnavailable):
            await bus.announce(info)
        if looking.done():
            await asyncio.sleep(settings.runner.heartbeat_s)
        else:
            await asyncio.wait([looking], timeout=settings.runner.heartbeat_s)


async def _room(rooms: Rooms) -> Room | None:
    """None when it cannot be told: a runner without a heartbeat would get no runs at all."""
    try:
        return await rooms.look()
    except Exception:
        log.exception("the room for more runs could not be told")
        return None
