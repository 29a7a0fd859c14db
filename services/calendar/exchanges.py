"""Which segments there are, and under which names. Needs no library."""

from collections.abc import Iterator
from datetime import date
from functools import cache
from typing import Self

from pydantic import Field, model_validator

from openbell.contracts.commands import Exchange
from openbell.contracts.errors import UnknownExchange
from services.calendar.facts import DATA, Row, Text, Zone, read
from services.calendar.sessions import segments

LIBRARY = "exchange_calendars"


class LibraryExchange(Row):
    """A calendar of the library, as data/exchanges.toml tells it."""

    name: Text
    timezone: Zone
    names: tuple[str, ...] = ()
    covered_from: date | None = None
    """From when it is read, if not from the usual day on."""
    covered_until: int | None = Field(default=None, ge=2000)
    """The last year for which its holidays are all known, where the library does not say so."""
    limit: Text | None = None
    """Why there is such a limit."""

    @model_validator(mode="after")
    def _explains_its_limits(self) -> Self:
        if bool(self.covered_from or self.covered_until) != bool(self.limit):
            raise ValueError("a limit has a reason, and a reason a limit")
        return self


@cache
def library_exchanges() -> dict[str, LibraryExchange]:
    """By MIC, or by the library's own name where there is none. Raises ValueError."""
    rows = read(DATA / "exchanges.toml")
    found = {code: LibraryExchange.model_validate(row) for code, row in rows.items()}
    names = [name for code, row in found.items() for name in (code, *row.names)]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"exchanges.toml: {twice} stand for several")
    return found


def canonical(name: str) -> str:
    """The code of what has this name, in either case. Raises UnknownExchange.

    Our own segments win: BSE is ours, although the library has one of that name too.
    """
    wanted = name.upper()
    if wanted in segments():
        return wanted
    code = _library_codes().get(wanted)
    if code is None:
        known = ", ".join(segments())
        raise UnknownExchange(
            f"there is no exchange {name[:32]!r}; known are {known}, and others by their MIC or"
            " their name, such as NYSE, LSE, XTKS"
        )
    return code


@cache
def _library_codes() -> dict[str, str]:
    return {
        name.upper(): code
        for code, row in library_exchanges().items()
        for name in (code, *row.names)
    }


def all_exchanges() -> Iterator[Exchange]:
    """Ours first. How far the library's reach is told with their sessions alone."""
    for code, segment in segments().items():
        yield Exchange(
            code=code,
            name=segment.facts.name,
            timezone=segment.timezone,
            covered_from=segment.covered_from,
            covered_until=segment.covered_until,
            source=segment.facts.source,
        )
    for code, row in library_exchanges().items():
        yield Exchange(
            code=code,
            names=row.names,
            name=row.name,
            timezone=row.timezone,
            source=f"{LIBRARY}, {code}",
        )
