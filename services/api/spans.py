"""From which day until which: what callers may ask of a calendar."""

import re
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Annotated, Any

from fastapi import Query
from pydantic import AfterValidator, BeforeValidator

from openbell.contracts.errors import InvalidRequest
from openbell.contracts.schedules import YEARS

MOST_DAYS = 400
WRITTEN = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def _written(value: Any) -> Any:
    """Not as a number of seconds, which the framework would take as well."""
    if not (isinstance(value, str) and WRITTEN.fullmatch(value)):
        raise ValueError("write a date like 2026-11-08")
    return value


def _known(value: date) -> date:
    if value.year not in YEARS:
        raise ValueError(f"it is not between {YEARS[0]} and {YEARS[-1]}")
    return value


Day = Annotated[date, BeforeValidator(_written), AfterValidator(_known)]
From = Annotated[Day | None, Query(alias="from", description="In the exchange's own dates.")]
To = Annotated[Day | None, Query(description="Included; 400 days at most.")]


@dataclass(frozen=True, slots=True)
class Span:
    """Days, both included."""

    first: date
    last: date


def ahead(today: date, first: date | None, last: date | None, days: int) -> Span:
    """From today, and so many days on, unless something else is asked for.

    Raises InvalidRequest.
    """
    first = first or today
    return _checked(first, last or first + timedelta(days))


def of_year(today: date, first: date | None, last: date | None) -> Span:
    """A calendar year, unless something else is asked for. Raises InvalidRequest."""
    first = first or (last or today).replace(month=1, day=1)
    return _checked(first, last or first.replace(month=12, day=31))


def _checked(first: date, last: date) -> Span:
    if last < first:
        raise InvalidRequest.of("to", f"it is before {first}")
    if (last - first).days >= MOST_DAYS:
        raise InvalidRequest.of("to", f"at most {MOST_DAYS} days are told at once")
    return Span(first, last)
