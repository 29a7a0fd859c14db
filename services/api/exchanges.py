"""Exchanges, as callers name them."""

from collections.abc import Generator
from contextlib import contextmanager
from datetime import date
from zoneinfo import ZoneInfo

from openbell.bus import Bus
from openbell.contracts.base import utc_now
from openbell.contracts.commands import ListSessions, Sessions
from openbell.contracts.errors import InvalidRequest, UnknownExchange
from openbell.contracts.schedules import AnySchedule, exchange_of

ANSWER_S = 20
"""The first question about a segment may have its whole history read."""
LONGEST_NAME = 32


async def sessions_of(bus: Bus, exchange: str, first: date, last: date) -> Sessions:
    """Raises InvalidRequest, UnknownExchange, which name the field."""
    asked = ListSessions(segment=checked(exchange), first=first, last=last)
    with naming_field():
        return await bus.request(asked, timeout_s=ANSWER_S)


async def today_of(bus: Bus, exchange: str) -> tuple[str, date]:
    """The exchange's code, and which day it is there. Raises InvalidRequest, UnknownExchange."""
    now = utc_now()
    found = await sessions_of(bus, exchange, now.date(), now.date())
    return found.segment, now.astimezone(ZoneInfo(found.timezone)).date()


async def code_of(bus: Bus, exchange: str) -> str:
    """The code by which it is kept. Raises InvalidRequest, UnknownExchange."""
    code, _ = await today_of(bus, exchange)
    return code


async def with_code(bus: Bus, schedule: AnySchedule) -> AnySchedule:
    """The schedule, with its exchange's code. Raises InvalidRequest, UnknownExchange."""
    exchange = exchange_of(schedule)
    if exchange is None:
        return schedule
    return schedule.model_copy(update={"exchange": await code_of(bus, exchange)})


def checked(exchange: str) -> str:
    """Raises InvalidRequest when no exchange can have this name."""
    name = exchange.strip()
    if not (name.isascii() and name.isprintable() and 0 < len(name) <= LONGEST_NAME):
        raise InvalidRequest.of("exchange", "write a code like NSE")
    return name


@contextmanager
def naming_field() -> Generator[None]:
    """An unknown exchange is told with the field that it came in. Raises UnknownExchange."""
    try:
        yield
    except UnknownExchange as error:
        errors = [{"field": "exchange", "message": error.detail}]
        raise UnknownExchange(error.detail, errors=errors) from None
