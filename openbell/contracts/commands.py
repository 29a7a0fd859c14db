"""Requests, in the imperative. The class says who answers, who may ask, and with what."""

from datetime import date
from typing import ClassVar

from pydantic import Base64Bytes, Field

from openbell.contracts.base import Command, Done, Message, RunnerAsks, Utc
from openbell.contracts.model import ExitReason, Intent, Session, StopStep


class Standing(Message):
    """Where a strategy stands after a command was taken: what was decided, and what comes next."""

    strategy_id: str
    intent: Intent
    run_id: str | None = None
    epoch: int = 0
    next_start: Utc | None = None
    next_stop: Utc | None = None
    note: str | None = None
    """What the user should know: outside its window, no runner connected, already stopped, …"""


class SchedulerCommand(Command[Standing]):
    """Asks the one who decides what runs. Raises UnknownStrategy, and what each says of itself."""

    service: ClassVar[str] = "scheduler"
    asked_by: ClassVar[frozenset[str]] = frozenset({"api"})
    strategy_id: str


class StartStrategy(SchedulerCommand):
    """Run it now, whatever its schedule says.

    Raises StrategyIsRunning when a copy is live: there is never a second one.
    """


class StopStrategy(SchedulerCommand):
    """Stop it now, and keep it stopped until it is started or resumed."""


class Unstopped(Message):
    """Those that could not be told to stop; the scheduler's log says why."""

    strategy_ids: tuple[str, ...] = ()


class StopStrategies(Command[Unstopped]):
    """Stop all of these now, and keep them stopped; what does not exist any more is passed over."""

    service: ClassVar[str] = "scheduler"
    asked_by: ClassVar[frozenset[str]] = frozenset({"api"})
    strategy_ids: tuple[str, ...] = Field(max_length=500)


class RestartStrategy(SchedulerCommand):
    """End the live run, if there is one, and begin the next."""


class ResumeStrategy(SchedulerCommand):
    """Forget what was said by hand; the schedule decides again."""


class PlanStrategy(SchedulerCommand):
    """Look at this strategy now, since its schedule has changed."""


class RetireStrategy(SchedulerCommand):
    """Let nothing start it any more, before it is deleted.

    Raises StrategyIsRunning when a run is live and `stop` was not asked for.
    """

    stop: bool = False


class Sessions(Message):
    """The sessions that were asked for, and the days about which the calendar knows."""

    timezone: str
    covered_from: date
    covered_until: date
    sessions: tuple[Session, ...]


class ListSessions(Command[Sessions]):
    """The sessions of a segment that open on the local days `first` to `last`, both included.

    Raises UnknownExchange.
    """

    service: ClassVar[str] = "calendar"
    asked_by: ClassVar[frozenset[str]] = frozenset({"api", "scheduler"})
    segment: str
    first: date
    last: date


class StartRun(Command[Done]):
    """Start this run. A repeated delivery of one epoch starts nothing twice."""

    service: ClassVar[str] = "runner"
    asked_by: ClassVar[frozenset[str]] = frozenset({"scheduler"})
    run_id: str
    strategy_id: str
    strategy_name: str
    owner: str
    epoch: int
    sha256: str
    filename: str
    exchange: str | None
    ladder: tuple[StopStep, ...]
    """How the run wants to be stopped, by whomever."""


class StopRun(Command[Done]):
    """Walk this ladder over the run's whole tree. Answered at once; the end is reported later.

    Raises UnknownRun; from then on this runner refuses the epoch.
    """

    service: ClassVar[str] = "runner"
    asked_by: ClassVar[frozenset[str]] = frozenset({"scheduler"})
    run_id: str
    strategy_id: str
    epoch: int
    reason: ExitReason
    ladder: tuple[StopStep, ...]


class LogChunk(Message):
    """Bytes `offset` to `next_offset` of a run's log, which holds `size` bytes by now."""

    offset: int
    next_offset: int
    size: int
    data: Base64Bytes
    quiet_s: float = 0
    """For how long nothing was added."""


class ReadLog(Command[LogChunk]):
    """Up to `limit` bytes from `offset`; a negative offset counts from the end.

    Waits up to `wait_s` seconds when there is nothing to read yet. What is read is answered with
    up to `around` bytes more on both sides: on them it depends what must be masked.
    """

    service: ClassVar[str] = "runner"
    asked_by: ClassVar[frozenset[str]] = frozenset({"api"})
    strategy_id: str
    run_id: str
    offset: int = 0
    limit: int = Field(default=65_536, ge=1, le=524_288)
    around: int = Field(default=0, ge=0, le=131_072)
    wait_s: float = Field(default=0, ge=0, le=30)


class RunVariables(Message):
    """What a run's owner set for it."""

    variables: dict[str, str]
    secrets: frozenset[str] = frozenset()
    """The names of those whose values are masked wherever they would be seen."""
    earlier: tuple[str, ...] = ()
    """Secret values that were replaced since the run was granted: it may still hold them."""


class RunEnvironment(Message):
    """The RunVariables of a run, sealed to the key of the runner that holds it."""

    sealed: Base64Bytes


class GetRunEnvironment(RunnerAsks[RunEnvironment]):
    """What a run's owner set for it: asked by its runner, so that no stream carries a secret.

    Raises UnknownRun when it is not live on this runner.
    """

    service: ClassVar[str] = "api"
    run_id: str
    epoch: int


class PublishArtifact(Command[Done]):
    """Put the source with this hash into the object store, which is a cache of the database."""

    service: ClassVar[str] = "api"
    asked_by: ClassVar[frozenset[str]] = frozenset({"runner"})
    sha256: str


class RecordLook(Command[Done]):
    """Audit that an admin looks at what is everybody's, before it is shown."""

    service: ClassVar[str] = "api"
    asked_by: ClassVar[frozenset[str]] = frozenset({"status"})
    user: str
    name: str
    credential: str
    address: str
    action: str
