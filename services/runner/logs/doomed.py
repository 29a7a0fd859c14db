"""Which old parts of logs must go. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Part:
    """An archive, or the log of an ended run as it was written."""

    run_id: str
    begin: int
    at: float
    """When it was written last, in seconds."""
    takes: int
    """Bytes of the disk."""


def oldest_first(parts: Iterable[Part]) -> list[Part]:
    """By when they were written. Of one run never a later part before an earlier one, whatever the
    clock did: what is kept of a log has no gap.
    """
    of_run: defaultdict[str, list[Part]] = defaultdict(list)
    for part in parts:
        of_run[part.run_id].append(part)
    dated: list[tuple[float, str, int, Part]] = []
    for run_id, its in of_run.items():
        at = float("-inf")
        for part in sorted(its, key=lambda one: one.begin):
            at = max(at, part.at)
            dated.append((at, run_id, part.begin, part))
    return [part for *_, part in sorted(dated, key=lambda one: one[:3])]


def doomed(parts: Iterable[Part], *, most: int, not_before: float) -> Sequence[Part]:
    """The oldest, so that the rest takes `most` bytes, and none was written before that time."""
    ordered = oldest_first(parts)
    excess = sum(part.takes for part in ordered) - most
    gone: list[Part] = []
    for part in ordered:
        if excess <= 0 and part.at >= not_before:
            break
        gone.append(part)
        excess -= part.takes
    return gone


def until_enough(parts: Iterable[Part], needed: int) -> Sequence[Part]:
    """The oldest, which give back so many bytes."""
    gone: list[Part] = []
    for part in oldest_first(parts):
        if needed <= 0:
            break
        gone.append(part)
        needed -= part.takes
    return gone
