"""The calendar as others meet it: over the bus, with its own rights, and with a database."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import select

from openbell.bus import Bus
from openbell.contracts.base import Command
from openbell.contracts.commands import (
    ListExchanges,
    ListOverrides,
    ListSessions,
    MarketState,
    OpenHours,
    Override,
    Overrides,
    RemoveOverride,
    Sessions,
    SetOverride,
    TellMarkets,
)
from openbell.contracts.errors import (
    InvalidRequest,
    ServiceUnavailable,
    UnknownExchange,
    UnknownOverride,
)
from openbell.contracts.model import SessionKind
from openbell.db.models import CalendarOverride
from openbell.db.session import Database
from openbell.settings import DatabaseSettings, Settings
from services.calendar.service import serve
from tests.fixtures import databases
from tests.fixtures.nats import NatsServer

HOLIDAY = date(2026, 9, 14)
"""A Monday: Ganesh Chaturthi."""
UNKNOWN_DAY = date(2027, 1, 26)
SLOW_S = 60
"""For what loads the library on a busy machine."""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """With a database of this release's schema."""
    url = databases.migrated(tmp_path / "openbell.db")
    return Settings(home=tmp_path, database=DatabaseSettings(url=url))


@contextlib.asynccontextmanager
async def calendars(nats: NatsServer, settings: Settings, count: int = 1) -> AsyncGenerator[Bus]:
    """So many replicas; the bus is api's."""
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(nats.bus())  # makes the streams
        for _ in range(count):
            bus = await stack.enter_async_context(nats.bus_of("calendar"))
            await stack.enter_async_context(serve(settings, bus))
        yield await stack.enter_async_context(nats.bus_of("api"))


def said(day: date, *hours: tuple[int, int], segment: str = "NSE", by: str = "asha") -> SetOverride:
    return SetOverride(
        override=Override(
            segment=segment,
            day=day,
            hours=tuple(OpenHours(opens=time(a), closes=time(b)) for a, b in hours),
            reason="as announced",
            by=by,
            at=datetime(2026, 9, 1, tzinfo=UTC),
        )
    )


async def on(api: Bus, day: date, segment: str = "NSE") -> Sessions:
    return await api.request(ListSessions(segment=segment, first=day, last=day), timeout_s=SLOW_S)


async def market(api: Bus, at: str, segment: str = "NSE") -> MarketState:
    moment = datetime.fromisoformat(at).replace(tzinfo=UTC)
    told = await api.request(TellMarkets(segments=(segment,), at=moment), timeout_s=SLOW_S)
    (state,) = told.markets
    return state


def test_a_holiday_is_overridden_for_all_replicas_at_once(
    nats: NatsServer, settings: Settings
) -> None:
    async def override() -> None:
        async with calendars(nats, settings, count=3) as api:
            assert [closure.reason for closure in (await on(api, HOLIDAY)).closures] == [
                "Ganesh Chaturthi"
            ]
            before = await api.request(said(HOLIDAY, (9, 12), (13, 15)))
            assert before == Overrides(overrides=())
            for _ in range(12):  # whichever replica answers
                found = await on(api, HOLIDAY)
                assert [s.kind for s in found.sessions] == [SessionKind.SPECIAL] * 2
                assert found.closures == ()

    asyncio.run(override())


def test_it_tells_what_was_said_before(nats: NatsServer, settings: Settings) -> None:
    async def change() -> None:
        async with calendars(nats, settings) as api:
            await api.request(said(HOLIDAY, (9, 12)))
            (before,) = (await api.request(said(HOLIDAY, (10, 12), by="ravi"))).overrides
            assert (before.by, before.hours[0].opens) == ("asha", time(9))
            (listed,) = (await api.request(ListOverrides())).overrides
            assert listed == said(HOLIDAY, (10, 12), by="ravi").override
            (removed,) = (await api.request(RemoveOverride(segment="nse", day=HOLIDAY))).overrides
            assert removed == listed
            assert (await on(api, HOLIDAY)).sessions == ()
            with pytest.raises(UnknownOverride):
                await api.request(RemoveOverride(segment="NSE", day=HOLIDAY))

    asyncio.run(change())


def test_overrides_are_listed_by_day_and_segment(nats: NatsServer, settings: Settings) -> None:
    async def listed() -> None:
        async with calendars(nats, settings) as api:
            await api.request(said(HOLIDAY, (9, 12), segment="nasdaq"))
            await api.request(said(date(2026, 9, 1), segment="MCX"))
            await api.request(said(HOLIDAY, (9, 12), segment="MCX"))
            every = (await api.request(ListOverrides())).overrides
            assert [(each.segment, each.day.day) for each in every] == [
                ("MCX", 1),
                ("MCX", 14),
                ("XNYS", 14),
            ]
            of_one = (await api.request(ListOverrides(segment="NYSE"))).overrides
            assert [each.segment for each in of_one] == ["XNYS"]

    asyncio.run(listed())


