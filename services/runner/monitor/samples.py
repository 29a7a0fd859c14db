"""What one look at a run saw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

UNCOUNTABLE = 2**63 - 1
"""Stands for the bytes of a folder that is too large to be walked."""


@dataclass(frozen=True, slots=True)
class Enforced:
    """What the host itself holds a run to; the rest is watched."""

    memory: bool = False
    processes: bool = False


WATCHED_ONLY = Enforced()


@dataclass(frozen=True, slots=True)
class Reading:
    """What all processes of a run use together."""

    memory: int
    """Resident bytes."""
    processes: int
    """Processes and threads; without a keeper, which is none of the strategy's."""
    cpu_s: float
    """Seconds of processor time since its start."""
    peak_memory: int | None = None
    refused: int = 0
    """How often it was refused a process or a thread, since its start."""
    out_of_memory: int = 0
    """Processes of it that were ended for want of memory, since its start."""
    read_bytes: int | None = None
    """From disks, since its start. None: this host does not tell."""
    written_bytes: int | None = None
    grouped: bool = False
    """Whether its control group holds it: without one, nothing is enforced."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A run at one moment."""

    at: float
    """Monotonic seconds."""
    age_s: float
    """Since its start."""
    reading: Reading
    folder_bytes: int | None = None
    """As of the last walk through its folder; None before the first one."""
    quiet_s: float = 0
    """Since the first look at it or its last output, whichever came later."""
    unbeaten_s: float = 0
    """Since the first look at it or the last touch of its heartbeat file, whichever came later."""


class Counters(Protocol):
    """What a control group says of its processes. None, or no processes: it does not tell."""

    @property
    def memory(self) -> int | None: ...
    @property
    def peak_memory(self) -> int | None: ...
    @property
    def cpu_s(self) -> float | None: ...
    @property
    def processes(self) -> int: ...
    @property
    def refused(self) -> int: ...
    @property
    def out_of_memory(self) -> int: ...
    @property
    def read_bytes(self) -> int | None: ...
    @property
    def written_bytes(self) -> int | None: ...


class Group(Protocol):
    """A run's control group."""

    def used(self) -> Counters:
        """Raises OSError when it is gone."""
        ...
