"""What a user sees of a strategy: one status, one human reason. Derived here and nowhere else."""

from enum import StrEnum
from typing import Any

from pydantic import BaseModel, Field

from openbell.contracts.base import Utc, utc_now
from openbell.contracts.limits import Usage
from openbell.contracts.model import Cause, ExitReason, Intent, Outlook, RestartPolicy, RunState
from openbell.db.models import Run, ScheduleRow, Slot, Strategy
from openbell.identity import Caller


class Status(StrEnum):
    RUNNING = "running"
    STARTING = "starting"
    STOPPING = "stopping"
    SCHEDULED = "scheduled"
    WAITING = "waiting"
    PAUSED = "paused"
    STOPPED = "stopped"
    CRASHED = "crashed"
    FAILED = "failed"


class EnvironmentKind(StrEnum):
    """Whose packages they are."""

    DEFAULT = "default"
    """Those that a strategy has when it names none."""
    OWN = "own"


class EnvironmentView(BaseModel):
    """What a version runs with."""

    kind: EnvironmentKind
    python: str | None = Field(
        description="Like 3.12, or as it was chosen; null means the runner's own."
    )
    packages: int | None = Field(description="How many are locked; null for the default ones.")


class VersionView(BaseModel):
    number: int
    sha256: str
    filename: str
    size: int = Field(description="Bytes.")
    environment: EnvironmentView


class RunView(BaseModel):
    """One execution."""

    id: str
    epoch: int
    version: int
    state: RunState
    cause: Cause
    runner: str
    granted_at: Utc
    due_at: Utc | None = Field(description="When it was due, if a schedule granted it.")
    started_at: Utc | None
    exited_at: Utc | None
    exit_code: int | None
    signal: str | None
    reason: ExitReason | None
    detail: str | None
    headline: str | None = Field(description="What its log says of a failure.")
    usage: Usage


class RunRecord(RunView):
    """What is left of one execution."""

    last_lines: list[str] | None = Field(
        description="The last lines of its log, masked, once it has ended."
    )


class Access(StrEnum):
    """What the caller may do with a strategy."""

    OWNER = "owner"
    OPERATOR = "operator"
    VIEWER = "viewer"
    ADMIN = "admin"


class OwnerView(BaseModel):
    id: str
    name: str


class StrategyView(BaseModel):
    """A strategy, its latest run, and what comes next."""

    id: str
    name: str
    owner: OwnerView
    access: Access = Field(description="As what you see it.")
    exchange: str | None
    status: Status
    reason: str = Field(description="Why it has this status, in words.")
    next_start: Utc | None
    next_stop: Utc | None
    warning: str | None = Field(description="What to know of its schedule before it matters.")
    retry_at: Utc | None
    intent: Intent
    restart: RestartPolicy
    stop_grace_s: float
    schedule: dict[str, Any] | None
    parameters: list[str] = Field(description="Names of its variables; values are never returned.")
    version: VersionView
    run: RunView | None
    created_at: Utc


def environment_view(python: str | None, lock: str | None, packages: int) -> EnvironmentView:
    """Of what a version's row says; `lock` is its hash."""
    kind = EnvironmentKind.DEFAULT if lock is None else EnvironmentKind.OWN
    return EnvironmentView(kind=kind, python=python, packages=None if lock is None else packages)


def has_ended(view: StrategyView) -> bool:
    return view.run is None or view.run.state is RunState.EXITED


def run_view(run: Run) -> RunView:
    return RunView.model_validate(run, from_attributes=True)


def strategy_view(
    strategy: Strategy,
    owner: OwnerView,
    version: VersionView,
    schedule: ScheduleRow | None,
    slot: Slot | None,
    run: Run | None,
    variables: list[str],
) -> StrategyView:
    """As its owner sees it."""
    slot = slot or Slot(strategy_id=strategy.id, owner=strategy.owner)
    status, reason = derive(slot, run, scheduled=schedule is not None)
    return StrategyView(
        id=strategy.id,
        name=strategy.name,
        owner=owner,
        access=Access.OWNER,
        exchange=strategy.exchange,
        status=status,
        reason=reason,
        next_start=slot.next_start,
        next_stop=slot.next_stop,
        warning=slot.warning,
        retry_at=slot.retry_at,
        intent=Intent(slot.intent),
        restart=strategy.policy.restart,
        stop_grace_s=strategy.policy.stop.grace_s,
        schedule=schedule.spec if schedule else None,
        parameters=variables,
        version=version,
        run=run_view(run) if run else None,
        created_at=strategy.created_at,
    )


def access_of(caller: Caller, view: StrategyView) -> Access:
    if view.owner.id == caller.user:
        return Access.OWNER
    permission = caller.shared.get(view.id)
    return Access(permission) if permission and not caller.administers else Access.ADMIN


