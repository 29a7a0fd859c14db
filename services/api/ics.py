"""Sessions and holidays as an iCalendar, for calendar apps. Pure.

An event keeps its UID when its hours or its reason change, so that an app moves what it shows.
Where what is known ends, an event says so: a day without one would look like a day off.
"""

from collections import Counter
from datetime import date, datetime, timedelta

from icalendar import Calendar, Event

from openbell.contracts.commands import Sessions
from openbell.contracts.model import Closure, Session, SessionKind

REFRESH = timedelta(hours=6)


def written(found: Sessions, last: date, now: datetime) -> bytes:
    """What was found when asked until `last`."""
    calendar = Calendar()
    calendar.add("prodid", "-//Openbell//Calendar//EN")
    calendar.add("version", "2.0")
    calendar.add("x-wr-calname", f"{found.segment} sessions")
    calendar.add("refresh-interval", REFRESH, parameters={"VALUE": "DURATION"})
    of_day: Counter[object] = Counter()
    for session in found.sessions:
        of_day[session.day] += 1
        calendar.add_component(_session(session, of_day[session.day], now))
    for closure in found.closures:
        if not closure.weekend:
            calendar.add_component(_holiday(found.segment, closure, now))
    if found.covered_until < last:
        calendar.add_component(_unknown(found, now))
    return calendar.to_ical()


def _session(session: Session, number: int, now: datetime) -> Event:
    event = _event(f"{session.segment}-{session.day}-{number}", session.reason, session.source, now)
    usual = session.kind is SessionKind.USUAL
    kind = "open" if usual else f"{session.kind} session"
    event.add("summary", f"{session.segment} {kind}")
    event.add("dtstart", session.opens_at)
    event.add("dtend", session.closes_at)
    return event


def _holiday(segment: str, closure: Closure, now: datetime) -> Event:
    event = _event(f"{segment}-{closure.day}-closed", closure.reason, closure.source, now)
    event.add("summary", f"{segment} closed: {closure.reason}")
    return _all_day(event, closure.day)


def _unknown(found: Sessions, now: datetime) -> Event:
    event = _event(f"{found.segment}-unknown", "nobody has said when it is open", None, now)
    event.add("summary", f"{found.segment} is not known from here on")
    return _all_day(event, found.covered_until + timedelta(days=1))


def _all_day(event: Event, day: date) -> Event:
    event.add("dtstart", day)
    event.add("dtend", day + timedelta(days=1))
    event.add("transp", "TRANSPARENT")
    return event


def _event(uid: str, reason: str | None, source: str | None, now: datetime) -> Event:
    event = Event()
    event.add("uid", f"{uid}@openbell")
    event.add("dtstamp", now)
    if known := "\n".join(filter(None, (reason, source and f"Source: {source}"))):
        event.add("description", known)
    return event
