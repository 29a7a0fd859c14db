"""What was requested has an outcome in the audit, however its request ends."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlmodel import col, select

from openbell.contracts.errors import NoAnswer, StrategyIsRunning
from openbell.db.models import AuditEntry
from openbell.db.session import Database
from services.api.acts import Act
from services.api.audit import Audit, entry
from tests.fixtures import databases
from tests.fixtures.people import somebody

ACT = Act(somebody("u1"), "start", "", "r1")
ON = ("u1", "s1")


@dataclass
class Audited:
    audit: Audit

    async def told(self) -> list[tuple[str, str | None]]:
        entries = await self.audit.read(select(AuditEntry).order_by(col(AuditEntry.id)))
        return [(entry.outcome, entry.detail) for entry in entries]


@asynccontextmanager
async def audited(tmp_path: Path) -> AsyncGenerator[Audited]:
    database = Database(databases.migrated(tmp_path / "x.db"))
    yield Audited(Audit(database))
    await database.close()


@pytest.mark.parametrize(
    ("error", "outcome", "detail"),
    [
        (StrategyIsRunning("it runs"), "strategy_is_running", "it runs"),
        (NoAnswer("no answer within 5 s"), "no_answer", "no answer within 5 s"),
        (RuntimeError("a secret: 1234"), "failed", "RuntimeError"),
        (asyncio.CancelledError(), "cancelled", None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_request_has_an_outcome(
    tmp_path: Path, error: BaseException, outcome: str, detail: str | None
) -> None:
    async def scenario() -> None:
        async with audited(tmp_path) as its:
            with pytest.raises(type(error)):
                async with its.audit.requesting(ACT, [ON, ON]):
                    raise error
            assert await its.told() == [("requested", None)] * 2 + [(outcome, detail)] * 2

    asyncio.run(scenario())


def test_what_is_done_is_not_told_twice(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with audited(tmp_path) as its:
            async with its.audit.requesting(ACT, [ON]):
                pass
            assert await its.told() == [("requested", None)]

    asyncio.run(scenario())


def test_wherever_it_is_cancelled_no_request_is_left_without_an_outcome(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with audited(tmp_path) as its:

            async def request() -> None:
                async with its.audit.requesting(ACT, [ON]):
                    await asyncio.sleep(0.001)
                await its.audit.write([entry(ACT, on=ON)])

            for number in range(60):
                task = asyncio.create_task(request())
                await asyncio.sleep(number * 0.0005)
                task.cancel()
                await asyncio.wait([task])
            outcomes = Counter(outcome for outcome, _ in await its.told())
            assert set(outcomes) == {"requested", "cancelled", "done"}
            assert outcomes["requested"] == outcomes["cancelled"] + outcomes["done"]

    asyncio.run(scenario())
