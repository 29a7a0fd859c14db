"""What a segment does at one moment, in words. Pure."""

from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from openbell.contracts.commands import MarketState, Sessions
from openbell.contracts.errors import InvalidRequest
from openbell.contracts.model import Session, SessionKind
from services.calendar.days import EARLIEST, LATEST

LOOK_BACK = timedelta(days=2)
"""A session may have opened on the evening before its own day, or close after it."""
LOOK_AHEAD = timedelta(days=31)
"""For the next session: no exchange has ever kept longer holidays."""


def days_around(at: datetime, timezone: str) -> tuple[date, date]:
    """The local days whose sessions tell the state of that moment. Raises InvalidRequest."""
    if not EARLIEST <= at.date() <= LATEST:
        raise InvalidRequest.of("at", f"name a moment from {EARLIEST} to {LATEST}")
    today = at.astimezone(ZoneInfo(timezone)).date()
    return today - LOOK_BACK, today + LOOK_AHEAD


def state_of(known: Sessions, at: datetime) -> MarketState:
    """From the sessions of `days_around`."""
    zone = ZoneInfo(known.timezone)
    following = next((session for session in known.sessions if session.opens_at > at), None)
    current = next((s for s in known.sessions if s.opens_at <= at < s.closes_at), None)
    if current:
        is_open, reason = True, _until(current, zone)
    else:
        is_open, reason = _without_session(known, at, zone)
    return MarketState(
        segment=known.segment, is_open=is_open, reason=reason, session=current, next=following
    )


def _until(session: Session, zone: ZoneInfo) -> str:
    until = f"open until {_clock(session.closes_at, zone)}"
    return until if session.kind is SessionKind.USUAL else f"{until}: {session.reason}"


def _without_session(known: Sessions, at: datetime, zone: ZoneInfo) -> tuple[bool | None, str]:
    today = at.astimezone(zone).date()
    closure = next((closure for closure in known.closures if closure.day == today), None)
    if closure:
        return False, closure.reason if closure.weekend else f"closed: {closure.reason}"
    sessions = [session for session in known.sessions if session.day == today]
    if not sessions:
        return None, f"not covered: {_edge(known, today)}"
    later = next((session for session in sessions if session.opens_at > at), None)
    if later is None:
        return False, f"closed since {_clock(sessions[-1].closes_at, zone)}"
    opens = f"closed: opens at {_clock(later.opens_at, zone)}"
    return False, opens if later.kind is SessionKind.USUAL else f"{opens}: {later.reason}"


def _edge(known: Sessions, day: date) -> str:
    if day < known.covered_from:
        return f"the calendar of {known.segment} begins on {known.covered_from}"
    return f"the calendar of {known.segment} ends on {known.covered_until}"


def _clock(at: datetime, zone: ZoneInfo) -> str:
    return at.astimezone(zone).strftime("%H:%M")
