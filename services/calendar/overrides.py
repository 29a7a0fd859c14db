"""What an admin says of a day, in place of what the calendar knows of it. Pure."""

from collections.abc import Iterable
from datetime import date, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

from openbell.contracts.commands import OpenHours, Override, Sessions
from openbell.contracts.errors import InvalidRequest
from openbell.contracts.model import Closure, Session, SessionKind
from services.calendar.days import EARLIEST, LATEST, Calendar, Hours, covers

MIDNIGHT = timedelta(days=1)


def checked(override: Override) -> Override:
    """The same with its hours in order. Raises InvalidRequest, which names the field."""
    if not EARLIEST <= override.day <= LATEST:
        raise InvalidRequest.of("day", f"name one from {EARLIEST} to {LATEST}")
    hours = tuple(sorted(override.hours, key=lambda each: each.opens))
    for before, after in pairwise(hours):
        if _closes(before) > _opens(after):
            raise InvalidRequest.of(
                "hours",
                f"{_shown(before)} and {_shown(after)} overlap"
                " (a close that is not after the open is the next day's)",
            )
    return override.model_copy(update={"hours": hours})


def overridden(calendar: Calendar, known: Sessions, overrides: Iterable[Override]) -> Sessions:
    """With each overridden day as a whole replaced, also where the calendar covers nothing.

    Such a day is simply listed among the sessions or closures; `covered_from` and
    `covered_until` stay, since the days around it are as unknown as before.
    """
    said = {override.day: override for override in overrides}
    if not said:
        return known
    sessions = [session for session in known.sessions if session.day not in said]
    closures = [closure for closure in known.closures if closure.day not in said]
    for override in said.values():
        if override.hours:
            sessions += _sessions(calendar, override)
        else:
            closures.append(_closure(calendar, override))
    return known.model_copy(
        update={
            "sessions": tuple(sorted(sessions, key=lambda session: session.opens_at)),
            "closures": tuple(sorted(closures, key=lambda closure: closure.day)),
        }
    )


def _sessions(calendar: Calendar, override: Override) -> list[Session]:
    zone = ZoneInfo(calendar.timezone)
    spans = [Hours(each.opens, each.closes).on(override.day, zone) for each in override.hours]
    kind = _kind(calendar, override.day)
    if kind is SessionKind.SHORTENED and spans == [calendar.usual(override.day)]:
        kind = SessionKind.USUAL
    return [
        Session(
            segment=calendar.code,
            day=override.day,
            opens_at=opens_at,
            closes_at=closes_at,
            kind=kind,
            reason=override.reason,
            source=_source(override),
        )
        for opens_at, closes_at in spans
    ]


def _kind(calendar: Calendar, day: date) -> SessionKind:
    """SHORTENED on a day on which there is trading anyway, else SPECIAL.

    Of a day that is not covered, only the weekday is known.
    """
    if not covers(calendar, day):
        return SessionKind.SPECIAL if calendar.is_weekend(day) else SessionKind.SHORTENED
    plan = calendar.plan(day)
    if isinstance(plan, Closure) or any(s.kind is SessionKind.SPECIAL for s in plan):
        return SessionKind.SPECIAL
    return SessionKind.SHORTENED


def _closure(calendar: Calendar, override: Override) -> Closure:
    opens_at, closes_at = calendar.usual(override.day)
    return Closure(
        day=override.day,
        reason=override.reason,
        opens_at=opens_at,
        closes_at=closes_at,
        source=_source(override),
    )


def _source(override: Override) -> str:
    return f"set by {override.by} on {override.at:%Y-%m-%d}"


def _opens(hours: OpenHours) -> timedelta:
    return timedelta(hours=hours.opens.hour, minutes=hours.opens.minute, seconds=hours.opens.second)


def _closes(hours: OpenHours) -> timedelta:
    at = hours.closes
    overnight = MIDNIGHT if at <= hours.opens else timedelta()
    return timedelta(hours=at.hour, minutes=at.minute, seconds=at.second) + overnight


def _shown(hours: OpenHours) -> str:
    return f"{hours.opens:%H:%M}-{hours.closes:%H:%M}"
