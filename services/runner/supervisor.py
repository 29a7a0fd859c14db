"""Starts and stops runs on this host, watches them, and has what becomes of them reported.

Holds nothing that must survive it: what runs is the backend's, what happened is in the backend's
journal until the stream has it.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import psutil
import structlog

from openbell.bus import Bus
from openbell.contracts.base import Done, utc_now
from openbell.contracts.commands import StartRun, StopRun
from openbell.contracts.errors import OpenbellError, ServiceUnavailable, UnknownRun
from openbell.contracts.model import ExitReason, RunState, StopStep
from openbell.settings import Settings
from services.runner import logs, preload, sources, variables
from services.runner.backends.base import (
    Backend,
    BackendLost,
    NoSuchRun,
    Observation,
    Process,
    Recovery,
    RunSpec,
    StartRefused,
)
from services.runner.environments import BuildFailed, Environments
from services.runner.interpreters import BrokenInterpreter, Interpreters
from services.runner.monitor.host import default_memory_mb
from services.runner.monitor.monitor import Monitor, Watched
from services.runner.monitor.room import Expected
from services.runner.monitor.samples import Enforced
from services.runner.notes import Note, heartbeat
from services.runner.reports import RETRY_S, Reports
from services.runner.sources import Sources

CONNECT_S = 4
REAP_S = 10
"""How long after the last rung of the ladder the trees may take to be gone."""

LONGEST_RETRY_S = 10.0
A_FEW = 4

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Live:
    """A run that may be alive."""

    strategy_id: str
    ladder: tuple[StopStep, ...]
    note: Note


class Supervisor:
    def __init__(
        self,
        settings: Settings,
        bus: Bus,
        backend: Backend,
        environments: Environments,
        reports: Reports,
        monitor: Monitor,
    ) -> None:
        self._settings = settings
        self._backend = backend
        self._environments = environments
        self._interpreters = Interpreters(settings.home)
        self._reports = reports
        self._monitor = monitor
        self._sources = Sources(settings.strategies, bus)
        self._memory_mb = default_memory_mb(psutil.virtual_memory().total)
        self._preparing: dict[str, asyncio.Task[None]] = {}
        self._ordered: dict[str, Expected] = {}
        """What those that are being prepared are to need."""
        self._refused: dict[str, int] = {}
        self.ready = asyncio.Event()
        """Set while connected to the owner of the runs."""
        self._live: dict[str, Live] = {}
        """Those that may be alive."""
        self._recovered = False
        self._idle = asyncio.Event()
        self._idle.set()

    def may_write(self) -> frozenset[str] | None:
        """The runs whose logs may still grow; None, until it is known what runs."""
        return frozenset(self._live) if self._recovered else None

    def expected_memory(self) -> dict[str, Expected]:
        """Of each run that lives, or is being prepared."""
        notes = {run_id: live.note for run_id, live in self._live.items()}
        return self._ordered | {
            run_id: Expected(note.expected_memory_bytes, note.expected_as_seen)
            for run_id, note in notes.items()
        }

    def environments_in_use(self) -> frozenset[str] | None:
        """The keys of those in which something may run; None, until that is known of all."""
        keys = {live.note.environment for live in self._live.values()}
        if not self._recovered or None in keys:
            return None
        return frozenset(key for key in keys if key)

    # ---- commands

    async def start(self, command: StartRun) -> Done:
        """Begin to start a run; how it goes is reported."""
        if command.epoch <= self._refused.get(command.strategy_id, 0):
            raise UnknownRun("it was stopped before it started")
        if command.run_id not in self._preparing:
            task = asyncio.create_task(self._prepare(command))
            self._preparing[command.run_id] = task
            expected = Expected(command.expected_memory_bytes or 0, command.expected_as_seen)
            self._ordered[command.run_id] = expected
            task.add_done_callback(lambda _: self._prepared(command.run_id))
        return Done()

    def _prepared(self, run_id: str) -> None:
        """It lives by now, or never will."""
        self._preparing.pop(run_id, None)
        self._ordered.pop(run_id, None)

    async def stop(self, command: StopRun) -> Done:
        """Begin to stop a run. Raises UnknownRun when it is not known here.

        From the first moment on its epoch is refused: a start that this stop has overtaken, and
        that arrives while we wait below, must not come to life.
        """
        refused = self._refused.get(command.strategy_id, 0)
        self._refused[command.strategy_id] = max(refused, command.epoch)
        preparing = self._preparing.get(command.run_id)
        if preparing is not None:
            preparing.cancel()
            await asyncio.gather(preparing, return_exceptions=True)
        try:
            async with asyncio.timeout(CONNECT_S):
                await self.ready.wait()
            await self._backend.stop(command.run_id, command.ladder, command.reason)
        except TimeoutError:
            raise ServiceUnavailable("the owner of the runs does not answer") from None
        except NoSuchRun:
            self._drop_live(command.run_id)
            raise UnknownRun(f"{command.run_id} is not known to this runner") from None
        except BackendLost as error:
            raise ServiceUnavailable(str(error)) from error
        return Done()

    async def _prepare(self, command: StartRun) -> None:
        """Once what runs is known: of a live run that is told to start again, a failure to fetch
        what it needs would be reported as its end, and a second copy be granted.
        """
        await self.ready.wait()
        if command.run_id in self._live:
            return
        failed = self._reports.start_failed
        try:
            spec = await self._fetched(command)
            self._add_live(spec.run_id, Live(spec.strategy_id, spec.ladder, Note.read(spec.note)))
            await self._start(spec)
        except StartRefused as error:
            if not error.observed:
                await failed(command, str(error))
            self._drop_live(command.run_id)
        except BuildFailed as error:
            await failed(command, f"the environment could not be built: {error}")
        except OpenbellError as error:
            await failed(command, error.detail)
        except (OSError, BrokenInterpreter) as error:
            await failed(command, str(error))
        except Exception:
            log.exception("a run did not start", run=command.run_id)
            await failed(command, "a defect of Openbell; its runner's log tells more")

    async def _start(self, spec: RunSpec) -> None:
        """As often as the connection is lost: a start that is repeated starts nothing twice."""
        while True:
            await self.ready.wait()
            try:
                await self._backend.start(spec)
            except BackendLost:
                self.ready.clear()
            else:
                return

    async def _fetched(self, command: StartRun) -> RunSpec:
        """As often as who has it is away: an outage of Openbell is no failure of a strategy. Many
        may wait for the same, and each that asks again takes of the time of whoever has it.
        """
        pause, told = RETRY_S, ""
        while True:
            try:
                return await self._spec(command)
            except ServiceUnavailable as error:
                if error.detail != told:
                    log.warning("a start waits", run=command.run_id, reason=error.detail)
                    await self._reports.preparing(command, error.detail)
                    told = error.detail
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_RETRY_S)

    async def _spec(self, command: StartRun) -> RunSpec:
        """All that a start needs, fetched side by side."""

        async def tell(detail: str) -> None:
            await self._reports.preparing(command, detail)

        python, folder, own = await asyncio.gather(
            self._environments.interpreter(command.lock_sha256, command.python, tell),
            self._sources.check_out(command.strategy_id, command.sha256, command.filename),
            self._reports.variables(command.run_id, command.epoch),
        )
        self._reports.hide(command.run_id, own)
        note = Note.of(command, self._memory_mb, self._environments.key(python))
        return RunSpec(
            run_id=command.run_id,
            strategy_id=command.strategy_id,
            epoch=command.epoch,
            python=python,
            script=command.filename,
            folder=folder,
            environment=variables.build(
                command,
                folder,
                python,
                host=self._settings.runner.environment,
                own=own.variables,
            ),
            log=self._log(command.strategy_id, command.run_id),
            ladder=command.ladder,
            owner=command.owner,
            limits=note.limits,
            max_runtime_s=command.watchdogs.max_runtime_s,
            note=note.model_dump_json(),
            readable=(*await self._interpreters.readable(python), *self._settings.runner.readable),
            start_at=command.start_at if self._is_early(command) else self._at_once(),
            preload=await self._preload(command, folder / command.filename),
        )

    def _is_early(self, command: StartRun) -> bool:
        return command.start_at is not None and command.start_at > utc_now()

    def _at_once(self) -> datetime | None:
        """Of many that start together, as at a boot, each is prepared beside the others: of one,
        and of a few, it is quicker to wait for each.
        """
        return utc_now() if len(self._preparing) > A_FEW else None

    async def _preload(self, command: StartRun, script: Path) -> tuple[str, ...] | None:
        """None: not to be forked. Where all strategies have one user, packages that an owner has
        chosen would see the folders of all while they are imported: there they are not shared.
        """
        wanted = self._settings.runner.fork and command.interpreter == "shared"
        trusted = command.lock_sha256 is None or self._backend.capabilities.own_user
        if not (wanted and trusted):
            return None
        source = await asyncio.to_thread(sources.read, script)
        return None if source is None else await asyncio.to_thread(preload.shareable, source)

    def _log(self, strategy_id: str, run_id: str) -> Path:
        return logs.log_file(self._settings.logs, strategy_id, run_id).resolve()

    # ---- what happens to runs

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Connected to what runs, and reporting it.

        At the end everything goes on, or is stopped, as the settings say.
        """
        watching = asyncio.create_task(self._watch_forever())
        try:
            yield
        finally:
            preparing = list(self._preparing.values())
            for task in preparing:
                task.cancel()
            await asyncio.gather(*preparing, return_exceptions=True)
            if self._settings.runner.stop_strategies_on_exit:
                await self._stop_all()
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            await self._reports.close()
            await self._backend.close()

    async def _watch_forever(self) -> None:
        while True:
            try:
                recovery = await self._backend.recover()
                self._find_again(recovery)
                self._reports.learn((run.run_id, run.epoch) for run in recovery.live)
                self.ready.set()
                await self._watch(recovery)
            except BackendLost as error:
                log.warning("the owner of the runs does not answer", reason=str(error))
            except Exception:
                log.exception("watching failed; it begins anew")
            self.ready.clear()
            await asyncio.sleep(RETRY_S)

    def _find_again(self, recovery: Recovery) -> None:
        for handle in recovery.live:
            live = Live(handle.strategy_id, handle.ladder, Note.read(handle.note))
            self._add_live(handle.run_id, live)
            if handle.process is not None:
                self._monitor.watch(handle.run_id, self._watched(handle.run_id, handle.process))
        self._recovered = True

    async def _watch(self, recovery: Recovery) -> None:
        """Until the backend is lost: what starts is watched at once, also while the stream, which
        is told of it, is away.
        """
        heard: asyncio.Queue[Sequence[Observation]] = asyncio.Queue()
        tasks = [
            asyncio.create_task(self._hear(recovery, heard)),
            asyncio.create_task(self._tell(recovery, heard)),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _hear(
        self, recovery: Recovery, heard: "asyncio.Queue[Sequence[Observation]]"
    ) -> None:
        async for observations in self._backend.observations(recovery.acknowledged):
            for observation in observations:
                if observation.process is not None and observation.run_id in self._live:
                    watched = self._watched(observation.run_id, observation.process)
                    self._monitor.watch(observation.run_id, watched)
            heard.put_nowait(observations)

    async def _tell(
        self, recovery: Recovery, heard: "asyncio.Queue[Sequence[Observation]]"
    ) -> None:
        """Pass on what happened while nobody watched; say that this is all; go on. The journal may
        forget what the stream has.
        """
        told_all = recovery.acknowledged >= recovery.observed
        if told_all:
            await self._come_up()
        while True:
            observations = await heard.get()
            await self._reports.pass_on(observations)
            await self._backend.acknowledge(observations[-1].number)
            for observation in observations:
                if observation.state is RunState.EXITED:
                    self._drop_live(observation.run_id)
            if not told_all and observations[-1].number >= recovery.observed:
                told_all = True
                await self._come_up()

    async def _come_up(self) -> None:
        await self._reports.came_up({*self._live, *self._preparing})

    def _watched(self, run_id: str, process: Process) -> Watched:
        live = self._live[run_id]
        folder = (self._settings.strategies / live.strategy_id).resolve()
        able = self._backend.capabilities
        return Watched(
            strategy_id=live.strategy_id,
            folder=folder,
            log=self._log(live.strategy_id, run_id),
            heartbeat=heartbeat(folder),
            limits=live.note.limits,
            watchdogs=live.note.watchdogs,
            ladder=live.ladder,
            started_at=process.started_at,
            pid=process.pid,
            keeper=process.keeper,
            group=self._backend.group(run_id),
            enforced=Enforced(
                memory=able.memory_limit == "enforced", processes=able.pids_limit == "enforced"
            ),
        )

    def _add_live(self, run_id: str, live: Live) -> None:
        self._live[run_id] = live
        self._idle.clear()

    def _drop_live(self, run_id: str) -> None:
        self._live.pop(run_id, None)
        self._monitor.forget(run_id)
        self._reports.forget(run_id)
        if not self._live:
            self._idle.set()

    async def _stop_all(self) -> None:
        """The host shuts down: every tree walks its ladder, and is gone when this returns."""
        ladders = {run_id: live.ladder for run_id, live in self._live.items()}
        for run_id, ladder in ladders.items():
            try:
                await self._backend.stop(run_id, ladder, ExitReason.HOST_SHUTDOWN)
            except NoSuchRun:
                self._drop_live(run_id)
            except BackendLost as error:
                log.warning("not told to stop", run=run_id, reason=str(error))
        longest = max(
            (sum(step.wait_s for step in ladder) for ladder in ladders.values()), default=0
        )
        try:
            async with asyncio.timeout(longest + REAP_S):
                await self._idle.wait()
        except TimeoutError:
            log.warning("some strategies would not end", runs=sorted(self._live))
        with contextlib.suppress(BackendLost):
            await self._backend.shut_down()
