"""Strategies as plain processes, owned by the warden."""

import contextlib
import sys
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from openbell.contracts.model import ExitReason, RunState, StopStep
from services.runner.backends.base import (
    BackendLost,
    Capabilities,
    NoSuchRun,
    Observation,
    Recovery,
    RunHandle,
    RunSpec,
    StartRefused,
)
from services.runner.backends.warden_client import (
    WardenClient,
    WardenRefused,
    WardenUnavailable,
)
from services.runner.warden.protocol import Entry

STATES = {
    "starting": RunState.PREPARING,
    "parked": RunState.PARKED,
    "started": RunState.RUNNING,
    "stopping": RunState.STOPPING,
    "exited": RunState.EXITED,
}


class ProcessBackend:
    """One connection to the warden of `folder`, made anew by `recover` when it was lost."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._client: WardenClient | None = None

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            backend="process",
            memory_limit="none",
            pids_limit="none",
            cpu_limit="none",
            own_user=False,
            graceful_stop=True,
        )

    async def recover(self) -> Recovery:
        await self.close()
        try:
            client = await WardenClient.connect(self._folder, python=Path(sys.executable))
            self._client = client
            live = await client.list()
        except WardenUnavailable as error:
            raise BackendLost(str(error)) from error
        handles = tuple(
            RunHandle(
                "process",
                1,
                run.run,
                run.strategy,
                run.epoch,
                "" if run.pid is None else f"{run.pid}:{run.start_ticks}",
                tuple(StopStep(signal=signal, wait_s=wait) for signal, wait in run.ladder),
            )
            for run in live
        )
        return Recovery(handles, client.acknowledged, client.seq)

    async def start(self, spec: RunSpec) -> RunHandle:
        client = self._connected()
        try:
            started = await client.start(
                run=spec.run_id,
                strategy=spec.strategy_id,
                epoch=spec.epoch,
                argv=[str(spec.python), spec.script],
                cwd=spec.folder,
                env=spec.environment,
                log=spec.log,
                ladder=_steps(spec.ladder),
                at=spec.start_at.timestamp() if spec.start_at else None,
            )
        except WardenRefused as error:
            observed = error.code == "start_failed"
            raise StartRefused(error.detail, observed=observed) from error
        except WardenUnavailable as error:
            raise BackendLost(str(error)) from error
        reference = f"{started.pid}:{started.start_ticks}" if started else ""
        return RunHandle(
            "process", 1, spec.run_id, spec.strategy_id, spec.epoch, reference, spec.ladder
        )

    async def stop(self, run_id: str, ladder: Sequence[StopStep], reason: ExitReason) -> None:
        try:
            await self._connected().stop(run_id, reason, _steps(ladder))
        except WardenRefused as error:
            raise NoSuchRun(run_id) from error
        except WardenUnavailable as error:
            raise BackendLost(str(error)) from error

    async def observations(self, after: int) -> AsyncIterator[Sequence[Observation]]:
        try:
            async for entries in self._connected().entries(after):
                yield [_observation(entry) for entry in entries]
        except WardenUnavailable as error:
            raise BackendLost(str(error)) from error

    async def acknowledge(self, number: int) -> None:
        try:
            await self._connected().acknowledge(number)
        except WardenUnavailable as error:
            raise BackendLost(str(error)) from error

    async def shut_down(self) -> None:
        try:
            await self._connected().shutdown()
        except WardenUnavailable as error:
            raise BackendLost(str(error)) from error
        except WardenRefused:
            return  # something runs: it stays

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(WardenUnavailable):
                await client.close()

    def _connected(self) -> WardenClient:
        if self._client is None:
            raise BackendLost("not connected to the warden")
        return self._client


def _observation(entry: Entry) -> Observation:
    return Observation(
        number=entry.seq,
        at=datetime.fromtimestamp(entry.at, UTC),
        run_id=entry.run,
        strategy_id=entry.strategy,
        epoch=entry.epoch,
        state=STATES[entry.kind],
        exit_code=entry.exit_code,
        signal=entry.signal,
        reason=ExitReason(entry.reason) if entry.reason else None,
        detail=entry.detail,
    )


def _steps(ladder: Sequence[StopStep]) -> list[tuple[str, float]]:
    return [(step.signal, step.wait_s) for step in ladder]
