"""Answers what is open when, and keeps what admins say of it."""

import contextlib
from collections.abc import AsyncGenerator

from openbell.bus import Bus
from openbell.contracts.commands import (
    Exchanges,
    ListExchanges,
    ListOverrides,
    ListSessions,
    MarketState,
    MarketStates,
    Overrides,
    RemoveOverride,
    Sessions,
    SetOverride,
    TellMarkets,
)
from openbell.contracts.errors import UnknownOverride
from openbell.contracts.events import CalendarChanged
from openbell.db.migrate import require_current
from openbell.db.session import Database
from openbell.settings import Settings
from services.calendar.days import LONGEST, list_sessions
from services.calendar.exchanges import all_exchanges, canonical
from services.calendar.ledger import Ledger
from services.calendar.markets import days_around, state_of
from services.calendar.overrides import checked, overridden
from services.calendar.sessions import segments
from services.calendar.shelf import Shelf


class Answers:
    """One method a command."""

    def __init__(self, ledger: Ledger, shelf: Shelf, bus: Bus) -> None:
        self._ledger = ledger
        self._shelf = shelf
        self._bus = bus

    async def sessions(self, command: ListSessions) -> Sessions:
        calendar = await self._shelf.get(command.segment)
        last = command.first + min(LONGEST, command.last - command.first)
        known = list_sessions(calendar, command.first, last)
        said = await self._ledger.of(calendar.code, command.first, last)
        return overridden(calendar, known, said)

    async def exchanges(self, _command: ListExchanges) -> Exchanges:
        return Exchanges(exchanges=tuple(all_exchanges()))

    async def markets(self, command: TellMarkets) -> MarketStates:
        names = command.segments or tuple(segments())
        markets = [await self._market(name, command) for name in names]
        return MarketStates(at=command.at, markets=tuple(markets))

    async def _market(self, name: str, command: TellMarkets) -> MarketState:
        calendar = await self._shelf.get(name)
        first, last = days_around(command.at, calendar.timezone)
        found = await self.sessions(ListSessions(segment=calendar.code, first=first, last=last))
        return state_of(found, command.at)

    async def overrides(self, command: ListOverrides) -> Overrides:
        segment = None if command.segment is None else canonical(command.segment)
        return Overrides(overrides=tuple(await self._ledger.all(segment)))

    async def set_override(self, command: SetOverride) -> Overrides:
        segment = canonical(command.override.segment)
        override = checked(command.override.model_copy(update={"segment": segment}))
        previous = await self._ledger.replace(override)
        await self._bus.tell(CalendarChanged(segment=segment))
        return Overrides(overrides=tuple(previous))

    async def remove_override(self, command: RemoveOverride) -> Overrides:
        segment = canonical(command.segment)
        removed = await self._ledger.remove(segment, command.day)
        if removed is None:
            raise UnknownOverride(f"nothing was said of {segment} on {command.day}")
        await self._bus.tell(CalendarChanged(segment=segment))
        return Overrides(overrides=tuple(removed))


@contextlib.asynccontextmanager
async def serve(settings: Settings, bus: Bus) -> AsyncGenerator[None]:
    await require_current(settings.database_url)
    database = Database(settings.database_url)
    answers = Answers(Ledger(database), Shelf(), bus)
    try:
        await bus.answer(ListSessions, answers.sessions)
        await bus.answer(ListExchanges, answers.exchanges)
        await bus.answer(TellMarkets, answers.markets)
        await bus.answer(ListOverrides, answers.overrides)
        await bus.answer(SetOverride, answers.set_override)
        await bus.answer(RemoveOverride, answers.remove_override)
        yield
    finally:
        await database.close()
