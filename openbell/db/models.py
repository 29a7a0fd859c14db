"""The tables. Each names the only service that writes it; everyone may read.

All instants are UTC. Rows of different writers are not tied by foreign keys: their transactions
are not one, and a strategy's history outlives it.
"""

from datetime import UTC, date, datetime
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    DateTime,
    Dialect,
    Index,
    LargeBinary,
    TypeDecorator,
    text,
)
from sqlmodel import Field, SQLModel

from openbell.contracts.limits import RunPolicy, Usage
from openbell.contracts.model import Cause, ExitReason, Intent, Outlook, RunState, SlotState


class UtcDateTime(TypeDecorator[datetime]):
    """An aware instant: SQLite forgets the zone, so it is kept in UTC and given back as UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"an instant needs a time zone: {value!r}")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class PolicyJson(TypeDecorator[RunPolicy]):
    """What of a policy differs from the defaults; what does not, moves with them."""

    impl = JSON
    cache_ok = True

    def process_bind_param(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        value: RunPolicy | None,
        dialect: Dialect,  # noqa: ARG002
    ) -> dict[str, Any] | None:
        return None if value is None else value.model_dump(mode="json", exclude_defaults=True)

    def process_result_value(
        self,
        value: dict[str, Any] | None,
        dialect: Dialect,  # noqa: ARG002
    ) -> RunPolicy | None:
        return None if value is None else RunPolicy.model_validate(value)


def moment(*, nullable: bool = False, primary_key: bool = False, index: bool = False) -> Any:
    if primary_key:
        return Field(sa_type=UtcDateTime, primary_key=True, index=index)
    if nullable:
        return Field(default=None, sa_type=UtcDateTime, index=index)
    return Field(sa_type=UtcDateTime, index=index)


class Strategy(SQLModel, table=True):
    """Written by api. A name is its owner's, and free again once the strategy is deleted."""

    __table_args__ = (
        Index(
            "ix_strategy_name",
            "owner",
            "name_key",
            unique=True,
            sqlite_where=text("deleted_at IS NULL"),
            postgresql_where=text("deleted_at IS NULL"),
        ),
    )

    id: str = Field(primary_key=True)
    owner: str = Field(index=True)
    name: str
    name_key: str
    exchange: str | None = None
    version: int
    policy: RunPolicy = Field(
        default_factory=RunPolicy, sa_column=Column(PolicyJson, nullable=False)
    )
    created_at: datetime = moment()
    deleted_at: datetime | None = moment(nullable=True)


class User(SQLModel, table=True):
    """Written by api. `local` is there from the start: the one whose machine this is.

    Until somebody claims it with the setup link it has no password, and nothing but this machine
    is served.
    """

    id: str = Field(primary_key=True)
    name: str
    name_key: str = Field(unique=True)
    role: str
    password_hash: str | None = None
    created_at: datetime = moment()
    disabled_at: datetime | None = moment(nullable=True)


class LoginSession(SQLModel, table=True):
    """Written by api. A browser that is signed in; revoking deletes it."""

    __tablename__: ClassVar[Any] = "session"

    id: str = Field(primary_key=True)
    user_id: str = Field(index=True)
    token_hash: bytes = Field(unique=True)
    """SHA-256 of the cookie's value, which is random and long: no salt is needed."""
    address: str
    agent: str
    created_at: datetime = moment()
    seen_at: datetime = moment()
    expires_at: datetime = moment()


class ApiToken(SQLModel, table=True):
    """Written by api. A program's credential; revoking deletes it."""

    __tablename__: ClassVar[Any] = "api_token"

    id: str = Field(primary_key=True)
    user_id: str = Field(index=True)
    name: str
    token_hash: bytes = Field(unique=True)
    scopes: list[str] = Field(sa_column=Column(JSON, nullable=False))
    created_at: datetime = moment()
    expires_at: datetime | None = moment(nullable=True)


class Invitation(SQLModel, table=True):
    """Written by api. A link that makes an account, or sets the password of one; used once."""

    id: str = Field(primary_key=True)
    token_hash: bytes = Field(unique=True)
    role: str
    user_id: str | None = None
    """Whose password it sets; none makes a new account."""
    created_by: str
    created_at: datetime = moment()
    expires_at: datetime = moment()


