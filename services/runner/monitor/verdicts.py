"""Whether a run has broken what its policy says. Pure: looks at it go in, a verdict comes out.

`max_runtime_s` is the warden's, who need not be told by anybody.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from openbell.contracts.limits import Limits, Usage, Watchdogs
from openbell.contracts.model import ExitReason
from services.runner.monitor.samples import UNCOUNTABLE, Enforced, Sample

MB = 1024**2
REFUSING_S = 10
"""For how long a run may be refused processes on end, while it has all that it may have."""
NEARLY = 0.9
"""Of its limit: a run whose processes come and go is at its limit with some fewer, too."""
RECENT_S = 5
"""A crash this long after a refusal is put down to it."""
KEPT_S = REFUSING_S + RECENT_S
"""How far back looks are needed."""
UNASKED = frozenset({ExitReason.CRASHED, ExitReason.KILLED, ExitReason.MEMORY_LIMIT})
"""How a run ends that nobody has ended, as the warden tells it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """It ends, for this reason; the detail is for people."""

    reason: ExitReason
    detail: str

    @property
    def at_once(self) -> bool:
        """Without its ladder: it would go on using what it may not."""
        return self.reason is not ExitReason.STALLED


def judge(
    limits: Limits, watchdogs: Watchdogs, samples: Sequence[Sample], enforced: Enforced
) -> Verdict | None:
    """Of a live run, by the looks at it, oldest first. A `memory_mb` of None limits nothing."""
    if not samples:
        return None
    return (
        _memory(limits, samples, enforced=enforced.memory)
        or _processes(limits, samples, enforced=enforced.processes)
        or _disk(limits, samples[-1])
        or _stalled(watchdogs, samples[-1])
    )


def concluded(
    reason: ExitReason, usage: Usage, samples: Sequence[Sample], limits: Limits
) -> Verdict | None:
    """The limit of which a run has died that nobody had ended: the kernel ended it for want of
    memory, or it crashed since it was refused a process or a thread. None: of something else.

    `usage` is what it had used in the end, `samples` are the looks at it, oldest first.
    """
    if reason not in UNASKED:
        return None
    if usage.out_of_memory:
        peak = usage.peak_memory_bytes
        return Verdict(ExitReason.MEMORY_LIMIT, _out_of_memory(limits, peak, usage.out_of_memory))
    if reason is ExitReason.CRASHED and usage.refused > _refused_long_ago(samples):
        told = f"it was refused a process or thread: {limits.processes} may be there at one time"
        return Verdict(ExitReason.PROCESS_LIMIT, told)
    return None


def _refused_long_ago(samples: Sequence[Sample]) -> int:
    """How often it had been refused by the time from which on a refusal counts as recent.

    Of a run that we found running, that is what the first look saw: when it was, we cannot know.
    """
    young = not samples or samples[0].age_s <= RECENT_S
    before = 0 if young else samples[0].reading.refused
    for sample in samples:
        if sample.at <= samples[-1].at - RECENT_S:
            before = sample.reading.refused
    return before


def _memory(limits: Limits, samples: Sequence[Sample], *, enforced: bool) -> Verdict | None:
    """Where the kernel enforces it, it ends one process, or all; then the run is over."""
    now = samples[-1].reading
    if enforced and now.out_of_memory:
        told = _out_of_memory(limits, now.peak_memory, now.out_of_memory)
        return Verdict(ExitReason.MEMORY_LIMIT, told)
    if enforced or limits.memory_mb is None:
        return None
    most = limits.memory_mb * MB
    if len(samples) < 2 or min(one.reading.memory for one in samples[-2:]) <= most:
        return None
    return Verdict(ExitReason.MEMORY_LIMIT, f"used {_of(now.memory, limits.memory_mb)}")


def _processes(limits: Limits, samples: Sequence[Sample], *, enforced: bool) -> Verdict | None:
    counts = [one.reading.processes for one in samples]
    if enforced:
        if _refused_for_s(limits, samples) < REFUSING_S:
            return None
        told = f"asked for more than {limits.processes} processes and threads for {REFUSING_S} s"
        return Verdict(ExitReason.PROCESS_LIMIT, told)
    if len(counts) < 2 or min(counts[-2:]) <= limits.processes:
        return None
    told = f"had {counts[-1]} of {limits.processes} processes and threads"
    return Verdict(ExitReason.PROCESS_LIMIT, told)


def _refused_for_s(limits: Limits, samples: Sequence[Sample]) -> float:
    """For how long each look has seen more refusals than the one before, at the limit."""
    since = samples[-1].at
    for later, sooner in pairwise(reversed(samples)):
        full = later.reading.processes >= NEARLY * limits.processes
        if not full or later.reading.refused <= sooner.reading.refused:
            break
        since = sooner.at
    return samples[-1].at - since


def _disk(limits: Limits, sample: Sample) -> Verdict | None:
    if sample.folder_bytes is None or sample.folder_bytes <= limits.disk_mb * MB:
        return None
    if sample.folder_bytes == UNCOUNTABLE:
        return Verdict(ExitReason.DISK_LIMIT, "its folder holds more folders than can be counted")
    detail = f"its folder holds {_of(sample.folder_bytes, limits.disk_mb)}"
    return Verdict(ExitReason.DISK_LIMIT, detail)


def _stalled(watchdogs: Watchdogs, sample: Sample) -> Verdict | None:
    if watchdogs.quiet_s is not None and sample.quiet_s >= watchdogs.quiet_s:
        return Verdict(ExitReason.STALLED, f"wrote nothing for {sample.quiet_s:.0f} s")
    if watchdogs.heartbeat_s is not None and sample.unbeaten_s >= watchdogs.heartbeat_s:
        told = f"did not touch its heartbeat file for {sample.unbeaten_s:.0f} s"
        return Verdict(ExitReason.STALLED, told)
    return None


def _out_of_memory(limits: Limits, peak: int | None, ended: int) -> str:
    """The kernel counts alike those that it ends since the whole host has no memory left."""
    what = "a process of it was" if ended == 1 else f"{ended} processes of it were"
    if limits.memory_mb is None:
        return f"{what} ended for want of memory"
    if peak is not None and peak < NEARLY * limits.memory_mb * MB:
        used = _of(peak, limits.memory_mb)
        return f"{what} ended since the host had no memory left; it had used {used} at most"
    return f"{what} ended: it may use {limits.memory_mb} MB"


def _of(used: int, most_mb: int) -> str:
    """Rounded up, so that it never says `512 of 512`."""
    return f"{-(-used // MB)} MB of {most_mb} MB"
