"""Punctuality. Reconciliation is what makes things happen; timers make it happen on time."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.date import DateTrigger

GRACE_S = 3600
"""A timer that fires late still fires; the decision then is made on the time that it is."""


class Timers:
    """One timer an instant, however many strategies are due at it: they share a transaction."""

    def __init__(self, fired: Callable[[list[str]], None]) -> None:
        self._fired = fired
        self._due: defaultdict[datetime, set[str]] = defaultdict(set)
        self._scheduler = AsyncIOScheduler(timezone=UTC)

    def start(self) -> None:
        self._scheduler.start()

    def stop(self) -> None:
        self._scheduler.shutdown(wait=False)

    def wake(self, strategy_id: str, moments: Sequence[datetime]) -> None:
        """Look at this strategy at these instants. One too many does no harm: nothing is due."""
        for moment in moments:
            if moment not in self._due:
                self._scheduler.add_job(
                    self._fire,
                    DateTrigger(moment, timezone=UTC),
                    args=[moment],
                    misfire_grace_time=GRACE_S,
                )
            self._due[moment].add(strategy_id)

    def wake_up(self) -> None:
        """The clock was set: what is due by it now fires now."""
        self._scheduler.wakeup()

    async def _fire(self, moment: datetime) -> None:
        """A coroutine, or APScheduler would call it in a thread."""
        self._fired(sorted(self._due.pop(moment, ())))
