"""What every user would see now, kept in memory and encoded once.

A list of a thousand strategies is asked for far more often than one of them changes. So each is
read and encoded when it has changed, and a list is only joined. Every change is followed by an
event from the stream, and a command of this replica marks its strategy before it answers: a user
reads what they wrote. After a gap in the feed everything is read anew.
"""

import asyncio
import contextlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import bindparam, func, select
from sqlalchemy.orm import defer
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from openbell.bus import Stored
from openbell.contracts.base import ACCOUNT, Event
from openbell.contracts.errors import UnknownStrategy
from openbell.contracts.model import Permission
from openbell.db.models import Run, ScheduleRow, Slot, Strategy, User, Variable, Version
from openbell.db.session import Database, all_rows
from openbell.identity import Caller
from services.api.view import (
    Access,
    OwnerView,
    StrategyView,
    VersionView,
    access_of,
    environment_view,
    strategy_view,
)

CHUNK = 500


@dataclass(frozen=True, slots=True)
class _List:
    """A user's list, and what was shared with them when it was made."""

    shared: Mapping[str, Permission]
    body: bytes


class Board:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._views: dict[str, StrategyView] = {}
        self._encoded: dict[str, bytes] = {}
        self._owned: dict[str, set[str]] = {}
        self._lists: dict[str, _List] = {}
        self._listed_by: dict[str, set[str]] = {}
        """In whose lists a strategy stands that is not theirs."""
        self._dirty: set[str] = set()
        self._accounts: set[str] = set()
        """Which have changed, perhaps by their name."""
        self._all_dirty = True
        self._sequence = 0
        self._reading = asyncio.Lock()
        self._news = asyncio.Event()

    def told(self, event: Stored | None) -> None:
        """An event from the live feed; None: some may have been missed."""
        if event is None:
            self._all_dirty = True
        else:
            owner, topic, _ = Event.parts(event.subject)
            if topic == ACCOUNT:
                self._accounts.add(owner)
            else:
                self._dirty.add(topic)
            self._all_dirty |= event.sequence != self._sequence + 1
            self._sequence = event.sequence
        self._news.set()  # wakes all who wait; whoever waits next waits for the next
        self._news = asyncio.Event()

    def mark(self, strategy_id: str) -> None:
        """This strategy has been changed by us."""
        self._dirty.add(strategy_id)

    def mark_all(self) -> None:
        """What may be seen in many strategies has been changed by us: a name."""
        self._all_dirty = True

    async def list(self, caller: Caller) -> bytes:
        """What is theirs and what is shared with them, by name, as a JSON array."""
        await self._refresh()
        cached = self._lists.get(caller.user)
        if cached is not None and cached.shared == caller.shared:
            return cached.body
        views = [self._views[id_] for id_ in self._owned.get(caller.user, ())]
        others = [view for id_ in caller.shared if (view := self._views.get(id_))]
        for view in others:
            self._listed_by.setdefault(view.id, set()).add(caller.user)
        shown = {view.id: self._encoded[view.id] for view in views}
        shown |= {view.id: _encode(view, access_of(caller, view)) for view in others}
        by_name = sorted([*views, *others], key=lambda view: view.name.casefold())
        body = b"[" + b",".join(shown[view.id] for view in by_name) + b"]"
        self._lists[caller.user] = _List(caller.shared, body)
        return body

    async def all(self, caller: Caller) -> bytes:
        """Everybody's, by name, as a JSON array."""
        await self._refresh()
        by_name = sorted(self._views.values(), key=lambda view: view.name.casefold())
        return b"[" + b",".join(_encode(v, access_of(caller, v)) for v in by_name) + b"]"

    async def of(self, owner: str | None) -> Sequence[StrategyView]:
        """An owner's strategies, or everybody's."""
        await self._refresh()
        ids = self._views if owner is None else self._owned.get(owner, ())
        return [self._views[id_] for id_ in ids]

    async def get(self, strategy_id: str) -> StrategyView:
        """As its owner sees it, whoever asks. Raises UnknownStrategy."""
        await self._refresh()
        view = self._views.get(strategy_id)
        if view is None:
            raise unknown(strategy_id)
        return view

    async def wait_for(
        self, strategy_id: str, so: Callable[[StrategyView], bool], timeout_s: float
    ) -> StrategyView:
        """The strategy once it is so, or as it is after `timeout_s`. Raises UnknownStrategy."""
        found = await self.wait_for_all([strategy_id], so, timeout_s)
        if strategy_id not in found:
            raise unknown(strategy_id)
        return found[strategy_id]

    async def wait_for_all(
        self, ids: Collection[str], so: Callable[[StrategyView], bool], timeout_s: float
    ) -> dict[str, StrategyView]:
        """Like `wait_for`, without what does not exist, or does not any more.

        One waiter for all of them: if each had its own, every event would wake each.
        """
        found = await self._existing(ids)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while left := [id_ for id_, view in found.items() if not so(view)]:
                    news = self._news  # taken before reading: news while reading is not missed
                    now = await self._existing(left)
                    found = {id_: view for id_, view in found.items() if so(view)} | now
                    if not all(so(view) for view in now.values()):
                        await news.wait()
        return found

    async def _existing(self, ids: Collection[str]) -> dict[str, StrategyView]:
        await self._refresh()
        return {id_: self._views[id_] for id_ in ids if id_ in self._views}

    async def _refresh(self) -> None:
        """Also waits for a reading that is under way: it may have taken our own mark with it."""
        if not (self._is_stale() or self._reading.locked()):
            return
        async with self._reading:
            if self._is_stale():
                await self._read_changed()

    def _is_stale(self) -> bool:
        return bool(self._all_dirty or self._dirty or self._accounts)

    async def _read_changed(self) -> None:
        """What is marked while we read is marked again afterwards: no change is overlooked."""
        everything, self._all_dirty = self._all_dirty, False
        changed, self._dirty = self._dirty, set()
        accounts, self._accounts = self._accounts, set()
        try:
            async with self._database.read() as session:
                if everything:
                    rows = await _rows(session, None)
                    self._replace([*self._views], rows)
                else:
                    ids = sorted(changed | await self._renamed(session, accounts))
                    for start in range(0, len(ids), CHUNK):
                        chunk = ids[start : start + CHUNK]
                        self._replace(chunk, await _rows(session, chunk))
        except BaseException:
            self._all_dirty |= everything
            self._dirty |= changed
            self._accounts |= accounts
            raise

    async def _renamed(self, session: AsyncSession, accounts: Iterable[str]) -> set[str]:
        """What is shown with an earlier name of its owner."""
        owners = [account for account in accounts if self._owned.get(account)]
        if not owners:
            return set()
        named = select(col(User.id), col(User.name)).where(col(User.id).in_(owners))
        return {
            id_
            for owner, name in await all_rows(session, named)
            for id_ in self._owned[owner]
            if self._views[id_].owner.name != name
        }

    def _replace(self, ids: Iterable[str], rows: Sequence[Any]) -> None:
        for strategy_id in ids:
            view = self._views.pop(strategy_id, None)
            if view is not None:
                del self._encoded[strategy_id]
                self._owned[view.owner.id].discard(strategy_id)
                self._changed(view)
        for strategy, name, *versioned, schedule, slot, run, variables in rows:
            owner = OwnerView(id=strategy.owner, name=name or strategy.owner)
            version = _version(*versioned)
            names = sorted(variables.split(",")) if variables else []
            view = strategy_view(strategy, owner, version, schedule, slot, run, names)
            self._views[view.id] = view
            self._encoded[view.id] = view.model_dump_json().encode()
            self._owned.setdefault(owner.id, set()).add(view.id)
            self._changed(view)

    def _changed(self, view: StrategyView) -> None:
        for user in (view.owner.id, *self._listed_by.pop(view.id, ())):
            self._lists.pop(user, None)


