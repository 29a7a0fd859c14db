"""What a runner has left for more runs, and how many of them that is."""

from openbell.contracts.base import Message

UNKNOWN_BYTES = 64 * 1024**2
"""What a run is taken to need while nobody has seen how much it does."""
FORKED_BYTES = 16 * 1024**2
"""The same of one that is forked from an interpreter which has imported what it needs: with pandas
such a one was measured to take 12 MB (docs/benchmarks.md)."""
BUSY_PERCENT = 90
"""From here on, processors are too busy for what runs to run as fast as it could."""


class Room(Message):
    """What a runner says with each heartbeat. All memory is real memory, in bytes."""

    memory_total_bytes: int
    """Of its machine, or of the control group that its runs are in, where that allows less."""
    memory_free_bytes: int
    """For more runs: what is available, less a reserve, less what is promised. Below 0 where more
    is promised than there is."""
    memory_promised_bytes: int = 0
    """What its runs are expected to use besides what they use now."""
    forks: bool = False
    """Whether runs are forked there, unless their strategies say otherwise."""
    each_bytes: int = UNKNOWN_BYTES
    """What one more is reckoned to need: as much as its runs do on average, and no less than one of
    which nothing is known."""
    most_runs: int | None = None
    """How many it takes, by its settings."""
    run_ids: tuple[str, ...] = ()
    """The runs that all this counts: those that live, and those that are being prepared."""
    busy_percent: float | None = None
    """Of all its processors, on average of the last minute: 0 to 100. None: not known yet."""

    @property
    def fits(self) -> int:
        """How many more runs of `each_bytes`. One fits wherever nothing runs: there is never going
        to be more room.
        """
        fits = max(0, self.memory_free_bytes // self.each_bytes, 0 if self.run_ids else 1)
        if self.most_runs is None:
            return fits
        return min(fits, max(0, self.most_runs - len(self.run_ids)))

    @property
    def is_busy(self) -> bool:
        return self.busy_percent is not None and self.busy_percent > BUSY_PERCENT
