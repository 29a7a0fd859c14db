"""What becomes of runs, told to the stream: all of it, in order, without their secrets."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

import structlog

from openbell import sealing
from openbell.bus import Bus
from openbell.contracts.base import utc_now
from openbell.contracts.commands import GetRunEnvironment, RunVariables, StartRun
from openbell.contracts.errors import OpenbellError, ServiceUnavailable, UnknownRun
from openbell.contracts.events import RunnerCameUp, RunReported
from openbell.contracts.limits import Usage
from openbell.contracts.model import ExitReason, RunState
from openbell.redaction import NOTHING_TO_HIDE, Mask
from openbell.settings import Settings
from services.runner import logs
from services.runner.backends.base import Observation
from services.runner.monitor.monitor import Monitor
from services.runner.monitor.verdicts import Verdict

RETRY_S = 0.5
LEARN_S = 5
"""How long the end of a run waits for api to tell which secrets the run has."""
WAVE = 100
"""Reports on their way to the stream at one time."""

log = structlog.get_logger()


class Reports:
    def __init__(
        self,
        settings: Settings,
        bus: Bus,
        key: sealing.RunnerKey,
        monitor: Monitor,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._settings = settings
        self._runner = settings.runner.id
        self._bus = bus
        self._key = key
        self._monitor = monitor
        self._clock = clock
        self._masks: dict[str, Mask] = {}
        """What must not be told of a run. Those that an earlier runner started are asked for."""
        self._learning: dict[str, asyncio.Task[None]] = {}

    # ---- secrets

    async def variables(self, run_id: str, epoch: int) -> RunVariables:
        """What the owner set for the run.

        Raises UnknownRun, SealBroken when we do not hold the run, ServiceUnavailable, and why it
        cannot have them.
        """
        ask = GetRunEnvironment(runner=self._runner, run_id=run_id, epoch=epoch)
        answer = await self._bus.request(ask)
        opened = self._key.open(answer.sealed, sealing.for_run(run_id, epoch))
        return RunVariables.model_validate_json(opened)

    def hide(self, run_id: str, found: RunVariables) -> None:
        """From now on, until it has ended."""
        self._masks[run_id] = _mask(found)

    def learn(self, runs: Iterable[tuple[str, int]]) -> None:
        """What these runs must hide, which an earlier runner started: while they live, so that it
        is known when they end, whoever is away by then.
        """
        for run_id, epoch in runs:
            if run_id not in self._masks and run_id not in self._learning:
                task = asyncio.create_task(self._learn(run_id, epoch))
                self._learning[run_id] = task
                task.add_done_callback(lambda task, run_id=run_id: self._learned_it(run_id, task))

    def _learned_it(self, run_id: str, task: asyncio.Task[None]) -> None:
        if self._learning.get(run_id) is task:
            del self._learning[run_id]

    def forget(self, run_id: str) -> None:
        self._masks.pop(run_id, None)
        self._stop_learning(run_id)

    async def close(self) -> None:
        learning = [
            task for run_id in tuple(self._learning) if (task := self._stop_learning(run_id))
        ]
        await asyncio.gather(*learning, return_exceptions=True)

    def _stop_learning(self, run_id: str) -> asyncio.Task[None] | None:
        """Until Python 3.12 a cancellation is lost that meets an answer: so it also looks whether
        it is still wanted.
        """
        task = self._learning.pop(run_id, None)
        if task is not None:
            task.cancel()
        return task

    # ---- reports

    async def came_up(self, runs: Iterable[str]) -> None:
        event = RunnerCameUp(runner=self._runner, at=self._clock(), run_ids=tuple(sorted(runs)))
        await self._send(event, f"{self._runner}-up-{event.at.timestamp()}")

    async def preparing(self, command: StartRun, detail: str) -> None:
        await self._report(command, RunState.PREPARING, detail=detail)

    async def start_failed(self, command: StartRun, detail: str) -> None:
        detail = self._masks.pop(command.run_id, NOTHING_TO_HIDE).text(detail)
        log.warning("a run did not start", run=command.run_id, reason=detail)
        await self._report(command, RunState.EXITED, ExitReason.START_FAILED, detail)

    async def pass_on(self, observations: Sequence[Observation]) -> None:
        """In this order; the stream has them all when this returns."""
        for wave in _waves(observations):
            await asyncio.gather(*map(self._tell, wave))

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

    async def _tell(self, observation: Observation) -> None:
        report = _report_of(self._runner, observation)
        if observation.state is RunState.EXITED:
            report = await self._with_its_end(report, observation)
        await self._send(report, f"{report.run_id}-{report.state}")

    async def _with_its_end(self, report: RunReported, observation: Observation) -> RunReported:
        """With what its log said last, and the limit of which it died, if it was one."""
        lines = await self._last_lines(observation)
        found = self._limit(observation)
        working = self._monitor.working_memory(observation.run_id)
        usage = observation.usage or Usage()
        reason = found.reason if found else report.reason
        crashed = observation.reason is ExitReason.CRASHED
        return report.model_copy(
            update={
                "reason": reason,
                "detail": found.detail if found else report.detail,
                "usage": usage.model_copy(update={"working_memory_bytes": working}),
                "last_lines": lines,
                "headline": logs.headline(lines) if crashed else None,
            }
        )

    def _limit(self, observation: Observation) -> Verdict | None:
        if observation.reason is None or observation.usage is None:
            return None
        return self._monitor.concluded(observation.run_id, observation.reason, observation.usage)

    async def _last_lines(self, observation: Observation) -> tuple[str, ...]:
        """None, if its secrets cannot be learned, or its log not be read."""
        mask = self._masks.get(observation.run_id) or await self._learned(observation)
        if mask is None:
            return ()
        try:
            return await asyncio.to_thread(logs.last_lines, self._log(observation), mask)
        except OSError as error:  # a broken disk must not keep the end itself from being told
            log.warning("a log cannot be read", run=observation.run_id, reason=str(error))
            return ()

    def _log(self, observation: Observation) -> Path:
        return logs.log_file(self._settings.logs, observation.strategy_id, observation.run_id)

    async def _learned(self, observation: Observation) -> Mask | None:
        """Of a run that has ended. Who is to tell may be about to start, as we are."""
        run_id = observation.run_id
        self.learn([(run_id, observation.epoch)])
        learning = self._learning.get(run_id)
        if learning is not None and not (await asyncio.wait([learning], timeout=LEARN_S))[0]:
            self._stop_learning(run_id)
            log.warning(
                "the last lines of a run are withheld: its secrets are not known", run=run_id
            )
        return self._masks.get(run_id)

    async def _learn(self, run_id: str, epoch: int) -> None:
        """As often as who has it is away."""
        while self._learning.get(run_id) is asyncio.current_task():
            try:
                self.hide(run_id, await self.variables(run_id, epoch))
            except ServiceUnavailable:
                await asyncio.sleep(RETRY_S)
            except UnknownRun:
                return  # it was known to have ended before we were there
            except OpenbellError as error:
                log.warning("a run's secrets are not told", run=run_id, reason=error.detail)
                return
            else:
                return

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


def _report_of(runner: str, observation: Observation) -> RunReported:
    return RunReported(
        runner=runner,
        at=observation.at,
        run_id=observation.run_id,
        strategy_id=observation.strategy_id,
        epoch=observation.epoch,
        state=observation.state,
        exit_code=observation.exit_code,
        signal=observation.signal,
        reason=observation.reason,
        detail=observation.detail,
    )


def _is_known(observation: Observation) -> bool:
    """To those who hear it: that they have granted it, and that it is to stop as they decided."""
    if observation.state is RunState.STOPPING:
        return observation.reason is not None and observation.reason.decided
    return observation.state is RunState.PREPARING


def _waves(observations: Iterable[Observation]) -> Iterator[Sequence[Observation]]:
    """Those that may be sent side by side. Of one strategy each must be stored before the next
    is sent: if one had to be sent again, it would come after the next.
    """
    wave: dict[str, Observation] = {}
    for observation in observations:
        if _is_known(observation):
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
