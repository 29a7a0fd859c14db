"""Logs of runs: what is asked of the runner that has them, and what it tells while one is followed.

An offset counts the bytes of a run's log from its beginning, and stays good for as long as the
log is of the same *generation*: one begins when the script itself makes its log shorter. All that
leaves the host is masked by the runner. `secrets` names which secrets must be hidden: the asker
says which there are now, the answer which were hidden.
"""

from typing import ClassVar, Generic

from pydantic import Base64Bytes, Field

from openbell.contracts.base import ROOT, Command, Done, Message, ReplyT, RunnerAsks

MOST_READ = 524_288
"""Bytes of one answer."""
LONGEST_SOUGHT = 200
MOST_HITS = 500
SEARCH_WAIT_S = 5.0
"""How long a search by expression waits for its turn at the most, before its time begins."""


class LogCommand(Command[ReplyT], Generic[ReplyT]):
    """About the log of one run. Raises UnknownRun when its runner has none."""

    service: ClassVar[str] = "runner"
    asked_by: ClassVar[frozenset[str]] = frozenset({"api"})
    strategy_id: str
    run_id: str


class MaskedLogCommand(LogCommand[ReplyT], Generic[ReplyT]):
    """Raises LogWithheld when it cannot be learned what must be hidden."""

    secrets: str = ""
    """Which secrets must be hidden at the least."""


class LogChunk(Message):
    """Bytes `offset` to `next_offset` of a run's log, masked, which holds `size` bytes by now."""

    offset: int
    next_offset: int
    size: int
    data: Base64Bytes
    first: int = 0
    """The first byte that is still there; what came before was dropped."""
    generation: int = 0
    reset: bool = False
    """The generation that was asked for is over: this is from the beginning of another."""
    secrets: str = ""


class ReadLog(MaskedLogCommand[LogChunk]):
    """Up to `limit` bytes from `offset`; a negative offset counts from the end.

    Where that was dropped, the answer begins at the first byte that is still there. Waits up to
    `wait_s` seconds when there is nothing to read yet. Of a live run the end may be half of a
    secret: it is held back for a while.
    """

    offset: int = 0
    generation: int | None = None
    """Of which the offset is; None: of the present one."""
    limit: int = Field(default=65_536, ge=1, le=MOST_READ)
    live: bool = False
    """Whether the run may still write."""
    wait_s: float = Field(default=0, ge=0, le=30)


class LogFollowed(Message):
    """Lines are told from there on, for as long as was asked."""

    offset: int
    """Up to where it was told: what a listener has not heard by then, it must read."""
    generation: int


class FollowLog(MaskedLogCommand[LogFollowed]):
    """Tell the lines of this run as they come, to whoever listens, for so many seconds from now."""

    owner: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")
    for_s: float = Field(default=10, gt=0, le=60)


class LogHit(Message):
    """A line in which it was found, as far as it is told, and where the line begins."""

    offset: int
    line: str


class LogHits(Message):
    """Newest first."""

    hits: tuple[LogHit, ...]
    before: int | None
    """There is more to look at before this offset; None: it was searched to its beginning."""
    cut_short: bool = False
    """The time was over before there were as many hits as were asked for."""
    passed_over: int = 0
    """Lines that alone would have taken too long."""
    first: int = 0
    generation: int = 0
    secrets: str = ""


class SearchLog(MaskedLogCommand[LogHits]):
    """The lines that hold this text, or match this expression, newest first.

    Looked for in what would be read: a secret finds nothing. By expressions a user searches once
    at a time: the next one waits, SEARCH_WAIT_S at the most. Raises InvalidRequest for an
    expression that is none.
    """

    user: str
    """Who searches."""
    text: str = Field(min_length=1, max_length=LONGEST_SOUGHT)
    regex: bool = False
    ignore_case: bool = False
    before: int | None = Field(default=None, ge=0)
    """Only lines that begin before this offset."""
    limit: int = Field(default=100, ge=1, le=MOST_HITS)
    budget_s: float = Field(default=3, gt=0, le=10)
    live: bool = False


class ClearLog(LogCommand[Done]):
    """Drop all that it holds until now. Of a live run offsets go on; of an ended one it is gone."""


class LogSize(Message):
    run_id: str
    size: int
    """Bytes that were written, also those that were dropped since."""
    first: int = 0


class LogSizes(Message):
    sizes: tuple[LogSize, ...]


class MeasureLogs(Command[LogSizes]):
    """How large the logs of these runs are; of those without one nothing is told."""

    service: ClassVar[str] = "runner"
    asked_by: ClassVar[frozenset[str]] = frozenset({"api"})
    strategy_id: str
    run_ids: tuple[str, ...] = Field(max_length=500)


class LogSecrets(Message):
    """A page of what must be hidden in the logs of a run: a list of texts as JSON, sealed to the
    key of the run's runner.
    """

    sealed: Base64Bytes
    version: str
    """Tells these secrets from others. Of all pages it must be the same."""
    more: bool = False


class GetLogSecrets(RunnerAsks[LogSecrets]):
    """What must be hidden in the logs of a run that was granted to this runner, live or ended.

    Raises UnknownRun when it was not.
    """

    service: ClassVar[str] = "api"
    run_id: str
    page: int = Field(default=0, ge=0, le=100)


class LogLines(Message):
    """What a run has written, masked, while somebody follows it. Kept in no stream: whoever misses
    some reads it.
    """

    runner: str
    owner: str
    strategy_id: str
    run_id: str
    offset: int
    next_offset: int
    generation: int
    first: int = 0
    data: Base64Bytes
    secrets: str = ""

    @property
    def subject(self) -> str:
        return f"{ROOT}.log.{self.runner}.{self.owner}.{self.strategy_id}.{self.run_id}"

    @staticmethod
    def subjects(runner: str = "*") -> str:
        """The wildcard under which a runner's lines, or all runners', are told.

        It names the runner, so that none tells lines of another's runs.
        """
        return f"{ROOT}.log.{runner}.>"
