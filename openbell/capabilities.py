"""What a runner's host can do, in words."""

from collections.abc import Mapping

LIMITS = {
    "memory_limit": "memory",
    "pids_limit": "processes",
    "cpu_limit": "processors",
    "disk_limit": "disk",
    "files_limit": "open files",
}
"""What a runner calls each limit, and what people do."""
EXTENTS = ("enforced", "watched", "none")
APART = {"own_user": "a user for each owner", "namespaces": "no sight of others"}
"""How strategies are kept apart."""
EXPOSED = "strategies can read, change and end all that this user can, Openbell itself too"


def limits(told: Mapping[str, str]) -> str:
    """Like `memory, processes enforced; disk watched; processors not limited`."""
    parts: list[str] = []
    for extent in EXTENTS:
        names = [name for key, name in LIMITS.items() if told.get(key) == extent]
        if names:
            parts.append(f"{', '.join(names)} {'not limited' if extent == 'none' else extent}")
    return "; ".join(parts)


def apart(told: Mapping[str, str]) -> str:
    """How strategies are kept apart; empty where they are not."""
    return ", ".join(words for key, words in APART.items() if told.get(key) == "yes")