def unknown(strategy_id: str) -> UnknownStrategy:
    """Said of what does not exist, and of what the caller may not see, alike."""
    return UnknownStrategy(f"there is no strategy {strategy_id[:100]!r}")


def _version(
    number: int,
    sha256: str,
    filename: str,
    size: int,
    python: str | None,
    lock: str | None,
    packages: int,
) -> VersionView:
    environment = environment_view(python, lock, packages)
    return VersionView(
        number=number, sha256=sha256, filename=filename, size=size, environment=environment
    )


def _encode(view: StrategyView, access: Access) -> bytes:
    return view.model_copy(update={"access": access}).model_dump_json().encode()


async def _rows(session: AsyncSession, ids: Sequence[str] | None) -> Sequence[Any]:
    if ids is None:
        return await all_rows(session, _ALL)
    return await all_rows(session, _SOME, ids=ids)


def _query() -> Any:
    variables = (
        select(func.aggregate_strings(col(Variable.name), ","))
        .where(
            col(Variable.owner) == col(Strategy.owner),
            col(Variable.strategy_id) == col(Strategy.id),
            col(Variable.retired_at).is_(None),
        )
        .scalar_subquery()
    )
    return (
        select(
            Strategy,
            col(User.name),
            col(Version.number),
            col(Version.sha256),
            col(Version.filename),
            col(Version.size),
            col(Version.python),
            col(Version.lock_sha256),
            col(Version.packages),
            ScheduleRow,
            Slot,
            Run,
            variables,
        )
        .join(
            Version,
            (col(Version.strategy_id) == Strategy.id) & (col(Version.number) == Strategy.version),
        )
        .outerjoin(User, col(User.id) == Strategy.owner)
        .outerjoin(ScheduleRow, col(ScheduleRow.strategy_id) == Strategy.id)
        .outerjoin(Slot, col(Slot.strategy_id) == Strategy.id)
        .outerjoin(Run, col(Run.id) == Slot.run_id)
        .options(defer(cast("Any", Run.last_lines)))
        .where(col(Strategy.deleted_at).is_(None))
    )


_ALL = _query()
_SOME = _ALL.where(col(Strategy.id).in_(bindparam("ids", expanding=True)))
