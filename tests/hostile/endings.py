"""What hostile scripts come to, each held to its limits, on a host that enforces them."""

from dataclasses import dataclass, field
from typing import Any

from tests.hostile import attacks


@dataclass(frozen=True)
class Ending:
    """What a script does, held to these limits, and the end to which it comes by itself."""

    source: str
    reason: str
    told: str
    """In the reason that people see."""
    limits: dict[str, Any] = field(default_factory=dict[str, Any])
    needs: tuple[str, ...] = ()


ENDINGS = {
    "forks": Ending(
        attacks.FORKS,
        "process_limit",
        "asked for more than 64 processes and threads",
        {"processes": 64},
        ("pids_limit",),
    ),
    "memory": Ending(attacks.MEMORY, "memory_limit", "64 MB", {"memory_mb": 64}, ("memory_limit",)),
    "memory of children": Ending(
        attacks.MEMORY_OF_CHILDREN, "memory_limit", "128 MB", {"memory_mb": 128}, ("memory_limit",)
    ),
    "threads": Ending(
        attacks.THREADS, "process_limit", "64 may be there", {"processes": 64}, ("pids_limit",)
    ),
    "descriptors": Ending(
        attacks.DESCRIPTORS, "crashed", "Too many open files", {"open_files": 128}
    ),
    "disk": Ending(attacks.DISK, "disk_limit", "of 32 MB", {"disk_mb": 32}),
    "disk, deep": Ending(attacks.DEEP, "disk_limit", "of 32 MB", {"disk_mb": 32}),
    "scratch": Ending(
        attacks.SCRATCH, "memory_limit", "64 MB", {"memory_mb": 64}, ("memory_limit", "namespaces")
    ),
    "scratch, with memory": Ending(
        attacks.SCRATCH, "crashed", "No space left", {"memory_mb": 1024}, ("namespaces",)
    ),
}
WATCHED = {
    "crowd of processes": Ending(attacks.CHILDREN, "process_limit", "64", {"processes": 64}),
    "memory of children": Ending(
        attacks.MEMORY_OF_CHILDREN, "memory_limit", "128 MB", {"memory_mb": 128}
    ),
}
"""Where nothing but looking holds a run to its limits: they take no more than a host can bear."""


@dataclass(frozen=True)
class Staying:
    """What would stay, and by which signal it goes all the same."""

    source: str
    said: str
    signal: str


STAYING = {
    "deaf": Staying(attacks.DEAF, "deaf", "SIGKILL"),
    "escaped": Staying(attacks.ESCAPED_AND_STAYING, "away", "SIGKILL"),
    "frozen": Staying(attacks.FROZEN, "frozen", "SIGKILL"),
    "another program": Staying(attacks.ANOTHER_PROGRAM, "leaving", "SIGINT"),
    "zombies": Staying(attacks.ZOMBIES, "undead", "SIGINT"),
}
