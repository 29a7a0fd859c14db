"""What every user would see now, kept in memory and encoded once.

A list of a thousand strategies is asked for far more often than one of them changes. So each is
read and encoded when it has changed, and a list is only joined. Every change is followed by an
event from the stream, and a command of this replica marks its strategy before it answers: a user
reads what they wrote. After a gap in the feed everything is read anew.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sqlalchemy import select
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from openbell.bus import Stored
from openbell.contracts.base import Event
from openbell.contracts.errors import UnknownStrategy
from openbell.db.models import Run, ScheduleRow, Slot, Strategy, Version
from openbell.db.session import Database, all_rows
from services.api.view import StrategyView, VersionView, strategy_view

CHUNK = 500


class Board:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._views: dict[str, dict[str, StrategyView]] = {}
        self._encoded: dict[str, bytes] = {}
        self._owners: dict[str, str] = {}
        self._lists: dict[str, bytes] = {}
        self._dirty: set[str] = set()
        self._all_dirty = True
        self._sequence = 0
        self._reading = asyncio.Lock()
        self._news = asyncio.Event()

    def told(self, event: Stored | None) -> None:
        """An event from the live feed; None: some may have been missed."""
        if event is None:
            self._all_dirty = True
        else:
            _, strategy_id, _ = Event.parts(event.subject)
            self._dirty.add(strategy_id)
            self._all_dirty |= event.sequence != self._sequence + 1
            self._sequence = event.sequence
        self._news.set()  # wakes all who wait; whoever waits next waits for the next
        self._news = asyncio.Event()

    def mark(self, strategy_id: str) -> None:
        """This strategy has been changed by us."""
        self._dirty.add(strategy_id)

    async def list(self, owner: str) -> bytes:
        """An owner's strategies by name, as the JSON array of the answer."""
        await self._refresh()
        cached = self._lists.get(owner)
        if cached is None:
            views = self._views.get(owner, {}).values()
            by_name = sorted(views, key=lambda view: view.name.casefold())
            cached = b"[" + b",".join(self._encoded[view.id] for view in by_name) + b"]"
            self._lists[owner] = cached
        return cached

    async def get(self, owner: str, strategy_id: str) -> StrategyView:
        """Raises UnknownStrategy, for one of another owner alike."""
        await self._refresh()
        view = self._views.get(owner, {}).get(strategy_id)
        if view is None:
            raise UnknownStrategy(f"there is no strategy {strategy_id[:100]!r}")
        return view

    async def wait_for(
        self,
        owner: str,
        strategy_id: str,
        so: Callable[[StrategyView], bool],
        timeout_s: float,
    ) -> StrategyView:
        """The strategy once it is so, or as it is after `timeout_s`. Raises UnknownStrategy."""
        view = await self.get(owner, strategy_id)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not so(view):
                    news = self._news  # taken before reading: news while reading is not missed
                    view = await self.get(owner, strategy_id)
                    if not so(view):
                        await news.wait()
        return view

    async def _refresh(self) -> None:
        """Also waits for a reading that is under way: it may have taken our own mark with it."""
        if not (self._dirty or self._all_dirty or self._reading.locked()):
            return
        async with self._reading:
            if self._dirty or self._all_dirty:
                await self._read_changed()

    async def _read_changed(self) -> None:
        """What is marked while we read is marked again afterwards: no change is overlooked."""
        everything, self._all_dirty = self._all_dirty, False
        changed, self._dirty = self._dirty, set()
        try:
            async with self._database.read() as session:
                if everything:
                    rows = await _rows(session, None)
                    self._replace([*self._owners], rows)
                else:
                    ids = sorted(changed)
                    for start in range(0, len(ids), CHUNK):
                        chunk = ids[start : start + CHUNK]
                        self._replace(chunk, await _rows(session, chunk))
        except BaseException:
            self._all_dirty |= everything
            self._dirty |= changed
            raise

    def _replace(self, ids: Iterable[str], rows: Sequence[Any]) -> None:
        for strategy_id in ids:
            owner = self._owners.pop(strategy_id, None)
            if owner is not None:
                del self._views[owner][strategy_id], self._encoded[strategy_id]
                self._lists.pop(owner, None)
        for strategy, number, sha256, filename, size, schedule, slot, run in rows:
            version = VersionView(number=number, sha256=sha256, filename=filename, size=size)
            view = strategy_view(strategy, version, schedule, slot, run)
            self._owners[view.id] = strategy.owner
            self._views.setdefault(strategy.owner, {})[view.id] = view
            self._encoded[view.id] = view.model_dump_json().encode()
            self._lists.pop(strategy.owner, None)


async def _rows(session: AsyncSession, ids: Sequence[str] | None) -> Sequence[Any]:
    query = (
        select(
            Strategy,
            col(Version.number),
            col(Version.sha256),
            col(Version.filename),
            col(Version.size),
            ScheduleRow,
            Slot,
            Run,
        )
        .join(
            Version,
            (col(Version.strategy_id) == Strategy.id) & (col(Version.number) == Strategy.version),
        )
        .outerjoin(ScheduleRow, col(ScheduleRow.strategy_id) == Strategy.id)
        .outerjoin(Slot, col(Slot.strategy_id) == Strategy.id)
        .outerjoin(Run, col(Run.id) == Slot.run_id)
        .where(col(Strategy.deleted_at).is_(None))
    )
    if ids is not None:
        query = query.where(col(Strategy.id).in_(ids))
    return await all_rows(session, query)
