"""What runs and their hosts use just now: told every few seconds, kept in no stream."""

from pydantic import Field

from openbell.contracts.base import ROOT, Message, Utc

MOST_RUNS = 500
"""In one message, which stays far below what NATS takes; more runs are told in several."""


class HostMetrics(Message):
    """A runner's machine."""

    cpu_percent: float
    """Of all its processors together: 0 to 100."""
    processors: int
    memory_bytes: int
    """In use, without what is only cached."""
    memory_total_bytes: int
    disk_free_bytes: int
    """Where the runner's home is."""
    disk_total_bytes: int
    load: float
    """Processes that ran or waited to, on average of the last minute."""


class RunMetrics(Message):
    """All processes of a run together. None: this host does not tell, or not yet."""

    run_id: str
    strategy_id: str
    cpu_percent: float
    """Of one processor: 200 is two of them."""
    memory_bytes: int
    processes: int
    """And threads."""
    disk_bytes: int | None = None
    """What its folder holds."""
    read_bytes_s: float | None = None
    """From disks."""
    written_bytes_s: float | None = None


class RunnerMetrics(Message):
    """A runner's machine and its runs. `part` of `parts`: with many runs it takes several."""

    runner: str
    at: Utc
    host: HostMetrics
    part: int = Field(default=1, ge=1)
    parts: int = Field(default=1, ge=1)
    runs: tuple[RunMetrics, ...] = Field(default=(), max_length=MOST_RUNS)

    @property
    def subject(self) -> str:
        return self.subjects(self.runner)

    @staticmethod
    def subjects(runner: str = "*") -> str:
        """Where a runner tells its metrics, or all runners do; it alone may do so there."""
        return f"{ROOT}.metrics.{runner}"
