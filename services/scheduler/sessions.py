"""The sessions that the calendar service told, kept for a while."""

from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from openbell.bus import Bus
from openbell.contracts.commands import ListSessions, Sessions
from openbell.contracts.errors import OpenbellError
from services.scheduler.planner import LOOK_AHEAD, LOOK_BACK

FRESH = timedelta(minutes=1)
USABLE = timedelta(days=7)
"""A calendar that does not answer is replaced by what it said last, for this long."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Entry:
    at: datetime
    sessions: Sessions


class SessionBook:
    """Asked outside transactions (`refresh`), read inside them (`known`)."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._entries: dict[str, _Entry] = {}

    async def refresh(self, segments: set[str], now: datetime) -> None:
        """Ask for these, and for all that are known, if they are missing or no longer fresh.

        A failure leaves what there was.
        """
        for segment in segments | {*self._entries}:
            entry = self._entries.get(segment)
            if entry and now - entry.at < FRESH:
                continue
            first, last = (now - LOOK_BACK).date(), (now + LOOK_AHEAD).date()
            try:
                sessions = await self._bus.request(
                    ListSessions(segment=segment, first=first, last=last)
                )
            except OpenbellError as error:
                log.warning("no sessions", segment=segment, reason=error.detail)
            else:
                self._entries[segment] = _Entry(now, sessions)

    def known(self, segment: str, now: datetime) -> Sessions | None:
        entry = self._entries.get(segment)
        return entry.sessions if entry and now - entry.at < USABLE else None
