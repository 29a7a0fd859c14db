"""The sessions that the calendar service told, kept for a while."""

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import structlog

from openbell.bus import Bus
from openbell.contracts.commands import ListSessions, Sessions
from openbell.contracts.errors import OpenbellError
from services.scheduler.days import LOOK_BACK, Known
from services.scheduler.planner import LOOK_AHEAD

FRESH = timedelta(seconds=15)
"""A change that was told while we did not listen is known after so long."""
USABLE = timedelta(days=7)
"""A calendar that does not answer is replaced by what it said last, for this long."""
MISSING_S = 2.0
"""So long after it was asked for, a look waits for what was never told."""
OUTDATED_S = 5.0
"""So long it waits for what is no longer so: as long as an answer may take."""
SILENT_S = 2.0
"""A question that follows so soon on one that failed is waited for by no look."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Entry:
    at: datetime
    changes: int
    """How many changes had been told of when it was asked for."""
    told: Sessions
    known: Known


@dataclass(slots=True)
class _Page:
    """Of one segment, by the name under which it is asked for."""

    entry: _Entry | None = None
    question: asyncio.Task[None] | None = None
    asked_at: float = 0
    failed_at: float = -math.inf
    overlooked: bool = False
    """Somebody went on without the answer that is under way."""


class SessionBook:
    """Asked outside transactions (`refresh`), read inside them (`known`).

    Times are measured with the loop's clock, which nobody sets; how old an entry is, with that of
    the schedules, which may jump.
    """

    def __init__(self, bus: Bus, *, changed: Callable[[str], None] = lambda _segment: None) -> None:
        """`changed` is called with a segment of which something else is known than what somebody
        went by: by the name under which it was asked for, as schedules have it.
        """
        self._bus = bus
        self._changed = changed
        self._pages: dict[str, _Page] = {}
        self._changes = 0
        self._last_change: dict[str, int] = {}
        """By a segment's own code, the number of the last change of it that was told of."""

    async def refresh(self, segments: set[str], now: datetime) -> None:
        """Ask for these, and for all that are known, if they are missing or no longer fresh.

        Waits for those of these alone that are missing or outdated, and for a while only: what is
        merely no longer fresh, and what comes late, is told to `changed`. A failure leaves what
        there was.
        """
        waits: list[tuple[_Page, asyncio.Task[None], float]] = []
        for segment in {*segments, *(name for name, page in self._pages.items() if page.entry)}:
            page = self._pages.setdefault(segment, _Page())
            if self._is_fresh(page.entry, now):
                continue
            question = page.question or self._begin(segment, page, now)
            patience = self._patience(page, now) if segment in segments else 0
            if patience > 0:
                waits.append((page, question, patience))
            else:
                page.overlooked = True
        await asyncio.gather(*(_wait(*one) for one in waits))

    def outdate(self, segment: str) -> None:
        """What was told of it is no longer so; it stands until the calendar was asked again.

        By its code. So is the answer to a question that was asked before.
        """
        self._changes += 1
        self._last_change[segment] = self._changes
        for page in self._pages.values():
            page.failed_at = -math.inf  # the calendar is there: it told of this

    def known(self, segment: str, now: datetime) -> Known | None:
        page = self._pages.get(segment)
        entry = page.entry if page else None
        return entry.known if entry and _is_usable(entry, now) else None

    async def ask(self, segment: str, first: date, last: date) -> Known:
        """What the calendar tells of these days. Raises UnknownExchange, ServiceUnavailable."""
        return Known(await self._ask(segment, first, last))

    async def close(self) -> None:
        """Ask nothing any more."""
        questions = [page.question for page in self._pages.values() if page.question]
        for question in questions:
            question.cancel()
        await asyncio.gather(*questions, return_exceptions=True)

    # ---- what is known

    def _is_fresh(self, entry: _Entry | None, now: datetime) -> bool:
        if entry is None or self._is_outdated(entry):
            return False
        return abs(now - entry.at) < FRESH  # abs: a clock may be set back

    def _is_outdated(self, entry: _Entry) -> bool:
        return entry.changes < self._last_change.get(entry.told.segment, 0)

    def _patience(self, page: _Page, now: datetime) -> float:
        """How long a look waits for the question that is under way."""
        if page.asked_at - page.failed_at < SILENT_S:
            return 0
        if page.entry is None or not _is_usable(page.entry, now):
            return page.asked_at + MISSING_S - _clock()
        return OUTDATED_S if self._is_outdated(page.entry) else 0

    # ---- one question at a time

    def _begin(self, segment: str, page: _Page, now: datetime) -> asyncio.Task[None]:
        page.asked_at = _clock()
        page.question = asyncio.create_task(self._settle(segment, page, now))
        return page.question

    async def _settle(self, segment: str, page: _Page, now: datetime) -> None:
        """Ask, and again when a change was told of meanwhile.

        For the calendar reads what it will answer, an admin says something of a day, we are told
        that there is a change, and the answer comes last.
        """
        try:
            changes, entry = -1, None
            while changes != self._changes:
                changes, page.asked_at = self._changes, _clock()
                entry = await self._answer(segment, now)
                if entry is not None:
                    self._fill(segment, page, entry)
            if entry is None:
                page.failed_at, page.overlooked = _clock(), True
        finally:
            page.question = None

    async def _answer(self, segment: str, now: datetime) -> _Entry | None:
        changes = self._changes
        try:
            told = await self._ask(segment, (now - LOOK_BACK).date(), (now + LOOK_AHEAD).date())
            return _Entry(now, changes, told, Known(told))
        except OpenbellError as error:
            log.warning("no sessions", segment=segment, reason=error.detail)
        except Exception:
            log.exception("an answer about sessions cannot be read", segment=segment)
        return None

    def _fill(self, segment: str, page: _Page, entry: _Entry) -> None:
        before, page.entry = page.entry, entry
        # whoever tells of a change looks at the schedules that have its code, and at no others
        overlooked = page.overlooked or segment != entry.told.segment
        page.overlooked = page.overlooked and self._is_outdated(entry)
        if overlooked and (before is None or before.told != entry.told):
            self._changed(segment)

    async def _ask(self, segment: str, first: date, last: date) -> Sessions:
        return await self._bus.request(ListSessions(segment=segment, first=first, last=last))


async def _wait(page: _Page, question: asyncio.Task[None], patience: float) -> None:
    done, _ = await asyncio.wait({question}, timeout=patience)
    if not done:
        page.overlooked = True


def _is_usable(entry: _Entry, now: datetime) -> bool:
    return abs(now - entry.at) < USABLE


def _clock() -> float:
    return asyncio.get_running_loop().time()
