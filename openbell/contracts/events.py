"""Facts, in the past tense."""

from typing import Literal

from pydantic import TypeAdapter

from openbell.contracts.base import ROOT, Event, Message, Utc, snake_case
from openbell.contracts.model import Cause, ExitReason, Intent, RunState


class StrategyUploaded(Event):
    name: str
    version: int


class StrategyDeleted(Event):
    pass


class ScheduleChanged(Event):
    revision: int


class ScheduleRemoved(Event):
    pass


class IntentChanged(Event):
    intent: Intent


class PlanChanged(Event):
    """What comes next has moved."""

    next_start: Utc | None
    next_stop: Utc | None
    outlook: str
    reason: str


class RunGranted(Event):
    run_id: str
    epoch: int
    runner: str
    cause: Cause
    late_s: float | None = None
    """How long after the instant at which it was due."""


class RunStarted(Event):
    run_id: str
    epoch: int
    started_at: Utc


class RunStopping(Event):
    run_id: str
    epoch: int
    reason: ExitReason


class RunExited(Event):
    run_id: str
    epoch: int
    reason: ExitReason
    exit_code: int | None
    signal: str | None
    detail: str | None
    retry_at: Utc | None


class StrategyGaveUp(Event):
    """It failed too often; nothing restarts it before its next window, or its user."""

    run_id: str
    failures: int


class StartDelayed(Event):
    """It should run, but cannot yet; it is tried again while it should."""

    reason: str


class StartMissed(Event):
    """The time in which it should have started is over."""

    due_at: Utc
    reason: str


EVENTS: tuple[type[Event], ...] = (
    StrategyUploaded,
    StrategyDeleted,
    ScheduleChanged,
    ScheduleRemoved,
    IntentChanged,
    PlanChanged,
    RunGranted,
    RunStarted,
    RunStopping,
    RunExited,
    StrategyGaveUp,
    StartDelayed,
    StartMissed,
)


class RunnerEvent(Message):
    """What a runner reports; all that it may publish lies below its own subject."""

    runner: str
    at: Utc

    @property
    def subject(self) -> str:
        return f"{ROOT}.runner.{self.runner}.event.{snake_case(type(self).__name__)}"

    @staticmethod
    def subjects() -> str:
        return f"{ROOT}.runner.*.event.>"


class RunReported(RunnerEvent):
    """A run has reached this state, at this moment of the runner's clock."""

    kind: Literal["run_reported"] = "run_reported"
    run_id: str
    strategy_id: str
    epoch: int
    state: RunState
    exit_code: int | None = None
    signal: str | None = None
    reason: ExitReason | None = None
    detail: str | None = None


class RunnerCameUp(RunnerEvent):
    """A runner has started, has told all it knew, and holds just these runs."""

    kind: Literal["runner_came_up"] = "runner_came_up"
    run_ids: tuple[str, ...]


RUNNER_EVENT: TypeAdapter[RunReported | RunnerCameUp] = TypeAdapter(RunReported | RunnerCameUp)
