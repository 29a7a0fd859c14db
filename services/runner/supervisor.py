"""Starts and stops runs on this host, and reports what becomes of them.

Holds nothing that must survive it: what runs is the backend's, what happened is in the backend's
journal until the stream has it.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

import structlog

from openbell import sealing
from openbell.bus import Bus
from openbell.contracts.base import Done, utc_now
from openbell.contracts.commands import GetRunEnvironment, RunVariables, StartRun, StopRun
from openbell.contracts.errors import OpenbellError, ServiceUnavailable, UnknownRun
from openbell.contracts.events import RunnerCameUp, RunReported
from openbell.contracts.model import ExitReason, RunState, StopStep
from openbell.redaction import NOTHING_TO_HIDE, Mask
from openbell.settings import Settings
from services.runner import logs, variables
from services.runner.backends.base import (
    Backend,
    BackendLost,
    NoSuchRun,
    Observation,
    Recovery,
    RunSpec,
    StartRefused,
)
from services.runner.environments import BuildFailed, Environments
from services.runner.sources import Sources

RETRY_S = 0.5
CONNECT_S = 4
LEARN_S = 5
"""After our own start, how long we wait for api to tell which secrets a run has: it may be about
to start too."""
REAP_S = 10
"""How long after the last rung of the ladder the trees may take to be gone."""
WAVE = 100
"""Reports on their way to the stream at one time."""

log = structlog.get_logger()


class Supervisor:
    def __init__(
        self,
        settings: Settings,
        bus: Bus,
        backend: Backend,
        environments: Environments,
        key: sealing.RunnerKey,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._settings = settings
        self._runner = settings.runner.id
        self._bus = bus
        self._backend = backend
        self._environments = environments
        self._key = key
        self._sources = Sources(settings.strategies, bus)
        self._clock = clock
        self._preparing: dict[str, asyncio.Task[None]] = {}
        self._refused: dict[str, int] = {}
        self.ready = asyncio.Event()
        """Set while connected to the owner of the runs."""
        self._live: dict[str, tuple[StopStep, ...]] = {}
        """The ladder of each run that may be alive."""
        self._masks: dict[str, Mask] = {}
        """What must not be told of a run. Those that an earlier runner started are asked for."""
        self._patient_until = 0.0
        self._idle = asyncio.Event()
        self._idle.set()

    # ---- commands

    async def start(self, command: StartRun) -> Done:
        """Begin to start a run; how it goes is reported."""
        if command.epoch <= self._refused.get(command.strategy_id, 0):
            raise UnknownRun("it was stopped before it started")
        if command.run_id not in self._preparing:
            task = asyncio.create_task(self._prepare(command))
            self._preparing[command.run_id] = task
            task.add_done_callback(lambda _: self._preparing.pop(command.run_id, None))
        return Done()

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
        try:
            spec = await self._fetched(command)
            self._add_live(command.run_id, command.ladder)
            await self._start(spec)
        except StartRefused as error:
            if not error.observed:
                await self._start_failed(command, str(error))
            self._drop_live(command.run_id)
        except BuildFailed as error:
            await self._start_failed(command, f"the environment could not be built: {error}")
        except OpenbellError as error:
            await self._start_failed(command, error.detail)
        except OSError as error:
            await self._start_failed(command, str(error))
        except Exception:
            log.exception("a run did not start", run=command.run_id)
            await self._start_failed(command, "a defect of Openbell; its runner's log tells more")

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
        """As often as who has it is away: an outage of Openbell is no failure of a strategy."""
        while True:
            try:
                return await self._spec(command)
            except ServiceUnavailable as error:
                log.warning("a start waits", run=command.run_id, reason=error.detail)
                await self._report(command, RunState.PREPARING, detail=error.detail)
                await asyncio.sleep(RETRY_S)

    async def _spec(self, command: StartRun) -> RunSpec:
        """All that a start needs, fetched side by side."""
        if not self._environments.ready:
            detail = "building the default environment"
            await self._report(command, RunState.PREPARING, detail=detail)
        python, folder, own = await asyncio.gather(
            self._environments.default(),
            self._sources.check_out(command.strategy_id, command.sha256, command.filename),
            self._variables(command.run_id, command.epoch),
        )
        self._masks[command.run_id] = _mask(own)
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
            start_at=command.start_at,
        )

    async def _variables(self, run_id: str, epoch: int) -> RunVariables:
        """Raises UnknownRun, SealBroken when we do not hold the run, ServiceUnavailable, and why
        it cannot have them.
        """
        ask = GetRunEnvironment(runner=self._runner, run_id=run_id, epoch=epoch)
        answer = await self._bus.request(ask)
        opened = self._key.open(answer.sealed, sealing.for_run(run_id, epoch))
        return RunVariables.model_validate_json(opened)

    async def _start_failed(self, command: StartRun, detail: str) -> None:
        detail = self._masks.pop(command.run_id, NOTHING_TO_HIDE).text(detail)
        log.warning("a run did not start", run=command.run_id, reason=detail)
        await self._report(command, RunState.EXITED, ExitReason.START_FAILED, detail)

    async def _report(
        self,
        command: StartRun,
        state: RunState,
        reason: ExitReason | None = None,
        detail: str | None = None,
    ) -> None:
        report = RunReported(
            runner=self._runner,
            at=self._clock(),
            run_id=command.run_id,
            strategy_id=command.strategy_id,
            epoch=command.epoch,
            state=state,
            reason=reason,
            detail=detail,
        )
        await self._send(report, f"{report.run_id}-{report.state}")

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
            await self._backend.close()

    async def _watch_forever(self) -> None:
        while True:
            try:
                recovery = await self._backend.recover()
                for handle in recovery.live:
                    self._add_live(handle.run_id, handle.ladder)
                self._patient_until = asyncio.get_running_loop().time() + LEARN_S
                self.ready.set()
                await self._watch(recovery)
            except BackendLost as error:
                log.warning("the owner of the runs does not answer", reason=str(error))
            except Exception:
                log.exception("watching failed; it begins anew")
            self.ready.clear()
            await asyncio.sleep(RETRY_S)

    async def _watch(self, recovery: Recovery) -> None:
        """Pass on what happened while nobody watched; say that this is all; go on watching."""
        told_all = recovery.acknowledged >= recovery.observed
        if told_all:
            await self._come_up()
        async for observations in self._backend.observations(recovery.acknowledged):
            await self._pass_on(observations)
            if not told_all and observations[-1].number >= recovery.observed:
                told_all = True
                await self._come_up()

    async def _come_up(self) -> None:
        runs = tuple(sorted({*self._live, *self._preparing}))
        event = RunnerCameUp(runner=self._runner, at=self._clock(), run_ids=runs)
        await self._send(event, f"{self._runner}-up-{event.at.timestamp()}")

    async def _pass_on(self, observations: Sequence[Observation]) -> None:
        """In this order: the stream has them, then the journal may forget them."""
        for wave in _waves(observations):
            await asyncio.gather(*map(self._tell, wave))
        await self._backend.acknowledge(observations[-1].number)
        for observation in observations:
            if observation.state is RunState.EXITED:
                self._drop_live(observation.run_id)

    async def _tell(self, observation: Observation) -> None:
        report = self._report_of(observation, await self._detail(observation))
        await self._send(report, f"{report.run_id}-{report.state}")

    async def _detail(self, observation: Observation) -> str | None:
        """Why it failed: the last line of its log. Nothing, if its secrets cannot be learned."""
        if not observation.exit_code or observation.detail is not None:
            return observation.detail
        mask = self._masks.get(observation.run_id) or await self._learned(observation)
        if mask is None:
            return None
        path = self._log(observation.strategy_id, observation.run_id)
        return await asyncio.to_thread(logs.last_line, path, mask)

    async def _learned(self, observation: Observation) -> Mask | None:
        while True:
            try:
                found = await self._variables(observation.run_id, observation.epoch)
            except OpenbellError as error:
                late = asyncio.get_running_loop().time() >= self._patient_until
                if late or not isinstance(error, ServiceUnavailable):
                    log.warning(
                        "the last line of a run is withheld: its secrets are not known",
                        run=observation.run_id,
                        reason=error.detail,
                    )
                    return None
                await asyncio.sleep(RETRY_S)
            else:
                return _mask(found)

    def _report_of(self, observation: Observation, detail: str | None) -> RunReported:
        return RunReported(
            runner=self._runner,
            at=observation.at,
            run_id=observation.run_id,
            strategy_id=observation.strategy_id,
            epoch=observation.epoch,
            state=observation.state,
            exit_code=observation.exit_code,
            signal=observation.signal,
            reason=observation.reason,
            detail=detail,
        )

    async def _send(self, event: RunReported | RunnerCameUp, message_id: str) -> None:
        """Until the stream has it: a report is never dropped."""
        while True:
            try:
                await self._bus.report(event, message_id)
            except ServiceUnavailable as error:
                log.warning("a report waits for the bus", reason=error.detail)
                await asyncio.sleep(RETRY_S)
            else:
                return

    def _add_live(self, run_id: str, ladder: tuple[StopStep, ...]) -> None:
        self._live[run_id] = ladder
        self._idle.clear()

    def _drop_live(self, run_id: str) -> None:
        self._live.pop(run_id, None)
        self._masks.pop(run_id, None)
        if not self._live:
            self._idle.set()

    async def _stop_all(self) -> None:
        """The host shuts down: every tree walks its ladder, and is gone when this returns."""
        ladders = dict(self._live)
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


def _waves(observations: Iterable[Observation]) -> Iterator[Sequence[Observation]]:
    """Those that may be sent side by side. Of one strategy each must be stored before the next
    is sent: if one had to be sent again, it would come after the next.
    """
    wave: dict[str, Observation] = {}
    for observation in observations:
        if observation.state is RunState.PREPARING:
            continue
        if observation.strategy_id in wave or len(wave) >= WAVE:
            yield list(wave.values())
            wave = {}
        wave[observation.strategy_id] = observation
    if wave:
        yield list(wave.values())


def _mask(found: RunVariables) -> Mask:
    """Hides what a run may tell: its secrets, and those that it had before they were replaced."""
    return Mask((*(found.variables[name] for name in found.secrets), *found.earlier))
