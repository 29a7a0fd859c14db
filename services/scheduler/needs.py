"""What a run is expected to need, by what those before it were seen to use. Pure; in bytes."""

from openbell.contracts.room import FORKED_BYTES, UNKNOWN_BYTES

MB = 1024**2


def expected(learned: int | None, limit_mb: int | None, *, forked: bool = False) -> int:
    """Never more than it may use. A limit of None is the host's."""
    unknown = FORKED_BYTES if forked else UNKNOWN_BYTES
    need = unknown if learned is None else learned
    return need if limit_mb is None else min(need, limit_mb * MB)


def learn(learned: int | None, used: int | None, *, failed: bool) -> int | None:
    """What is known once a run has ended: more counts at once, less by half with each run, so that
    one odd run is forgotten, and a version that needs less is believed, within a few.

    A run that failed tells what was needed at least: it may not have come to what takes memory.
    """
    if used is None:
        return learned
    if learned is None or used >= learned:
        return used
    return learned if failed else (learned + used) // 2