class Share(SQLModel, table=True):
    """Written by api. What an owner lets somebody else do."""

    strategy_id: str = Field(primary_key=True)
    user_id: str = Field(primary_key=True, index=True)
    permission: str
    created_at: datetime = moment()


class Variable(SQLModel, table=True):
    """Written by api. What a run finds in its environment; values are sealed.

    Without a strategy it is its owner's: a parameter is handed to each of their strategies, a
    secret to those that use it by name. What was replaced stays, retired, so that it can still be
    masked in the logs of earlier runs.
    """

    __table_args__ = (
        Index(
            "ix_variable_name",
            "owner",
            "strategy_id",
            "name",
            unique=True,
            sqlite_where=text("retired_at IS NULL"),
            postgresql_where=text("retired_at IS NULL"),
        ),
        Index("ix_variable_strategy_id", "owner", "strategy_id"),
    )

    id: str = Field(primary_key=True)
    owner: str
    strategy_id: str = ""
    name: str
    kind: str
    source: str | None = None
    """Of a `use`: the name of the owner's secret."""
    sealed: bytes = b""
    updated_at: datetime = moment()
    retired_at: datetime | None = moment(nullable=True)


class AuditEntry(SQLModel, table=True):
    """Written by api, and by nobody ever changed: the database itself refuses it.

    What takes effect elsewhere is recorded twice, `requested` before and its outcome after.
    """

    __tablename__: ClassVar[Any] = "audit_entry"

    id: int | None = Field(default=None, primary_key=True)
    at: datetime = moment()
    request: str = Field(index=True)
    """What ties an outcome to its request."""
    user_id: str = Field(index=True)
    user_name: str
    credential: str
    """The session or token that was used."""
    address: str
    action: str
    outcome: str
    owner: str | None = Field(default=None, index=True)
    strategy_id: str | None = Field(default=None, index=True)
    before: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON))
    after: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON))
    detail: str | None = None


class Version(SQLModel, table=True):
    """Written by api. Immutable: a source, and the environment that was locked for it."""

    strategy_id: str = Field(primary_key=True)
    number: int = Field(primary_key=True)
    sha256: str = Field(index=True)
    filename: str
    size: int
    source: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    requirements: list[str] | None = Field(default=None, sa_column=Column(JSON(none_as_null=True)))
    """What was asked for; none means the default packages."""
    requires_python: str | None = None
    python: str | None = None
    """What it is locked for, like 3.12; none means the runner's own."""
    lock_sha256: str | None = Field(default=None, index=True)
    lock: bytes | None = Field(default=None, sa_column=Column(LargeBinary, nullable=True))
    packages: int = 0
    """How many the lock holds."""
    created_at: datetime = moment()


class ScheduleRow(SQLModel, table=True):
    """Written by api."""

    __tablename__: ClassVar[Any] = "schedule"

    strategy_id: str = Field(primary_key=True)
    revision: int
    spec: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    updated_at: datetime = moment()


class CalendarOverride(SQLModel, table=True):
    """Written by calendar. What an admin says of one day of one segment."""

    __tablename__: ClassVar[Any] = "calendar_override"

    segment: str = Field(primary_key=True)
    day: date = Field(primary_key=True)
    hours: list[dict[str, str]] = Field(sa_column=Column(JSON, nullable=False))
    """From and until when it is open; none when it is closed."""
    reason: str
    by: str
    at: datetime = moment()


class Slot(SQLModel, table=True):
    """Written by scheduler. The one place where a strategy may run; it mints the epochs."""

    strategy_id: str = Field(primary_key=True)
    owner: str
    epoch: int = 0
    state: str = SlotState.FREE
    runner: str | None = None
    """The runner that holds the slot, until it confirms the exit."""
    run_id: str | None = None
    """The latest run, live or ended."""
    intent: str = Intent.AUTO
    intent_at: datetime | None = moment(nullable=True)
    failures: int = 0
    start_failures: int = 0
    """Starts in a row that failed, through no fault of the script."""
    retry_at: datetime | None = moment(nullable=True)
    gave_up: bool = False
    waiting: str | None = None
    """Why it does not run although it should."""
    next_start: datetime | None = moment(nullable=True, index=True)
    next_stop: datetime | None = moment(nullable=True, index=True)
    outlook: str = Outlook.NONE
    outlook_reason: str = ""
    schedule_at: datetime | None = moment(nullable=True)
    """When the schedule was set that this plan is of; none without one."""
    warning: str | None = None
    """What its user should know of its schedule before it matters: its calendar ends soon."""
    waiting_since: datetime | None = moment(nullable=True)
    """When the start was due that it waits for: who was due first has the first room."""
    working_memory_bytes: int | None = Field(default=None, sa_column=Column(BigInteger))
    """What its runs were seen to need; none before one was seen."""
    accounted_until: datetime | None = moment(nullable=True)
    """Until when each window of its schedule is known to be acted on, or said to be missed."""


