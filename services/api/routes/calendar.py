"""When exchanges are open, and what admins say of single days."""

import asyncio
from datetime import date
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from openbell.contracts.base import utc_now
from openbell.contracts.commands import (
    Exchange,
    Exchanges,
    ListExchanges,
    ListOverrides,
    MarketStates,
    OpenHours,
    Override,
    Overrides,
    RemoveOverride,
    Sessions,
    SetOverride,
    TellMarkets,
)
from openbell.contracts.model import Scope, SessionKind
from services.api.access import Administration, own
from services.api.acts import Act
from services.api.audit import entry
from services.api.context import Api, Context
from services.api.exchanges import (
    ANSWER_S,
    checked,
    code_of,
    naming_field,
    sessions_of,
    today_of,
)
from services.api.spans import Day, From, To, ahead, of_year

router = APIRouter(prefix="/calendar", tags=["calendar"])

READING = [Depends(own(Scope.READ))]

SESSIONS_DAYS, ICS_DAYS = 30, 60
MOST_EXCHANGES, MOST_OPENINGS = 64, 8

ExchangeName = Annotated[str, Query(description="Its code, or another name of it: NSE, XNYS.")]
Reason = Annotated[
    str,
    StringConstraints(
        strip_whitespace=True, min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$"
    ),
]


class SaidOfDay(BaseModel):
    """What holds on a day, whatever the calendar knows of it."""

    model_config = ConfigDict(extra="forbid")

    hours: tuple[OpenHours, ...] = Field(
        default=(),
        max_length=MOST_OPENINGS,
        description="In the exchange's local time; without any, it is closed.",
    )
    reason: Reason


class OverrideChange(BaseModel):
    """What was said of a day before, and what is now."""

    before: Override | None = None
    after: Override | None = None


@router.get(
    "/exchanges", dependencies=READING, summary="List the exchanges whose sessions are known"
)
async def exchanges(
    api: Api,
    q: Annotated[str, Query(max_length=64, description="A part of its code or name.")] = "",
) -> Exchanges:
    answer = await api.bus.request(ListExchanges(), timeout_s=ANSWER_S)
    wanted = q.strip().casefold()
    return Exchanges(exchanges=tuple(one for one in answer.exchanges if wanted in _names(one)))


@router.get("/sessions", dependencies=READING, summary="List an exchange's sessions and closures")
async def sessions(api: Api, exchange: ExchangeName, from_: From = None, to: To = None) -> Sessions:
    """Of 30 days from today on. What is not covered is unknown, never open."""
    code, today = await today_of(api.bus, exchange)
    span = ahead(today, from_, to, SESSIONS_DAYS)
    return await sessions_of(api.bus, code, span.first, span.last)


@router.get(
    "/holidays", dependencies=READING, summary="List on which days an exchange is not open as usual"
)
async def holidays(api: Api, exchange: ExchangeName, from_: From = None, to: To = None) -> Sessions:
    """Closures that are no weekend, and shortened and special sessions; of this year."""
    code, today = await today_of(api.bus, exchange)
    span = of_year(today, from_, to)
    found = await sessions_of(api.bus, code, span.first, span.last)
    unusual = tuple(one for one in found.sessions if one.kind is not SessionKind.USUAL)
    closures = tuple(one for one in found.closures if not one.weekend)
    return found.model_copy(update={"sessions": unusual, "closures": closures})


@router.get("/now", dependencies=READING, summary="Tell what is open, and what opens next")
async def now(
    api: Api,
    exchange: Annotated[
        list[str],
        Query(max_length=MOST_EXCHANGES, description="By default, those of India, and CRYPTO."),
    ] = [],  # noqa: B006 - the framework copies it
) -> MarketStates:
    segments = tuple(dict.fromkeys(checked(one) for one in exchange))
    with naming_field():
        return await api.bus.request(
            TellMarkets(segments=segments, at=utc_now()), timeout_s=ANSWER_S
        )


@router.get(
    "/{exchange}.ics",
    dependencies=READING,
    summary="Get sessions and holidays for a calendar app",
    response_class=Response,
    responses={200: {"content": {"text/calendar": {}}}},
)
async def ics(api: Api, exchange: str, from_: From = None, to: To = None) -> Response:
    """Of 60 days from today on. A credential is sent as with any request, never in the address."""
    code, today = await today_of(api.bus, exchange)
    span = ahead(today, from_, to, ICS_DAYS)
    found = await sessions_of(api.bus, code, span.first, span.last)
    return Response(await asyncio.to_thread(_ics, found, span.last), media_type="text/calendar")


@router.get("/overrides", dependencies=READING, summary="List what admins said of single days")
async def overrides(
    api: Api,
    exchange: Annotated[str | None, Query(description="By default, of all.")] = None,
) -> Overrides:
    segment = await code_of(api.bus, exchange) if exchange is not None else None
    return await api.bus.request(ListOverrides(segment=segment), timeout_s=ANSWER_S)


@router.put("/overrides/{exchange}/{day}", summary="Say what an exchange does on a day")
async def set_override(
    exchange: str, day: Day, said: SaidOfDay, act: Administration, api: Api
) -> OverrideChange:
    """It wins over whatever the calendar knows, until it is removed."""
    after = Override(
        segment=await code_of(api.bus, exchange),
        day=day,
        hours=said.hours,
        reason=said.reason,
        by=act.caller.name,
        at=utc_now(),
    )
    return await _overridden(api, act, SetOverride(override=after), after)


@router.delete("/overrides/{exchange}/{day}", summary="Let the calendar tell of a day again")
async def remove_override(exchange: str, day: Day, act: Administration, api: Api) -> OverrideChange:
    segment = await code_of(api.bus, exchange)
    return await _overridden(api, act, RemoveOverride(segment=segment, day=day), None)


async def _overridden(
    api: Context, act: Act, command: SetOverride | RemoveOverride, after: Override | None
) -> OverrideChange:
    """Kept elsewhere: the audit tells of it before, and of what came of it."""
    async with api.audit.requesting(act, [None]):
        former = await api.bus.request(command, timeout_s=ANSWER_S)
    change = OverrideChange(before=next(iter(former.overrides), None), after=after)
    values = change.model_dump(mode="json")
    await api.audit.write([entry(act, before=values["before"], after=values["after"])])
    return change


def _ics(found: Sessions, last: date) -> bytes:
    from services.api.ics import written  # noqa: PLC0415 - few ask for it, and it loads slowly

    return written(found, last, utc_now())


def _names(exchange: Exchange) -> str:
    return "\n".join((exchange.code, *exchange.names, exchange.name)).casefold()
