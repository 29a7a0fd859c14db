"""Strategies as plain processes, owned by the warden."""

import contextlib
import sys
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from openbell.contracts.limits import Usage
from openbell.contracts.model import ExitReason, RunState, StopStep
from services.runner.backends.base import (
    BackendLost,
    Capabilities,
    Enforcement,
    NoSuchRun,
    Observation,
    Process,
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
from services.runner.monitor.samples import Group
from services.runner.warden.protocol import Entry, Start

if sys.platform == "linux":
    from services.runner.warden import cgroup_ceilings, procfs
    from services.runner.warden.cgroups import Groups

UNKNOWN_RUN = "unknown_run"
UNSEEN = -1
"""Stands for a process that we cannot see: its warden is in another PID namespace, and what has
its number in ours is a stranger. What its control group tells is all that is known of it.
"""
STATES = {
    "starting": RunState.PREPARING,
    "preparing": RunState.PREPARING,
    "parked": RunState.PARKED,
    "started": RunState.RUNNING,
    "stopping": RunState.STOPPING,
    "exited": RunState.EXITED,
}


class ProcessBackend:
    """One connection to the warden of `folder`, made anew by `recover` when it was lost."""

    def __init__(self, folder: Path, *, own: bool = True) -> None:
        """`own`: whether the warden is ours to start, and to bring to this release."""
        self._folder = folder
        self._own = own
        self._client: WardenClient | None = None
        self._host: dict[str, Any] = {}

    @property
    def capabilities(self) -> Capabilities:
        host = self._host
        enforces: dict[str, bool] = host.get("enforces", {})
        why_not = (host.get("why_no_limits"), host.get("why_no_namespaces"))
        return Capabilities(
            backend="process",
            memory_limit=self._enforcement(enforces.get("memory")),
            pids_limit=self._enforcement(enforces.get("processes")),
            cpu_limit="enforced" if enforces.get("cpu") else "none",
            disk_limit="watched",
            files_limit="enforced" if "enforces" in host else "none",
            own_user=host.get("own_user", False),
            namespaces=host.get("namespaces", False),
            why_not=tuple(why for why in why_not if why),
            graceful_stop=True,
        )

    async def recover(self) -> Recovery:
        await self.close()
        try:
            client = await WardenClient.connect(
                self._folder, python=Path(sys.executable), own=self._own
            )
            self._client = client
            self._host = client.host
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
                run.note or "",
                self._process(run.pid, run.started_at, keeper=run.keeper),
            )
            for run in live
        )
        return Recovery(handles, client.acknowledged, client.seq)

    async def start(self, spec: RunSpec) -> RunHandle:
        client = self._connected()
        try:
            started = await client.start(_request(spec))
        except WardenRefused as error:
            observed = error.code == "start_failed"
            raise StartRefused(error.detail, observed=observed) from error
        except WardenUnavailable as error:
            raise BackendLost(str(error)) from error
        reference = f"{started.pid}:{started.start_ticks}" if started else ""
        return RunHandle(
            "process", 1, spec.run_id, spec.strategy_id, spec.epoch, reference, spec.ladder
        )

    async def stop(
        self,
        run_id: str,
        ladder: Sequence[StopStep],
        reason: ExitReason,
        detail: str | None = None,
    ) -> None:
        try:
            await self._connected().stop(run_id, reason, _steps(ladder), detail)
        except WardenRefused as error:
            if error.code == UNKNOWN_RUN:
                raise NoSuchRun(run_id) from error
            # Whatever went wrong there: the run may live, and must not count as gone.
            raise BackendLost(str(error)) from error
        except WardenUnavailable as error:
            raise BackendLost(str(error)) from error

    async def observations(self, after: int) -> AsyncIterator[Sequence[Observation]]:
        try:
            async for entries in self._connected().entries(after):
                yield [self._observation(entry) for entry in entries]
        except WardenUnavailable as error:
            raise BackendLost(str(error)) from error

    async def acknowledge(self, number: int) -> None:
        try:
            await self._connected().acknowledge(number)
        except WardenUnavailable as error:
            raise BackendLost(str(error)) from error

    def group(self, run_id: str) -> Group | None:
        told = self._host.get("groups")
        if sys.platform != "linux" or not told or not told["version"]:
            return None
        return Groups.from_json(told).of(run_id)

    def ceiling(self) -> tuple[int, int] | None:
        if sys.platform != "linux":
            return None
        told: dict[str, Any] = self._host.get("groups") or {"parents": {}}
        folder = told["parents"].get("memory")
        if folder is None:  # they are where we are
            return cgroup_ceilings.of_this_process()
        return cgroup_ceilings.tightest(told["version"], folder)

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

    def _observation(self, entry: Entry) -> Observation:
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
            usage=_usage(entry) if entry.kind == "exited" else None,
            process=self._process(entry.pid, entry.at, keeper=bool(entry.keeper)),
        )

    def _process(
        self, pid: int | None, started_at: float | None, *, keeper: bool
    ) -> Process | None:
        if pid is None or started_at is None:
            return None
        seen = pid if self._sees_processes else UNSEEN
        return Process(seen, datetime.fromtimestamp(started_at, UTC), keeper)

    @property
    def _sees_processes(self) -> bool:
        told = self._host.get("processes")  # nothing, by a warden of an earlier release
        return sys.platform != "linux" or told is None or told == procfs.namespace()

    def _enforcement(self, enforced: bool | None) -> Enforcement:
        if enforced:
            return "enforced"
        return "watched" if self._sees_processes else "none"

    def _connected(self) -> WardenClient:
        if self._client is None:
            raise BackendLost("not connected to the warden")
        return self._client


def _usage(entry: Entry) -> Usage:
    return Usage(
        peak_memory_bytes=entry.peak_memory,
        cpu_s=entry.cpu_s,
        refused=entry.refused or 0,
        out_of_memory=entry.out_of_memory or 0,
    )


def _request(spec: RunSpec) -> Start:
    limits = spec.limits
    return Start(
        run=spec.run_id,
        strategy=spec.strategy_id,
        epoch=spec.epoch,
        argv=(str(spec.python), spec.script),
        cwd=str(spec.folder),
        env=dict(spec.environment),
        log=str(spec.log),
        ladder=tuple(_steps(spec.ladder)),
        at=spec.start_at.timestamp() if spec.start_at else None,
        owner=spec.owner,
        readable=tuple(map(str, spec.readable)),
        lifetime=spec.max_runtime_s,
        note=spec.note,
        memory=None if limits.memory_mb is None else limits.memory_mb << 20,
        processes=limits.processes,
        cpu_weight=limits.cpu_weight,
        cpus=limits.cpus,
        open_files=limits.open_files,
        preload=spec.preload,
    )


def _steps(ladder: Sequence[StopStep]) -> list[tuple[str, float]]:
    return [(step.signal, step.wait_s) for step in ladder]
