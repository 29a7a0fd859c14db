"""Facts, in the past tense."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, TypeAdapter

from openbell.contracts.base import (
    ROOT,
    AccountEvent,
    Event,
    Message,
    StrategyEvent,
    Utc,
    snake_case,
)
from openbell.contracts.limits import Usage
from openbell.contracts.model import Cause, ExitReason, Intent, Permission, RunState


class StrategyUploaded(StrategyEvent):
    name: str
    version: int


class StrategyDeleted(StrategyEvent):
    pass


class ScheduleChanged(StrategyEvent):
    revision: int


class ScheduleRemoved(StrategyEvent):
    pass


class IntentChanged(StrategyEvent):
    intent: Intent


class PlanChanged(StrategyEvent):
    """What comes next has moved."""

    next_start: Utc | None
    next_stop: Utc | None
    outlook: str
    reason: str


class RunGranted(StrategyEvent):
    run_id: str
    epoch: int
    runner: str
    cause: Cause
    due_at: Utc | None = None
    """The instant at which it is to start; it may lie a little ahead."""
    late_s: float | None = None
    """How long after that instant this was decided."""


class RunParked(StrategyEvent):
    """It is prepared, and held until its instant."""

    run_id: str
    epoch: int
    detail: str | None
    """What is known already to go wrong with it, or why it takes longer than it might."""


class RunStarted(StrategyEvent):
    run_id: str
    epoch: int
    started_at: Utc
    late_s: float | None = None
    """How long after the instant at which it was due."""


class RunStopping(StrategyEvent):
    run_id: str
    epoch: int
    reason: ExitReason


class RunExited(StrategyEvent):
    run_id: str
    epoch: int
    reason: ExitReason
    exit_code: int | None
    signal: str | None
    detail: str | None
    retry_at: Utc | None
    headline: str | None = None
    """What its log says of a failure: the exception's line, or the last one."""
    usage: Usage = Usage()


class StrategyGaveUp(StrategyEvent):
    """It failed too often; nothing restarts it before its next window, or its user."""

    run_id: str
    failures: int


class StartDelayed(StrategyEvent):
    """It should run, but cannot yet; it is tried again while it should."""

    reason: str


class StartMissed(StrategyEvent):
    """The time in which it should have started is over."""

    due_at: Utc
    reason: str


class StartSkipped(StrategyEvent):
    """A start that its schedule's own rules left out: the run before still lived."""

    due_at: Utc
    reason: str


class LimitsChanged(StrategyEvent):
    """What its runs may use, how they are watched, stopped and restarted is another now.

    `names` are the fields of its policy that were changed: `limits.memory_mb`.
    """

    names: tuple[str, ...]


class StrategyShared(StrategyEvent):
    """Somebody else may see or operate it, or may no longer (`permission` is none)."""

    user: str
    permission: Permission | None


class VariablesChanged(StrategyEvent):
    """Its next run sees other variables; `names` are those that were set or removed."""

    names: tuple[str, ...]


class AccessChanged(AccountEvent):
    """What this user may do has changed, or with what: a share, a role, a credential revoked."""


EVENTS: tuple[type[Event], ...] = (
    StrategyUploaded,
    StrategyDeleted,
    ScheduleChanged,
    ScheduleRemoved,
    IntentChanged,
    PlanChanged,
    RunGranted,
    RunParked,
    RunStarted,
    RunStopping,
    RunExited,
    StrategyGaveUp,
    StartDelayed,
    StartMissed,
    StartSkipped,
    LimitsChanged,
    StrategyShared,
    VariablesChanged,
    AccessChanged,
)


class CalendarChanged(Message):
    """What is known of a segment's days has changed.

    Kept in no stream: it is told to whoever listens just now, and who misses it learns it at the
    next look.
    """

    SUBJECT: ClassVar[str] = f"{ROOT}.calendar.changed"
    segment: str


class RunnerEvent(Message):
    """What a runner reports; all that it may publish lies below its own subject."""

    runner: str
    at: Utc

    @property
    def subject(self) -> str:
        return f"{ROOT}.runner.{self.runner}.event.{snake_case(type(self).__name__)}"

    @staticmethod
    def subjects(runner: str = "*") -> str:
        """The wildcard under which a runner's reports, or all runners', are published."""
        return f"{ROOT}.runner.{runner}.event.>"


class RunReported(RunnerEvent):
    """A run has reached this state, at this moment of the runner's clock."""

    kind: Literal["run_reported"] = "run_reported"
    run_id: str
    strategy_id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    epoch: int
    state: RunState
    exit_code: int | None = None
    signal: str | None = None
    reason: ExitReason | None = None
    detail: str | None = None
    usage: Usage | None = None
    """Of an ended run."""
    headline: str | None = None
    last_lines: tuple[str, ...] = ()
    """Of the log of an ended run, masked: 50 at most."""


class RunnerCameUp(RunnerEvent):
    """A runner has started, has told all it knew, and holds just these runs."""

    kind: Literal["runner_came_up"] = "runner_came_up"
    run_ids: tuple[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*-[0-9]{1,18}$")], ...]


RUNNER_EVENT: TypeAdapter[RunReported | RunnerCameUp] = TypeAdapter(RunReported | RunnerCameUp)
