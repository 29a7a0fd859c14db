"""How a runner runs strategies: the contract that every backend keeps.

A backend owns nothing that dies with the runner. What runs is owned by something that outlives it
(the warden for processes, dockerd for containers), and the backend is a connection to that owner.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal, Protocol

from openbell.contracts.limits import Limits, Usage
from openbell.contracts.model import ExitReason, RunState, StopStep
from services.runner.monitor.samples import Group

Enforcement = Literal["enforced", "watched", "none"]


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a backend can do on this host. Ask these, never which backend it is."""

    backend: str
    memory_limit: Enforcement
    pids_limit: Enforcement
    cpu_limit: Enforcement
    disk_limit: Enforcement
    files_limit: Enforcement
    own_user: bool
    """Whether the strategies of each owner run as a user of their own."""
    namespaces: bool
    """Whether a strategy has a file system and processes of its own, and sees no others."""
    why_not: tuple[str, ...]
    """For people: why something is not enforced here."""
    graceful_stop: bool
    """Whether a strategy can be told to end before it is killed."""

    def as_texts(self) -> dict[str, str]:
        return {
            "backend": self.backend,
            "memory_limit": self.memory_limit,
            "pids_limit": self.pids_limit,
            "cpu_limit": self.cpu_limit,
            "disk_limit": self.disk_limit,
            "files_limit": self.files_limit,
            "own_user": "yes" if self.own_user else "no",
            "namespaces": "yes" if self.namespaces else "no",
            "why_not": "; ".join(self.why_not),
            "graceful_stop": "yes" if self.graceful_stop else "no",
        }


@dataclass(frozen=True, slots=True)
class RunSpec:
    """Everything that a start needs. `environment` may hold secrets: it is never stored."""

    run_id: str
    strategy_id: str
    epoch: int
    python: Path
    script: str
    """Relative to `folder`, as the user would write it: `python script`."""
    folder: Path
    environment: Mapping[str, str] = field(repr=False)
    log: Path
    ladder: tuple[StopStep, ...]
    """How it wants to be stopped."""
    owner: str
    limits: Limits = field(default_factory=Limits)
    max_runtime_s: float | None = None
    note: str = ""
    """The runner's own, kept with the run for whichever runner asks what is live."""
    readable: tuple[Path, ...] = ()
    """What its interpreter consists of, and whatever else it may read besides its own folder."""
    start_at: datetime | None = None
    """The instant until which it is held, prepared. None, or the past: it starts at once."""
    preload: tuple[str, ...] | None = None
    """What it may share with others, where it can be forked from an interpreter that has imported
    it. None: it gets an interpreter of its own."""


@dataclass(frozen=True, slots=True)
class Process:
    """By which a live run is watched."""

    pid: int
    started_at: datetime
    keeper: bool = False
    """Whether it is one that looks after the strategy's processes, and none of them."""


@dataclass(frozen=True, slots=True)
class RunHandle:
    """A live run, as its owner knows it. Small and serialisable; `version` guards its meaning."""

    backend: str
    version: int
    run_id: str
    strategy_id: str
    epoch: int
    reference: str
    """What finds it again: a process's identity, a container's id; nothing while it is held."""
    ladder: tuple[StopStep, ...]
    """How it wants to be stopped, as its spec said."""
    note: str = ""
    """As its spec said."""
    process: Process | None = None
    """None while it is held."""


@dataclass(frozen=True, slots=True)
class Observation:
    """Something that happened to a run, numbered by the owner of the runs."""

    number: int
    at: datetime
    run_id: str
    strategy_id: str
    epoch: int
    state: RunState
    exit_code: int | None = None
    signal: str | None = None
    reason: ExitReason | None = None
    detail: str | None = None
    usage: Usage | None = None
    process: Process | None = None
    """Of what has started."""


@dataclass(frozen=True, slots=True)
class Recovery:
    """What is so when a connection is made."""

    live: tuple[RunHandle, ...]
    acknowledged: int
    """The number up to which observations are known elsewhere."""
    observed: int
    """The number of the last observation until now."""


class StartRefused(Exception):
    """The run did not start; the message says why, for the user.

    `observed` tells that the owner recorded it, so that an observation of the end follows.
    """

    def __init__(self, message: str, *, observed: bool) -> None:
        super().__init__(message)
        self.observed = observed


class BackendLost(ConnectionError):
    """The owner of the runs does not answer. They go on; `recover` finds them again."""


class NoSuchRun(LookupError):
    """The owner of the runs does not know this run."""


class Backend(Protocol):
    """One connection to the owner of the runs on this host.

    The awkward moments:
    - before `recover`: nothing else may be called;
    - `start` of a run that runs, or has run: answers with its handle, and starts nothing;
    - `start` of an epoch that is not above the last of its strategy: StartRefused;
    - `start` with an instant ahead: answers once it is held, and observes `parked`; at the instant
      it starts by the host's wall clock, with or without a runner. `stop` ends it on the spot;
    - the runner dies: runs go on, ends are kept; the next `recover` and `observations` tell all;
    - the owner itself dies and is started anew: what is alive is found again by its identity, and
      what cannot be known of the rest is said as `lost`. What it held did not start, and that is
      observed: variables are written down nowhere.
    """

    @property
    def capabilities(self) -> Capabilities: ...

    async def recover(self) -> Recovery:
        """Connect, and tell what is live. Raises BackendLost."""
        ...

    async def start(self, spec: RunSpec) -> RunHandle:
        """Start a run. Raises StartRefused, BackendLost."""
        ...

    async def stop(
        self,
        run_id: str,
        ladder: Sequence[StopStep],
        reason: ExitReason,
        detail: str | None = None,
    ) -> None:
        """Begin to stop a run: its whole tree walks the ladder, also if the runner dies meanwhile.

        `detail` says why, for people. Returns at once. A run that has ended is left alone.
        Raises NoSuchRun, BackendLost.
        """
        ...

    def observations(self, after: int) -> AsyncIterator[Sequence[Observation]]:
        """All with a greater number, in order, then all that happens, as many at once as are
        there. Raises BackendLost.
        """
        ...

    async def acknowledge(self, number: int) -> None:
        """Observations up to this number are known elsewhere for good. Raises BackendLost."""
        ...

    def group(self, run_id: str) -> Group | None:
        """Where to read what this run uses; None where its processes alone tell."""
        ...

    def ceiling(self) -> tuple[int, int] | None:
        """How much memory all runs together may use, and how much of it is free: bytes. None: no
        bound but the machine's own.
        """
        ...

    async def shut_down(self) -> None:
        """End the owner of the runs too, if nothing runs. Raises BackendLost."""
        ...

    async def close(self) -> None:
        """Let go of the connection. What runs goes on."""
        ...
