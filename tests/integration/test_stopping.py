"""Everything is stopped at once: what goes wrong with some of it is told, and stops no other."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sqlmodel import select

from openbell.bus import Stored
from openbell.contracts.commands import StopStrategies, Unstopped
from openbell.contracts.errors import NoAnswer, ServiceUnavailable, UnknownStrategy
from openbell.contracts.events import AccessChanged, IntentChanged
from openbell.contracts.model import Cause, ExitReason, Intent, RunState, SlotState
from openbell.db.models import AuditEntry, Run, ScheduleRow, Slot, Strategy, User, Version
from openbell.db.session import Database
from services.api import board as board_module
from services.api import stopping
from services.api.acts import Act
from services.api.audit import Audit
from services.api.board import Board
from services.api.context import Context
from services.api.stopping import Stopped, stop_all
from services.api.view import StrategyView, has_ended
from tests.fixtures import databases
from tests.fixtures.people import somebody

NOW = datetime(2026, 8, 3, 3, 45, tzinfo=UTC)
ACT = Act(somebody("alice"), "stop_mine", "127.0.0.1", "r1")
ALWAYS = {"kind": "always"}


class Desk:
    """An api's replica, whose scheduler is the test."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.board = Board(database)
        self.asked: list[Sequence[str]] = []
        self.sequence = 0

    async def request(self, command: StopStrategies, *, timeout_s: float) -> Unstopped:
        self.asked.append(command.strategy_ids)
        return await self.answer(command)

    async def answer(self, command: StopStrategies) -> Unstopped:
        """As the scheduler, and the runners at once."""
        async with self.database.write() as session:
            for strategy_id in command.strategy_ids:
                slot = await session.get_one(Slot, strategy_id)
                slot.intent, slot.state, slot.retry_at = Intent.STOP, SlotState.FREE, None
                if slot.run_id:
                    run = await session.get_one(Run, slot.run_id)
                    run.state, run.reason = RunState.EXITED, ExitReason.STOPPED_BY_USER
        for strategy_id in command.strategy_ids:
            self.tell(strategy_id)
        return Unstopped()

    def tell(self, strategy_id: str) -> None:
        event = IntentChanged(owner="alice", strategy_id=strategy_id, at=NOW, intent=Intent.STOP)
        self.sequence += 1
        self.board.told(Stored(self.sequence, event.subject, event.encode()))

    async def add(self, strategy_id: str, *, schedule: Any = None, live: bool = False) -> None:
        await self.add_all([strategy_id], schedule=schedule, live=live)

    async def add_all(self, ids: Sequence[str], *, schedule: Any = None, live: bool = True) -> None:
        async with self.database.write() as session:
            for strategy_id in ids:
                session.add_all(_rows(strategy_id, schedule, live=live))

    async def change(self, strategy_id: str, **fields: Any) -> None:
        async with self.database.write() as session:
            slot = await session.get_one(Slot, strategy_id)
            for name, value in fields.items():
                setattr(slot, name, value)

    async def stop_all(self, *, wait_s: float = 5, hold: bool = True) -> Stopped:
        context = SimpleNamespace(board=self.board, audit=Audit(self.database), bus=self)
        return await stop_all(cast("Context", context), ACT, "alice", wait_s, hold=hold)

    async def outcomes(self) -> dict[str, list[str]]:
        """What the audit tells, by strategy."""
        found: dict[str, list[str]] = {}
        async with self.database.read() as session:
            for one in await session.exec(select(AuditEntry)):
                found.setdefault(one.strategy_id or "", []).append(one.outcome)
        return found


