"""Which runner takes one more run, within one transaction.

What runners say of their room is some seconds old, and other transactions have granted since: each
corrects it by the rows of what lives and what has ended. Of several schedulers one at a time
grants, or each would give the same room away.
"""

from collections.abc import Sequence

from sqlalchemy import select as select_columns
from sqlmodel import col, text
from sqlmodel.ext.asyncio.session import AsyncSession

from openbell.contracts.model import SlotState
from openbell.db.models import Run, Slot
from openbell.db.session import all_rows
from services.scheduler.runners import Present, Runners
from services.scheduler.vacancies import Vacancy, choose, vacancy, why_none

NO_RUNNER = "no runner is connected"
LOCK = 0x0BE11
"""By which schedulers take turns; nobody else has a lock of this number."""
TOGETHER = 1000
"""Ids in one query; PostgreSQL takes 32,767 at most."""


class Admission:
    def __init__(self, session: AsyncSession, runners: Runners) -> None:
        self._session = session
        self._runners = runners
        self._vacancies: list[Vacancy] | None = None

    @property
    def forks(self) -> bool:
        """Whether a run would be forked, wherever it is granted to."""
        return all(one.room is not None and one.room.forks for one in self._runners.present())

    def look_again(self) -> None:
        """Something has ended."""
        self._vacancies = None

    async def admit(self, previous: str | None, need: int) -> tuple[str | None, str]:
        """The runner that takes a run which needs so many bytes, and has them kept for it; or
        None, and the reason.
        """
        if self._vacancies is None:
            self._vacancies = await self._look()
        if not self._vacancies:
            return None, NO_RUNNER
        found = choose(self._vacancies, previous, need)
        if found is None:
            self._runners.want(need)
            return None, why_none(self._vacancies, previous, need)
        found.take(need)
        return found.runner, ""

    async def _look(self) -> list[Vacancy]:
        present = self._runners.present()
        if all(one.room is None for one in present):
            return [vacancy(one.runner, None, {}, {}) for one in present]
        await self._take_turn()
        live = await self._live()
        return [
            vacancy(
                one.runner,
                one.room,
                live.get(one.runner, {}),
                await self._ended(one, live.get(one.runner, {})),
            )
            for one in present
        ]

    async def _take_turn(self) -> None:
        """Until the transaction ends. SQLite has one writer, which we are already."""
        if self._session.get_bind().dialect.name != "sqlite":
            await all_rows(self._session, text(f"SELECT pg_advisory_xact_lock({LOCK})"))

    async def _live(self) -> dict[str, dict[str, int]]:
        """By runner, the runs that it should have, and what each was granted with."""
        query = (
            select_columns(col(Run.runner), col(Run.id), col(Run.expected_memory_bytes))
            .join(Slot, col(Slot.run_id) == Run.id)
            .where(col(Slot.state) == SlotState.HELD)
        )
        found: dict[str, dict[str, int]] = {}
        for runner, run_id, need in await all_rows(self._session, query):
            found.setdefault(runner, {})[run_id] = need or 0
        return found

    async def _ended(self, present: Present, live: dict[str, int]) -> dict[str, int]:
        """What those had that it counted, and that have ended since, by its own clock."""
        if present.room is None:
            return {}
        ended: dict[str, int] = {}
        counted = sorted(set(present.room.run_ids) - live.keys())
        for start in range(0, len(counted), TOGETHER):
            ended |= await self._ended_of(counted[start : start + TOGETHER], present)
        return ended

    async def _ended_of(self, run_ids: Sequence[str], present: Present) -> dict[str, int]:
        expected, used = col(Run.expected_memory_bytes), col(Run.working_memory_bytes)
        since = (col(Run.runner) == present.runner) & (col(Run.exited_at) >= present.at)
        query = select_columns(col(Run.id), expected, used).where(col(Run.id).in_(run_ids), since)
        rows = await all_rows(self._session, query)
        return {run_id: max(expected or 0, used or 0) for run_id, expected, used in rows}
