"""The sessions that the calendar service told, kept for a while."""

import asyncio
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import structlog

from openbell.bus import Bus
from openbell.contracts.commands import ListSessions
from openbell.contracts.errors import OpenbellError
from services.scheduler.days import Known
from services.scheduler.planner import LOOK_AHEAD, LOOK_BACK

FRESH = timedelta(seconds=15)
"""A change that was told while we did not listen is known after so long."""
USABLE = timedelta(days=7)
"""A calendar that does not answer is replaced by what it said last, for this long."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Entry:
    at: datetime
    known: Known


class SessionBook:
    """Asked outside transactions (`refresh`), read inside them (`known`)."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._entries: dict[str, _Entry] = {}

    async def refresh(self, segments: set[str], now: datetime) -> None:
        """Ask for these, and for all that are known, if they are missing or no longer fresh.

        A failure leaves what there was.
        """
        stale = [
            segment
            for segment in segments | {*self._entries}
            if not ((entry := self._entries.get(segment)) and abs(now - entry.at) < FRESH)
        ]  # abs: a clock may be set back
        await asyncio.gather(*(self._refresh(segment, now) for segment in stale))

    async def _refresh(self, segment: str, now: datetime) -> None:
        first, last = (now - LOOK_BACK).date(), (now + LOOK_AHEAD).date()
        try:
            known = await self.ask(segment, first, last)
        except OpenbellError as error:
            log.warning("no sessions", segment=segment, reason=error.detail)
        else:
            self._entries[segment] = _Entry(now, known)

    def outdate(self, segment: str) -> None:
        """What was told of it is no longer so; it stands until the calendar was asked again."""
        for asked, entry in self._entries.items():
            if entry.known.segment == segment:  # it may have been asked for by another name
                self._entries[asked] = _Entry(entry.at - FRESH, entry.known)

    def known(self, segment: str, now: datetime) -> Known | None:
        entry = self._entries.get(segment)
        return entry.known if entry and now - entry.at < USABLE else None

    async def ask(self, segment: str, first: date, last: date) -> Known:
        """What the calendar tells of these days. Raises UnknownExchange, ServiceUnavailable."""
        return Known(await self._bus.request(ListSessions(segment=segment, first=first, last=last)))