def _rows(strategy_id: str, schedule: Any, *, live: bool) -> list[Any]:
    run_id = f"{strategy_id}-1"
    rows: list[Any] = [
        Strategy(
            id=strategy_id,
            owner="alice",
            name=strategy_id,
            name_key=strategy_id,
            version=1,
            created_at=NOW,
        ),
        Version(
            strategy_id=strategy_id,
            number=1,
            sha256="",
            filename="s.py",
            size=1,
            source=b"1",
            created_at=NOW,
        ),
        Slot(
            strategy_id=strategy_id,
            owner="alice",
            state=SlotState.HELD if live else SlotState.FREE,
            run_id=run_id if live else None,
        ),
    ]
    if schedule:
        rows += [ScheduleRow(strategy_id=strategy_id, revision=1, spec=schedule, updated_at=NOW)]
    if live:
        rows += [
            Run(
                id=run_id,
                strategy_id=strategy_id,
                owner="alice",
                epoch=1,
                runner="local",
                state=RunState.RUNNING,
                cause=Cause.MANUAL,
                version=1,
                granted_at=NOW,
            )
        ]
    return rows


@asynccontextmanager
async def desk(folder: Path) -> AsyncGenerator[Desk]:
    database = Database(databases.migrated(folder / "openbell.db"))
    try:
        async with database.write() as session:
            session.add(
                User(id="alice", name="Alice", name_key="alice", role="trader", created_at=NOW)
            )
        yield Desk(database)
    finally:
        await database.close()


Scenario = Callable[[Desk], Awaitable[None]]


@pytest.fixture
def at(tmp_path: Path) -> Callable[[Scenario], None]:
    def play(scenario: Scenario) -> None:
        async def run() -> None:
            async with desk(tmp_path) as scene:
                await scenario(scene)

        asyncio.run(run())

    return play


def ids(several: int) -> list[str]:
    return [f"s{number:03}" for number in range(several)]


# ---- when some of it fails


@pytest.mark.parametrize(
    "error", [NoAnswer("nobody answers"), ServiceUnavailable("nobody is there")]
)
def test_a_command_that_fails_keeps_no_others_from_being_stopped(
    at: Callable[[Scenario], None], monkeypatch: pytest.MonkeyPatch, error: ServiceUnavailable
) -> None:
    monkeypatch.setattr(stopping, "TOGETHER", 4)

    async def scenario(scene: Desk) -> None:
        await scene.add_all(ids(10))
        answers = scene.answer

        async def second_fails(command: StopStrategies) -> Unstopped:
            if len(scene.asked) == 2:
                raise error
            return await answers(command)

        scene.answer = second_fails
        async with asyncio.timeout(3):  # it does not wait for those that were not told
            stopped = await scene.stop_all(wait_s=60)
        assert len(scene.asked) == 3
        failed = set(scene.asked[1])
        assert not stopped.all_gone
        assert {one.id for one in stopped.strategies if not one.gone} == failed
        for one in stopped.strategies:
            assert one.note == (error.detail if one.id in failed else None)
            assert one.status == ("running" if one.id in failed else "stopped")
        assert await scene.outcomes() == {
            one: ["requested", error.code() if one in failed else "done"] for one in ids(10)
        }

    at(scenario)


def test_a_strategy_that_the_scheduler_cannot_stop_is_told(
    at: Callable[[Scenario], None],
) -> None:
    async def scenario(scene: Desk) -> None:
        await scene.add_all(["bad", "good"])
        answers = scene.answer

        async def all_but_one(command: StopStrategies) -> Unstopped:
            assert set(command.strategy_ids) == {"bad", "good"}
            await answers(StopStrategies(strategy_ids=("good",)))
            return Unstopped(strategy_ids=("bad",))

        scene.answer = all_but_one
        stopped = await scene.stop_all()
        assert {one.id: one.gone for one in stopped.strategies} == {"bad": False, "good": True}
        outcomes = await scene.outcomes()
        assert outcomes["good"] == ["requested", "done"]
        assert outcomes["bad"][-1] != "done"

    at(scenario)


# ---- what it concerns


