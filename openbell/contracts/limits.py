"""What a run may use, how it is watched, and how it is stopped: a strategy's own policy."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from openbell.contracts.base import Message
from openbell.contracts.model import RestartPolicy, StopStep, stop_ladder

StopSignal = Literal["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"]
Interpreter = Literal["shared", "own"]
"""Whether a run is forked, where its runner does that, or has an interpreter of its own."""
LONGEST_GRACE_S = 600
Seconds = Annotated[float, Field(allow_inf_nan=False)]


class Limits(Message):
    """What a run, with all its processes, may use. What a host cannot enforce it watches, and what
    it cannot watch either it says (`GET /runners`).

    Real memory, processes and shares of the processors: never address space, processes of a host
    user, or seconds of processor time, which end scripts that did nothing wrong.
    """

    memory_mb: int | None = Field(default=None, ge=32, le=4_194_304)
    """Resident memory in MiB. None: by the host's size: 256 on 2 GB, 512 on 4 GB, 1024 from 8."""
    processes: int = Field(default=256, ge=1, le=32_768)
    """Processes and threads at one time."""
    cpu_weight: int = Field(default=100, ge=1, le=10_000)
    """Its share when processors are scarce, beside the weights of others."""
    cpus: float | None = Field(default=None, ge=0.01, le=1024, allow_inf_nan=False)
    """Processors at most, also when others are idle. None: no such limit."""
    disk_mb: int = Field(default=1024, ge=1, le=16_777_216)
    """What its folder may hold, in MiB."""
    open_files: int = Field(default=4096, ge=64, le=1_048_576)
    """Descriptors that each of its processes may have open."""


class Watchdogs(Message):
    """What else ends a run. All are off by default."""

    quiet_s: Seconds | None = Field(default=None, ge=5, le=604_800)
    """Seconds without output after which it counts as stalled."""
    heartbeat_s: Seconds | None = Field(default=None, ge=1, le=604_800)
    """Seconds for which the file named by OPENBELL_HEARTBEAT may go untouched."""
    max_runtime_s: Seconds | None = Field(default=None, ge=1, le=31_536_000)
    """Seconds after its start at which it is stopped, whatever started it."""


class StopPolicy(Message):
    """The signals that ask a run to end, each with an equal share of the grace, before SIGKILL.

    Windows has CTRL_BREAK alone, which stands for each of them.
    """

    signals: tuple[StopSignal, ...] = Field(default=("SIGINT", "SIGTERM"), max_length=6)
    grace_s: Seconds = Field(default=15, ge=0, le=LONGEST_GRACE_S)

    @field_validator("signals")
    @classmethod
    def _differ(cls, signals: tuple[StopSignal, ...]) -> tuple[StopSignal, ...]:
        if len(set(signals)) < len(signals):
            raise ValueError("a signal is named twice")
        return signals

    @property
    def ladder(self) -> tuple[StopStep, ...]:
        return stop_ladder(self.grace_s, self.signals)


class RunPolicy(Message):
    """All that a strategy's owner says of its runs, except when they are."""

    limits: Limits = Limits()
    watchdogs: Watchdogs = Watchdogs()
    stop: StopPolicy = StopPolicy()
    restart: RestartPolicy = RestartPolicy.ON_FAILURE
    interpreter: Interpreter = "shared"
    """`shared`: forked from one that has imported what the script needs, where the runner does
    that: it is up at once, and takes a fraction of the memory. `own`: started by itself."""


class Usage(Message):
    """What a run has used by its end. None: this host could not tell."""

    peak_memory_bytes: int | None = None
    """At any one time. Of a run in a control group it counts what the kernel has cached of files
    that the run read or wrote, and gives back when memory is short: it may be as much as the
    limit, though the run needed little. Of others it is that of their largest process."""
    working_memory_bytes: int | None = None
    """The most that it was seen to use at one of the looks at it, each second, without what is
    cached of files: what its next run is expected to need. None: it was not looked at."""
    cpu_s: float | None = None
    refused: int = 0
    """Processes and threads that it was not given, since it had as many as it may."""
    out_of_memory: int = 0
    """Processes of it that were ended for want of memory."""
