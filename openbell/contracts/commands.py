"""Requests, in the imperative. The class says who answers, who may ask, and with what."""

from datetime import date
from typing import ClassVar, Generic

from pydantic import Base64Bytes, Field

from openbell.contracts.base import Command, Done, Message, ReplyT, RunnerAsks, Utc
from openbell.contracts.limits import Interpreter, Limits, Watchdogs
from openbell.contracts.model import Closure, ExitReason, Intent, Session, StopStep
from openbell.contracts.schedules import ClockTime, Schedule


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


class ForgetOutput(Command[Done]):
    """Remove from the record of a run what its log said: its last lines, and its headline."""

    service: ClassVar[str] = "scheduler"
    asked_by: ClassVar[frozenset[str]] = frozenset({"api"})
    run_id: str


class PreviewedWindow(Message):
    """A start and its stop, and why they are when they are."""

    starts_at: Utc
    start_reason: str
    stops_at: Utc | None = None
    stop_reason: str


class PreviewedDay(Message):
    """What a schedule does on one local day: its windows, or the reason for which there is none."""

    day: date
    windows: tuple[PreviewedWindow, ...] = ()
    skipped: str | None = None


class Preview(Message):
    """What a schedule will do."""

    timezone: str
    """In which its days are counted."""
    days: tuple[PreviewedDay, ...]
    truncated: bool = False
    """There is more than was told."""
    warning: str | None = None
    """What its user should know: its calendar ends soon, it never meets its market."""


class PreviewSchedule(Command[Preview]):
    """What this schedule would do, if it was set at `since`, from `first` on for so many days.

    Raises UnknownExchange, and ServiceUnavailable when the calendar does not answer.
    """

    service: ClassVar[str] = "scheduler"
    asked_by: ClassVar[frozenset[str]] = frozenset({"api"})
    schedule: Schedule
    since: Utc
    first: Utc
    days: int = Field(ge=1, le=366)


class Sessions(Message):
    """What a segment does on the days that were asked for, as far as they are covered.

    Each covered day has a session or a closure. What is not covered is unknown, never open.
    """

    segment: str
    timezone: str
    covered_from: date
    covered_until: date
    sessions: tuple[Session, ...]
    closures: tuple[Closure, ...] = ()


class CalendarCommand(Command[ReplyT], Generic[ReplyT]):
    """Asks when exchanges are open. A segment is named by its code, or by a name that it has."""

    service: ClassVar[str] = "calendar"
    asked_by: ClassVar[frozenset[str]] = frozenset({"api"})


class ListSessions(CalendarCommand[Sessions]):
    """The sessions and closures of the local days `first` to `last`, both included.

    Raises UnknownExchange.
    """

    asked_by: ClassVar[frozenset[str]] = frozenset({"api", "scheduler"})
    segment: str
    first: date
    last: date


class Exchange(Message):
    """A segment whose sessions are known."""

    code: str
    names: tuple[str, ...] = ()
    """By which it is found too: XNYS is NYSE."""
    name: str
    timezone: str
    covered_from: date | None = None
    """None: told with its sessions alone."""
    covered_until: date | None = None
    source: str


class Exchanges(Message):
    exchanges: tuple[Exchange, ...]


class ListExchanges(CalendarCommand[Exchanges]):
    """All segments that there are."""


class MarketState(Message):
    """What a segment does at one moment. `is_open` is none when the day is not covered."""

    segment: str
    is_open: bool | None
    reason: str
    session: Session | None = None
    """The one that is open."""
    next: Session | None = None
    """The one that opens next, if that is known."""


class MarketStates(Message):
    at: Utc
    markets: tuple[MarketState, ...]


class TellMarkets(CalendarCommand[MarketStates]):
    """What is open at this moment, and what opens next. Raises UnknownExchange."""

    segments: tuple[str, ...] = Field(default=(), max_length=64)
    """None: those with facts of our own."""
    at: Utc


class OpenHours(Message):
    """From and until when, in the exchange's local time; a close before the open is tomorrow's."""

    opens: ClockTime
    closes: ClockTime


class Override(Message):
    """What an admin says of one day of one segment; it wins over whatever the calendar knows."""

    segment: str
    day: date
    hours: tuple[OpenHours, ...] = Field(default=(), max_length=8)
    """None: it is closed."""
    reason: str = Field(min_length=1, max_length=200)
    by: str
    """The admin's name."""
    at: Utc


class Overrides(Message):
    overrides: tuple[Override, ...]


class ListOverrides(CalendarCommand[Overrides]):
    """All of them, or those of one segment, by day."""

    segment: str | None = None


class SetOverride(CalendarCommand[Overrides]):
    """Keep this, instead of what was said of that day before. Answers with what that was.

    Raises UnknownExchange, InvalidRequest when hours overlap.
    """

    override: Override


class RemoveOverride(CalendarCommand[Overrides]):
    """Answers with what was removed. Raises UnknownExchange, UnknownOverride."""

    segment: str
    day: date


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
    limits: Limits = Limits()
    watchdogs: Watchdogs = Watchdogs()
    interpreter: Interpreter = "shared"
    lock_sha256: str | None = None
    """The lock of its own environment; none means the default environment."""
    python: str | None = None
    """The Python that this was locked for, like 3.12; none means the runner's own."""
    start_at: Utc | None = None
    """The instant at which its process starts; until then it is prepared. None: at once."""
    expected_memory_bytes: int | None = None
    """What it is expected to need, and is kept for it until it uses it. None: not told."""
    expected_as_seen: bool = False
    """Whether runs of its strategy were seen to use that; else it is a guess, good until this one
    was seen for a while."""


class LockedEnvironment(Message):
    """What a version's environment is, for good."""

    python: str
    """Like 3.12, or as it was asked for."""
    lock: str | None = None
    """Each package with its one version and its hashes; none means the default packages."""
    packages: int = 0


class LockEnvironment(Command[LockedEnvironment]):
    """Resolve these requirements to exact versions, for the newest Python here that will do.

    Raises EnvironmentRefused with uv's own message, UnknownPython when no Python here will do,
    ServiceUnavailable when it cannot be told now.
    """

    service: ClassVar[str] = "runner"
    asked_by: ClassVar[frozenset[str]] = frozenset({"api"})
    requirements: tuple[str, ...] | None = Field(default=None, max_length=2000)
    """One a text, as in PEP 508; none means the default packages."""
    requires_python: str | None = Field(default=None, max_length=200)
    """Like >=3.11."""
    python: str | None = Field(default=None, max_length=20)
    """Like 3.12 or 3.12.4; none means the newest."""


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
    """Put what has this hash, a source or a lock, into the store that is the database's cache."""

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