@pytest.mark.parametrize(
    "fields",
    [
        {"retry_at": NOW},
        {"waiting": "no runner is connected"},
        {"outlook": "open"},
        {"intent": "run"},
    ],
)
def test_what_would_start_in_a_moment_is_stopped_though_nothing_is_held(
    at: Callable[[Scenario], None], fields: dict[str, Any]
) -> None:
    async def scenario(scene: Desk) -> None:
        await scene.add("soon", schedule=ALWAYS)
        await scene.change("soon", **fields)
        await scene.add("later", schedule=ALWAYS)
        await scene.change("later", outlook="scheduled")
        await scene.add("never")
        stopped = await scene.stop_all(hold=False)
        assert [one.id for one in stopped.strategies] == ["soon"]
        assert scene.asked == [("soon",)]
        held = await scene.stop_all(hold=True)
        assert [one.id for one in held.strategies] == ["later"]

    at(scenario)


def test_what_another_replica_has_started_a_moment_ago_is_stopped(
    at: Callable[[Scenario], None],
) -> None:
    async def scenario(scene: Desk) -> None:
        await scene.add("one")
        assert not (await scene.stop_all()).strategies
        await scene.change("one", intent="run")  # and no event has come of it
        assert [one.id for one in (await scene.stop_all()).strategies] == ["one"]

    at(scenario)


# ---- the board


def test_all_are_waited_for_by_one(
    at: Callable[[Scenario], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []
    existing = Board._existing  # pyright: ignore[reportPrivateUsage]

    async def counted(self: Board, ids: Any) -> dict[str, StrategyView]:
        looks.append(len(ids))
        return await existing(self, ids)

    monkeypatch.setattr(Board, "_existing", counted)
    several = 300

    async def scenario(scene: Desk) -> None:
        await scene.add_all(ids(several))
        gone = asyncio.create_task(scene.board.wait_for_all(ids(several), has_ended, 20))
        await asyncio.sleep(0.1)
        for one in ids(several):
            await scene.answer(StopStrategies(strategy_ids=(one,)))
        assert all(map(has_ended, (await gone).values()))
        assert len(looks) <= several + 2

    at(scenario)


def test_what_is_deleted_while_it_is_waited_for_is_not_among_the_found(
    at: Callable[[Scenario], None],
) -> None:
    async def scenario(scene: Desk) -> None:
        await scene.add_all(["one", "two", "three"])
        waiting = asyncio.create_task(scene.board.wait_for_all(["one", "two"], has_ended, 20))
        single = asyncio.create_task(scene.board.wait_for("one", has_ended, 20))
        late = asyncio.create_task(scene.board.wait_for_all(["three", "none"], has_ended, 0.2))
        await asyncio.sleep(0.05)
        await scene.answer(StopStrategies(strategy_ids=("two",)))
        async with scene.database.write() as session:
            (await session.get_one(Strategy, "one")).deleted_at = NOW
        scene.tell("one")
        assert {*await waiting} == {"two"}
        with pytest.raises(UnknownStrategy):
            await single
        (view,) = (await late).values()
        assert not has_ended(view)
        assert {*await scene.board.wait_for_all(["three"], has_ended, 0)} == {"three"}

    at(scenario)


def test_an_account_that_is_renamed_elsewhere_is_shown_by_its_new_name(
    at: Callable[[Scenario], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(scene: Desk) -> None:
        await scene.add_all(["one", "two"])
        scene.tell("one")
        assert (await scene.board.get("one")).owner.name == "Alice"
        read: list[Any] = []
        rows = board_module._rows  # pyright: ignore[reportPrivateUsage]

        async def counted(session: Any, ids: Any) -> Any:
            read.append(ids)
            return await rows(session, ids)

        monkeypatch.setattr(board_module, "_rows", counted)

        def changed() -> None:
            event = AccessChanged(owner="alice", at=NOW)
            scene.sequence += 1
            scene.board.told(Stored(scene.sequence, event.subject, event.encode()))

        changed()  # by something else than a name
        assert (await scene.board.get("one")).owner.name == "Alice"
        assert read == []
        async with scene.database.write() as session:
            (await session.get_one(User, "alice")).name = "Alicia"
        changed()
        assert (await scene.board.get("one")).owner.name == "Alicia"
        assert b"Alicia" in await scene.board.list(somebody("alice"))
        assert read == [["one", "two"]]

    at(scenario)
