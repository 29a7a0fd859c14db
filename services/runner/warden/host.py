"""What the warden needs of an operating system, and nothing more."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

MARK = "OPENBELL_RUN_ID"
UNWATCHED = "it ended while no warden was watching"
UNSEEN = "it was adopted from an earlier warden, so that its exit code could not be seen"


class Identity(NamedTuple):
    """One process and no other: a pid alone comes back, with a stranger behind it."""

    pid: int
    ticks: int


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a run, with all its processes, is held to. None: not at all."""

    memory: int | None = None
    """Bytes."""
    processes: int | None = None
    """Processes and threads."""
    cpu_weight: int | None = None
    """1 to 10,000; 100 is usual."""
    cpus: float | None = None
    open_files: int | None = None
    """Of each process."""


@dataclass(frozen=True, slots=True)
class Order:
    run: str
    owner: str
    argv: tuple[str, ...]
    cwd: str
    env: Mapping[str, str] = field(repr=False)
    log: str
    readable: tuple[str, ...] = ()
    """What it may read besides the system and its own folder: its interpreter."""
    bounds: Bounds = Bounds()
    preload: tuple[str, ...] | None = None
    """What it imports that may be shared with others, by a zygote. None: it is to be executed."""
    patient: bool = False
    """It is for later: there is time to wait for its zygote."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a run used. None: nobody could tell."""

    peak_memory: int | None = None
    """Bytes."""
    cpu_s: float | None = None
    refused: int = 0
    """Processes and threads that it was not given."""
    out_of_memory: int = 0
    """Processes of it that the kernel ended for want of memory."""

    def or_else(self, other: Usage) -> Usage:
        """This, with what it does not know as the other one has it."""
        return Usage(
            other.peak_memory if self.peak_memory is None else self.peak_memory,
            other.cpu_s if self.cpu_s is None else self.cpu_s,
            self.refused or other.refused,
            self.out_of_memory or other.out_of_memory,
        )


@dataclass(frozen=True, slots=True)
class End:
    """How a main process ended; neither code nor signal when nobody could see it."""

    exit_code: int | None = None
    signal: str | None = None
    detail: str | None = None
    usage: Usage = Usage()
    """As far as the process itself tells; a group knows better."""
    executed: bool = True
    """False when its cell was opened, and the system refused to execute it then."""

    @property
    def known(self) -> bool:
        return self.exit_code is not None or self.signal is not None


@dataclass(frozen=True, slots=True)
class Cell:
    """A prepared start that is held: it ends when `go`, a descriptor, is closed unused."""

    keeper: Identity
    go: int
    forked: bool = False
    """By a zygote: nothing is executed any more when it goes."""


@dataclass(frozen=True, slots=True)
class Root:
    """Where the search for a run's processes begins."""

    main: Identity
    known: Set[Identity]
    own: bool


class Host(Protocol):
    """What a method here does itself is right where a run has neither a cell nor a group."""

    boot_id: str
    """Changes when the host starts anew: identities of another boot are dead."""

    @property
    def poll(self) -> float | None:
        """How long `ended` may stay uncalled while runs live; None where an event tells."""
        ...

    @property
    def untidy(self) -> bool:
        """Whether something is left of a run that was forgotten, which `ended` removes."""
        return False

    @property
    def facts(self) -> Mapping[str, object]:
        """What this host can do for a run, for the runner and for people."""
        return {}

    @property
    def held(self) -> Mapping[str, Cell]:
        """What a successor in this very process needs to go on holding what is prepared."""
        return {}

    def prepare(self, order: Order, /) -> None:
        """Begins all of a start but its execution: it is held until `release` or `recall`.

        OSError or ValueError when it cannot be executed; then it is to be forgotten. What came
        of it `outcomes` tells, unless it is prepared by then.
        """
        ...

    def is_prepared(self, _run: str, /) -> bool:
        """Whether `release` would have nothing left to wait for. An event tells."""
        return True

    @property
    def preparing(self) -> bool:
        """Whether anything is, just now: what a successor could not go on with, and what takes too
        long `outcomes` tells.
        """
        return False

    def outcomes(self) -> Iterable[tuple[str, Exception | str | None]]:
        """What was prepared since the last call, with what is to be said of it; and what could not
        be, with the reason.
        """
        return ()

    def release(self, run: str, /) -> Identity:
        """Executes what was prepared, once it is. OSError, ValueError as above."""
        ...

    def recall(self, run: str, /) -> None:
        """Gives up what was prepared."""
        ...

    def has_keeper(self, _run: str, /) -> bool:
        """Whether the main process of a run is a keeper, and none of the strategy's own."""
        return False

    def adopt(self, run: str, main: Identity, /) -> End | None:
        """Watches a process that an earlier warden started, or tells how it ended."""
        ...

    def epitaph(self, _run: str, /) -> End | None:
        """How a run of an earlier boot ended, if that was written down."""
        return None

    def find(self, runs: Set[str], /) -> Mapping[str, Identity]:
        """The main processes of runs whose start was not journalled, of those that have one."""
        ...

    def ended(self) -> Iterable[tuple[int, End]]:
        """Every process that ended since the last call, strangers' orphans included."""
        ...

    def trees(self, roots: Mapping[str, Root], /) -> Mapping[str, Set[Identity]]:
        """The living processes of each run, found in one look at the whole host."""
        ...

    def send(self, run: str, members: Set[Identity], signal: str, /) -> None:
        """Signals each member that still is who it was; the dead are passed over."""
        ...

    def usage(self, _run: str, /) -> Usage:
        """What a run has used, of which no process is left."""
        return Usage()

    def forget(self, _run: str, /) -> None:
        """What became of this run is on disk: nothing else of it need be kept."""

    def forget_strangers(self, _runs: Set[str], /) -> None:
        """As above, of all runs but these."""

    def close(self) -> None:
        """No run is left, and none will come."""
