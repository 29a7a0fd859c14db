"""What the warden needs of an operating system, and nothing more."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from typing import NamedTuple, Protocol

MARK = "OPENBELL_RUN_ID"
UNSEEN = "it was adopted from an earlier warden, so that its exit code could not be seen"


class Identity(NamedTuple):
    """One process and no other: a pid alone comes back, with a stranger behind it."""

    pid: int
    ticks: int


@dataclass(frozen=True, slots=True)
class Order:
    run: str
    argv: tuple[str, ...]
    cwd: str
    env: Mapping[str, str]
    log: str


@dataclass(frozen=True, slots=True)
class End:
    """How a main process ended; neither code nor signal when nobody could see it."""

    exit_code: int | None = None
    signal: str | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Root:
    """Where the search for a run's processes begins."""

    main: Identity
    known: Set[Identity]
    own: bool


class Host(Protocol):
    boot_id: str
    """Changes when the host starts anew: identities of another boot are dead."""

    @property
    def poll(self) -> float | None:
        """How long `ended` may stay uncalled while runs live; None where an event tells."""
        ...

    def spawn(self, order: Order, /) -> Identity:
        """Starts it in a session of its own, marked with its run.

        OSError or ValueError when it cannot be executed, and then nothing is left of it.
        """
        ...

    def adopt(self, run: str, main: Identity, /) -> bool:
        """Watches a process that an earlier warden started; False when it is gone."""
        ...

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