class Run(SQLModel, table=True):
    """Written by scheduler. One execution; its state only moves forward."""

    __table_args__ = (Index("ix_run_strategy_id", "strategy_id", "epoch"),)

    id: str = Field(primary_key=True)
    strategy_id: str
    owner: str
    epoch: int
    runner: str
    state: str = RunState.GRANTED
    cause: str = Cause.MANUAL
    version: int
    granted_at: datetime = moment()
    due_at: datetime | None = moment(nullable=True)
    started_at: datetime | None = moment(nullable=True)
    stop_reason: str | None = None
    """Why it was told to stop, once it was."""
    stop_asked_at: datetime | None = moment(nullable=True)
    skipped: int = 0
    """Due starts that were left out since it still lived."""
    exited_at: datetime | None = moment(nullable=True)
    exit_code: int | None = Field(default=None, sa_column=Column(BigInteger))
    """Of Windows unsigned: 3221225477 is an access violation."""
    signal: str | None = None
    reason: str | None = None
    detail: str | None = None
    headline: str | None = None
    """What its log says of a failure."""
    last_lines: list[str] | None = Field(default=None, sa_column=Column(JSON))
    """Of its log, masked; read with its record alone."""
    expected_memory_bytes: int | None = Field(default=None, sa_column=Column(BigInteger))
    """What it was granted with."""
    peak_memory_bytes: int | None = Field(default=None, sa_column=Column(BigInteger))
    working_memory_bytes: int | None = Field(default=None, sa_column=Column(BigInteger))
    cpu_s: float | None = None
    refused: int = Field(default=0, sa_column=Column(BigInteger, nullable=False))
    out_of_memory: int = Field(default=0, sa_column=Column(BigInteger, nullable=False))

    @property
    def live(self) -> bool:
        return self.state != RunState.EXITED

    @property
    def decisive_reason(self) -> ExitReason:
        """What decides on what follows. A run that was told to stop was stopped, though it may
        have ended by itself a moment before the signal came.
        """
        return ExitReason(self.stop_reason or self.reason or ExitReason.LOST)

    @property
    def usage(self) -> Usage:
        return Usage(
            peak_memory_bytes=self.peak_memory_bytes,
            working_memory_bytes=self.working_memory_bytes,
            cpu_s=self.cpu_s,
            refused=self.refused,
            out_of_memory=self.out_of_memory,
        )

    @property
    def exit_reason(self) -> ExitReason | None:
        return ExitReason(self.reason) if self.reason else None


class Occurrence(SQLModel, table=True):
    """Written by scheduler. One due start or stop: unique, so that it is acted on once."""

    strategy_id: str = Field(primary_key=True)
    instant: datetime = moment(primary_key=True, index=True)
    action: str = Field(primary_key=True)
    state: str
    attempts: int = 0
    schedule_revision: int
    late_s: float | None = None
    detail: str | None = None
    updated_at: datetime = moment()


class FeedPosition(SQLModel, table=True):
    """Written by scheduler. How far a stream has been taken, committed with what it changed.

    So each report counts once, in the stream's order, whatever is killed when, and however many
    schedulers follow the stream.
    """

    __tablename__: ClassVar[Any] = "feed_position"

    stream: str = Field(primary_key=True)
    incarnation: str
    sequence: int


class _Outbox(SQLModel):
    """A message that was committed with its change, and is deleted once it is published."""

    id: int | None = Field(default=None, primary_key=True)
    message_id: str
    subject: str
    payload: bytes


class ApiOutbox(_Outbox, table=True):
    """Written by api."""

    __tablename__: ClassVar[Any] = "outbox_api"


class SchedulerOutbox(_Outbox, table=True):
    """Written by scheduler."""

    __tablename__: ClassVar[Any] = "outbox_scheduler"
