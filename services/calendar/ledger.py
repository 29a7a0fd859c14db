"""The overrides in the database: the one table that this service writes."""

from collections.abc import Sequence
from datetime import date

import structlog
from pydantic import ValidationError
from sqlalchemy.exc import IntegrityError
from sqlmodel import col, select
from sqlmodel.sql.expression import SelectOfScalar

from openbell.contracts.commands import Override
from openbell.db.models import CalendarOverride
from openbell.db.session import Database

log = structlog.get_logger()


class Ledger:
    """Read anew each time: another replica may have written a moment ago."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def of(self, segment: str, first: date, last: date) -> list[Override]:
        """Those of these days."""
        query = select(CalendarOverride).where(
            CalendarOverride.segment == segment,
            col(CalendarOverride.day).between(first, last),
        )
        return await self._read(query)

    async def all(self, segment: str | None) -> list[Override]:
        """Those of one segment, or all of them, by day."""
        query = select(CalendarOverride).order_by(
            col(CalendarOverride.day), col(CalendarOverride.segment)
        )
        if segment is not None:
            query = query.where(CalendarOverride.segment == segment)
        return await self._read(query)

    async def replace(self, override: Override) -> list[Override]:
        """Keep it, and return what was said of that day before, if there was anything."""
        try:
            return await self._replace(override)
        except IntegrityError:  # another replica was the first to say something, just now
            return await self._replace(override)

    async def _replace(self, override: Override) -> list[Override]:
        async with self._database.write() as session:
            before = await session.get(CalendarOverride, (override.segment, override.day))
            previous = _readable([before] if before else [])
            await session.merge(_row(override))
        return previous

    async def remove(self, segment: str, day: date) -> list[Override] | None:
        """What was removed: empty if it could not be read any more, None if there was nothing."""
        async with self._database.write() as session:
            row = await session.get(CalendarOverride, (segment, day))
            if row is None:
                return None
            removed = _readable([row])
            await session.delete(row)
        return removed

    async def _read(self, query: SelectOfScalar[CalendarOverride]) -> list[Override]:
        async with self._database.read() as session:
            return _readable((await session.exec(query)).all())


def _row(override: Override) -> CalendarOverride:
    return CalendarOverride(
        segment=override.segment,
        day=override.day,
        hours=[hours.model_dump(mode="json") for hours in override.hours],
        reason=override.reason,
        by=override.by,
        at=override.at,
    )


def _readable(rows: Sequence[CalendarOverride]) -> list[Override]:
    """Another release may have written what this one does not understand."""
    found: list[Override] = []
    for row in rows:
        try:
            found.append(Override.model_validate(row.model_dump()))
        except ValidationError as error:
            log.warning(
                "an override cannot be read", segment=row.segment, day=row.day, reason=str(error)
            )
    return found