def derive(slot: Slot, run: Run | None, *, scheduled: bool) -> tuple[Status, str]:
    """The status and its reason, from what the scheduler has written."""
    if run is not None and run.live:
        return _live(run, slot)
    if slot.gave_up:
        return Status.FAILED, f"gave up after {slot.failures} failures: {_ending(run)}"
    if slot.retry_at is not None and run and run.exit_reason is ExitReason.START_FAILED:
        return Status.WAITING, f"{_ending(run)}; it is tried again"
    if slot.retry_at is not None:
        return Status.CRASHED, f"{_ending(run)}; it is started again"
    if slot.waiting:
        return Status.WAITING, slot.waiting
    if slot.intent == Intent.STOP:
        if scheduled:
            why = _ending(run) if run and _unclean(run) else "stopped by hand"
            return Status.PAUSED, f"{why}; until you start or resume it"
        return Status.STOPPED, _ending(run) if run else "stopped by hand"
    if run is not None and run.exit_reason is not None and run.exit_reason.failed:
        return Status.CRASHED, _ending(run)
    return _resting(slot, run)


def _live(run: Run, slot: Slot) -> tuple[Status, str]:
    if run.stop_reason is not None:
        return Status.STOPPING, f"being {_WORDS[ExitReason(run.stop_reason)]}"
    if slot.waiting:
        return Status.WAITING, slot.waiting
    if run.state == RunState.RUNNING:
        return Status.RUNNING, _why_granted(run, slot)
    if run.due_at is not None and run.due_at > utc_now() and run.state in _AHEAD:
        return Status.STARTING, run.detail or _AHEAD[RunState(run.state)]
    return Status.STARTING, run.detail or _why_granted(run, slot)


def _why_granted(run: Run, slot: Slot) -> str:
    """A restart by hand clears the count of failures: where there are any, it was none by hand."""
    cause = Cause(run.cause)
    if cause is Cause.RESTART and slot.failures:
        return "restarted after it had failed"
    return _CAUSES[cause]


def _unclean(run: Run) -> bool:
    """It was told to stop, and did not end as it should: a position may be open."""
    return bool(run.exit_code) or run.signal == "SIGKILL"


def _resting(slot: Slot, run: Run | None) -> tuple[Status, str]:
    """Neither live nor told anything by hand: what the schedule says, and how it ended if badly."""
    outlook = Outlook(slot.outlook)
    if outlook is Outlook.NONE:
        return Status.STOPPED, _ending(run)
    if outlook is Outlook.OPEN:
        if run is None:
            return Status.STARTING, slot.outlook_reason
        return Status.STOPPED, f"{_ending(run)}, inside its window"
    reason = slot.outlook_reason
    if run is not None and _unclean(run):
        reason = f"{_ending(run)}; {reason}"
    return _OUTLOOKS[outlook], reason


def _ending(run: Run | None) -> str:
    if run is None or run.exit_reason is None:
        return "never started"
    words = _WORDS[run.exit_reason]
    if run.exit_reason in _AT_ONCE:
        pass  # it was SIGKILL, as always
    elif run.signal and run.stop_reason is None:
        words += f", by {run.signal}"
    elif run.signal == "SIGKILL":
        words += ", killed since it would not end"
    elif run.exit_code:
        words += f" with exit code {run.exit_code}"
    said = _said(run)
    return f"{words}: {said}" if said else words


def _said(run: Run) -> str | None:
    """Of a crash its own words tell the most; of another failure, what was seen of it."""
    if run.exit_reason is ExitReason.CRASHED:
        return run.headline or run.detail
    failed = run.exit_reason is not None and run.exit_reason.failed
    return run.detail or (run.headline if failed else None)


_AT_ONCE = {
    ExitReason.MEMORY_LIMIT,
    ExitReason.CPU_LIMIT,
    ExitReason.PROCESS_LIMIT,
    ExitReason.DISK_LIMIT,
}
"""Ends without a ladder."""

_AHEAD = {
    RunState.GRANTED: "being prepared; it starts at its instant",
    RunState.PREPARING: "being prepared; it starts at its instant",
    RunState.PARKED: "prepared; it starts at its instant",
}

_OUTLOOKS = {
    Outlook.UNKNOWN: Status.WAITING,
    Outlook.PAUSED: Status.PAUSED,
    Outlook.SCHEDULED: Status.SCHEDULED,
}

_CAUSES = {
    Cause.MANUAL: "started by hand",
    Cause.SCHEDULE: "started by its schedule",
    Cause.RESTART: "restarted",
    Cause.RESUME: "started again after an interruption",
}

_WORDS = {
    ExitReason.COMPLETED: "completed",
    ExitReason.CRASHED: "crashed",
    ExitReason.STOPPED_BY_USER: "stopped by hand",
    ExitReason.STOPPED_BY_SCHEDULE: "stopped by its schedule",
    ExitReason.HOST_SHUTDOWN: "stopped with its host",
    ExitReason.MEMORY_LIMIT: "ended at its memory limit",
    ExitReason.CPU_LIMIT: "ended at its CPU limit",
    ExitReason.PROCESS_LIMIT: "ended at its limit of processes",
    ExitReason.DISK_LIMIT: "ended at its disk limit",
    ExitReason.TIME_LIMIT: "ended at its time limit",
    ExitReason.STALLED: "ended since it stalled",
    ExitReason.KILLED: "killed from outside",
    ExitReason.START_FAILED: "could not be started",
    ExitReason.LOST: "lost: its end was not seen",
    ExitReason.FENCED: "ended, so that no second copy could run",
}