def test_what_cannot_be_is_refused(nats: NatsServer, settings: Settings) -> None:
    async def refused() -> None:
        async with calendars(nats, settings) as api:
            with pytest.raises(InvalidRequest) as caught:
                await api.request(said(HOLIDAY, (9, 12), (11, 13)))
            assert caught.value.errors
            assert caught.value.errors[0]["field"] == "hours"
            commands: list[Command[Any]] = [
                said(HOLIDAY, segment="NOPE"),
                RemoveOverride(segment="NOPE", day=HOLIDAY),
                ListOverrides(segment="NOPE"),
                ListSessions(segment="NOPE", first=HOLIDAY, last=HOLIDAY),
                TellMarkets(segments=("NOPE",), at=datetime(2026, 9, 1, tzinfo=UTC)),
            ]
            for command in commands:
                with pytest.raises(UnknownExchange):
                    await api.request(command)
            assert (await api.request(ListOverrides())).overrides == ()

    asyncio.run(refused())


def test_the_scheduler_hears_of_a_change(nats: NatsServer, settings: Settings) -> None:
    async def heard() -> None:
        changed: asyncio.Queue[str] = asyncio.Queue()
        async with calendars(nats, settings) as api, nats.bus_of("scheduler") as scheduler:
            await scheduler.on_calendar(lambda notice: changed.put_nowait(notice.segment))
            first, last = HOLIDAY, HOLIDAY
            await scheduler.request(ListSessions(segment="NSE", first=first, last=last))
            await api.request(said(HOLIDAY, (9, 12), segment="nfo"))
            assert await asyncio.wait_for(changed.get(), 5) == "NFO"
            await api.request(RemoveOverride(segment="NFO", day=HOLIDAY))
            assert await asyncio.wait_for(changed.get(), 5) == "NFO"

    asyncio.run(heard())


def test_an_override_outlives_the_service_and_makes_an_unknown_day_known(
    nats: NatsServer, settings: Settings
) -> None:
    async def outlives() -> None:
        async with calendars(nats, settings) as api:
            assert (await market(api, "2027-01-26T06:00")).is_open is None
            await api.request(said(UNKNOWN_DAY))
        async with calendars(nats, settings) as api:
            found = await on(api, UNKNOWN_DAY)
            (closure,) = found.closures
            assert closure.source == "set by asha on 2026-09-01"
            assert found.covered_until < UNKNOWN_DAY
            state = await market(api, "2027-01-26T06:00")
            assert (state.is_open, state.reason) == (False, "closed: as announced")

    asyncio.run(outlives())


def test_an_override_that_cannot_be_read_is_passed_over(
    nats: NatsServer, settings: Settings
) -> None:
    async def passed_over() -> None:
        database = Database(settings.database_url)
        async with database.write() as session:
            session.add(
                CalendarOverride(
                    segment="NSE",
                    day=HOLIDAY,
                    hours=[{"opens": "nine"}],
                    reason="of another release",
                    by="asha",
                    at=datetime(2026, 9, 1, tzinfo=UTC),
                )
            )
        async with calendars(nats, settings) as api:
            assert (await on(api, HOLIDAY)).closures[0].reason == "Ganesh Chaturthi"
            assert (await api.request(ListOverrides())).overrides == ()
            assert (await api.request(said(HOLIDAY, (9, 12)))).overrides == ()
            assert len((await api.request(ListOverrides())).overrides) == 1
        async with database.read() as session:
            assert len((await session.exec(select(CalendarOverride))).all()) == 1
        await database.close()

    asyncio.run(passed_over())


def test_an_exchange_of_the_library_is_like_any_other(nats: NatsServer, settings: Settings) -> None:
    async def like_any_other() -> None:
        async with calendars(nats, settings) as api:
            exchanges = (await api.request(ListExchanges())).exchanges
            assert {"NSE", "CRYPTO", "XNYS", "XLON"} < {each.code for each in exchanges}
            thanksgiving = date(2026, 11, 26)
            found = await on(api, thanksgiving, "NYSE")
            assert found.segment == "XNYS"
            assert [closure.reason for closure in found.closures] == ["Thanksgiving"]
            await api.request(said(thanksgiving, (10, 12), segment="NYSE"))
            (session,) = (await on(api, thanksgiving, "XNYS")).sessions
            assert session.opens_at == datetime(2026, 11, 26, 15, 0, tzinfo=UTC)
            state = await market(api, "2026-11-26T16:00", "NYSE")
            assert (state.is_open, state.reason) == (True, "open until 12:00: as announced")
            assert state.next
            assert state.next.reason == "Black Friday"

    asyncio.run(like_any_other())


def test_it_tells_the_markets_of_our_own_facts_when_none_is_named(
    nats: NatsServer, settings: Settings
) -> None:
    async def own_facts() -> None:
        async with calendars(nats, settings) as api:
            at = datetime(2026, 9, 14, 12, 0, tzinfo=UTC)
            told = await api.request(TellMarkets(at=at))
            assert told.at == at
            assert {state.segment: state.is_open for state in told.markets} == {
                "NSE": False,
                "BSE": False,
                "NFO": False,
                "BFO": False,
                "CDS": False,
                "BCD": False,
                "MCX": True,
                "NCO": True,
                "CRYPTO": True,
            }

    asyncio.run(own_facts())


def test_it_does_not_start_on_another_releases_database(nats: NatsServer, tmp_path: Path) -> None:
    async def start() -> None:
        settings = Settings(home=tmp_path)
        settings.data.mkdir()
        with pytest.raises(ServiceUnavailable, match="openbell migrate"):
            async with nats.bus_of("calendar") as bus, serve(settings, bus):
                pass

    asyncio.run(start())
