"""The values that commands, events and tables share."""

from collections.abc import Sequence
from datetime import date, datetime
from enum import StrEnum

from pydantic import Field

from openbell.contracts.base import Message, Utc
from openbell.contracts.room import Room


class Intent(StrEnum):
    """What the user last said by hand; it wins over the schedule."""

    AUTO = "auto"
    RUN = "run"
    STOP = "stop"


class SlotState(StrEnum):
    """Whether a copy of the strategy may be alive."""

    FREE = "free"
    HELD = "held"


class Outlook(StrEnum):
    """What the schedule alone says of now."""

    NONE = "none"
    """No schedule."""
    OPEN = "open"
    """Inside a window: it should run."""
    SCHEDULED = "scheduled"
    """Later today, or tomorrow as usual."""
    PAUSED = "paused"
    """Today it does not run: weekend, holiday, a weekday left out."""
    UNKNOWN = "unknown"
    """The calendar does not know these days, or does not answer."""


class RunState(StrEnum):
    """Moves forward only."""

    GRANTED = "granted"
    PREPARING = "preparing"
    PARKED = "parked"
    RUNNING = "running"
    STOPPING = "stopping"
    EXITED = "exited"

    @property
    def rank(self) -> int:
        return list(RunState).index(self)


class ExitReason(StrEnum):
    """The one reason for which a run ended."""

    COMPLETED = "completed"
    CRASHED = "crashed"
    STOPPED_BY_USER = "stopped_by_user"
    STOPPED_BY_SCHEDULE = "stopped_by_schedule"
    HOST_SHUTDOWN = "host_shutdown"
    MEMORY_LIMIT = "memory_limit"
    CPU_LIMIT = "cpu_limit"
    PROCESS_LIMIT = "process_limit"
    DISK_LIMIT = "disk_limit"
    TIME_LIMIT = "time_limit"
    STALLED = "stalled"
    KILLED = "killed"
    START_FAILED = "start_failed"
    LOST = "lost"
    FENCED = "fenced"

    @property
    def decided(self) -> bool:
        """The scheduler would have it so: only it gives this reason."""
        return self in _DECIDED

    @property
    def failed(self) -> bool:
        """The restart policy decides what follows, with a back-off."""
        return self in _FAILURES

    @property
    def interrupted(self) -> bool:
        """The run ended for no reason of its own: what was wanted is still wanted."""
        return not self.failed and not self.finished

    @property
    def finished(self) -> bool:
        """The run is over, as its script or its user's time limit would have it."""
        return self in {ExitReason.COMPLETED, ExitReason.TIME_LIMIT}


_DECIDED = {ExitReason.STOPPED_BY_USER, ExitReason.STOPPED_BY_SCHEDULE, ExitReason.FENCED}
_FAILURES = {
    ExitReason.CRASHED,
    ExitReason.KILLED,
    ExitReason.START_FAILED,
    ExitReason.MEMORY_LIMIT,
    ExitReason.CPU_LIMIT,
    ExitReason.PROCESS_LIMIT,
    ExitReason.DISK_LIMIT,
    ExitReason.STALLED,
}


class RestartPolicy(StrEnum):
    """What follows when a run ends by itself inside the time it should run."""

    NEVER = "never"
    ON_FAILURE = "on-failure"
    ALWAYS = "always"


class Cause(StrEnum):
    """Why a run was granted."""

    MANUAL = "manual"
    SCHEDULE = "schedule"
    RESTART = "restart"
    RESUME = "resume"


class Role(StrEnum):
    """What an account is for."""

    ADMIN = "admin"
    """Sees and does everything; what it does to the strategies of others is audited as such."""
    TRADER = "trader"
    """Owns strategies."""
    VIEWER = "viewer"
    """Owns nothing; sees what is shared."""


class Scope(StrEnum):
    """What a credential may do."""

    READ = "read"
    """See strategies, logs, events."""
    OPERATE = "operate"
    """Start, stop, restart, resume."""
    EDIT = "edit"
    """Upload, schedule, delete, share, set variables."""
    ADMIN = "admin"
    """Manage the account itself; with the role admin, everybody's."""


class Permission(StrEnum):
    """What an owner lets somebody else do with a strategy."""

    VIEWER = "viewer"
    OPERATOR = "operator"

    @property
    def scopes(self) -> frozenset[Scope]:
        return frozenset({Scope.READ} if self is Permission.VIEWER else {Scope.READ, Scope.OPERATE})


class VariableKind(StrEnum):
    """Where the value of a variable of a run comes from."""

    PARAMETER = "parameter"
    """Plain: never returned, and not hidden in logs."""
    SECRET = "secret"  # noqa: S105 - a word, not a password
    """Never returned, and masked wherever it would be served."""
    USE = "use"
    """One of the owner's own secrets, by its name."""


class SessionKind(StrEnum):
    """How a session differs from its segment's usual ones."""

    USUAL = "usual"
    SHORTENED = "shortened"
    """Other hours on a day of trading: an early close, an evening alone."""
    SPECIAL = "special"
    """An opening on a day on which the segment is usually closed: Muhurat, a budget Sunday."""


class Session(Message):
    """One opening of an exchange segment. A day may have several."""

    segment: str
    day: date
    """The exchange's own date of it; one that opens on the evening before belongs to this day."""
    opens_at: Utc
    closes_at: Utc
    kind: SessionKind = SessionKind.USUAL
    reason: str | None = None
    """Why it is not a usual one."""
    source: str | None = None
    """Where that is known from."""


class Closure(Message):
    """A day without a session."""

    day: date
    reason: str
    """`weekend`, or the holiday's name."""
    weekend: bool = False
    opens_at: Utc
    """When it would have opened, had it been a usual day."""
    closes_at: Utc
    source: str | None = None


class StopStep(Message):
    """One rung of the stop ladder: send `signal` to the whole tree, then wait."""

    signal: str
    wait_s: float = Field(ge=0)


def stop_ladder(
    grace_s: float, signals: Sequence[str] = ("SIGINT", "SIGTERM")
) -> tuple[StopStep, ...]:
    """SIGINT first: most published strategies clean up on KeyboardInterrupt alone."""
    polite = (StopStep(signal=name, wait_s=grace_s / len(signals)) for name in signals)
    return (*polite, StopStep(signal="SIGKILL", wait_s=0))


class RunnerInfo(Message):
    """What a runner says of itself with each heartbeat."""

    runner: str
    home: str = ""
    """What tells the runner's home from any other."""
    platform: str
    python: str
    at: datetime
    capabilities: dict[str, str]
    pythons: tuple[str, ...] = ()
    """The versions that strategies may have, newest first; none before they are found."""
    public_key: str = ""
    """X25519, base64url: what a run may know is sealed to it."""
    room: Room | None = None
    """None: it does not tell, and nothing is kept from it."""
