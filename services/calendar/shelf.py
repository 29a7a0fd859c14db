"""Finds a segment's calendar by its name."""

import asyncio
from datetime import date

from openbell.contracts.base import utc_now
from services.calendar.days import Calendar
from services.calendar.exchanges import canonical, library_exchanges
from services.calendar.library import LibraryCalendar, known_until, load
from services.calendar.sessions import segments


class Shelf:
    """Holds the library's calendars that were asked for; each is loaded anew every year."""

    def __init__(self) -> None:
        self._loaded: dict[str, LibraryCalendar] = {}
        self._loading = asyncio.Lock()

    async def get(self, name: str) -> Calendar:
        """Raises UnknownExchange. The first time it may take seconds, beside the event loop."""
        code = canonical(name)
        if code in segments():
            return segments()[code]
        until = known_until(utc_now().date())
        found = self._loaded.get(code)
        if found is None or found.wanted_until != until:
            found = await self._load(code, until)
        return found

    async def _load(self, code: str, until: date) -> LibraryCalendar:
        async with self._loading:
            found = self._loaded.get(code)
            if found is None or found.wanted_until != until:  # nobody loaded it while we waited
                exchange = library_exchanges()[code]
                found = await asyncio.to_thread(load, code, exchange, until)
                self._loaded[code] = found
            return found
