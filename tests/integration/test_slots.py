"""Grants, occurrences and reports, against a real database; time is passed in."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from sqlmodel import col, select

from openbell.bus import Bus
from openbell.contracts.base import utc_now
from openbell.contracts.commands import StartRun, StopRun, StopStrategies
from openbell.contracts.errors import StrategyIsRunning, UnknownStrategy
from openbell.contracts.events import RunnerCameUp, RunReported
from openbell.contracts.limits import RunPolicy
from openbell.contracts.model import ExitReason, RestartPolicy, RunnerInfo, RunState
from openbell.db.models import (
    Occurrence,
    Run,
    SchedulerOutbox,
    ScheduleRow,
    Slot,
    Strategy,
    Version,
)
from openbell.db.session import Database
from openbell.outbox import Outbox
from openbell.settings import DatabaseSettings, SchedulerSettings, Settings
from services.scheduler import service
from services.scheduler.acts import Acts
from services.scheduler.agenda import overdue_ids, pending_ids
from services.scheduler.cases import Cases
from services.scheduler.days import Known
from services.scheduler.runners import Runners
from services.scheduler.service import Scheduler
from services.scheduler.slots import Settled, Slots
from tests.fixtures import databases
from tests.fixtures.nats import NatsServer
from tests.fixtures.sessions import sessions
from tests.fixtures.stack import PATIENCE_S

THURSDAY = datetime(2026, 11, 19, 4, 0, tzinfo=UTC)  # 09:30 in Mumbai
NINE_FIFTEEN = datetime(2026, 11, 19, 3, 45, tzinfo=UTC)
HALF_PAST_THREE = datetime(2026, 11, 19, 10, 0, tzinfo=UTC)
LEAD = timedelta(seconds=10)
EVENING_BEFORE = NINE_FIFTEEN - timedelta(hours=12)
MARKET = {
    "kind": "market",
    "exchange": "NSE",
    "start": "09:15",
    "stop": "15:30",
    "weekdays": ["mon", "tue", "wed", "thu", "fri"],
}


class Book:
    """The calendar's answers, without the bus between."""

    def __init__(self) -> None:
        self.away = False
        self.holidays: dict[date, str] = {}

    def known(self, segment: str, now: datetime) -> Known | None:
        assert segment == "NSE"
        first, last = now.date() - timedelta(days=14), now.date() + timedelta(days=21)
        return None if self.away else Known(sessions(first, last, holidays=self.holidays))


class Desk:
    """A scheduler's transactions, one after the other, at the moments that a test names."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.runners = Runners(appeared=lambda: None)
        self.outbox = Outbox(SchedulerOutbox, database, cast("Any", None))
        self.book = Book()
        self.up_since = THURSDAY + timedelta(days=30)
        """Later than all that happens: what was not done was not looked at."""

    def runner_appears(self) -> None:
        info = RunnerInfo(
            runner="local", platform="Linux", python="3.11", at=utc_now(), capabilities={}
        )
        self.runners.heard("local", info)

    async def at(self, now: datetime, act: Callable[[Slots], Awaitable[Any]]) -> Any:
        async with self.database.write() as session:
            cases = Cases(session, cast("Any", self.book), now, LEAD)
            settings = SchedulerSettings()
            acts = Acts(session, now, self.outbox, self.runners, settings, self.up_since)
            return await act(Slots(session, now, cases, acts))

    async def pending(self, now: datetime) -> list[str]:
        async with self.database.read() as session:
            return list(await pending_ids(session, now, LEAD))

    async def settle(self, now: datetime) -> Settled:
        """Also proves of each look, in every test, that the rows told whether it was needed."""
        pending = await self.pending(now)
        before = await self.events()
        (settled,) = await self.at(now, lambda slots: slots.settle(["s"]))
        done = (await self.events())[len(before) :]
        if not pending:
            assert set(done) <= {"plan_changed"}
            assert settled.dispatch is None
        return settled

    async def report(self, now: datetime, epoch: int, state: RunState, **more: Any) -> None:
        event = RunReported(
            runner="local",
            at=now,
            run_id=f"s-{epoch}",
            strategy_id="s",
            epoch=epoch,
            state=state,
            **more,
        )
        await self.at(now, lambda slots: slots.reported([event]))

    async def rows(self, kind: type[Any]) -> list[Any]:
        async with self.database.read() as session:
            return list((await session.exec(select(kind))).all())

    async def one(self, kind: type[Any]) -> Any:
        (row,) = await self.rows(kind)
        return row

    async def told(self) -> list[dict[str, Any]]:
        async with self.database.read() as session:
            query = select(SchedulerOutbox).order_by(col(SchedulerOutbox.id))
            return [json.loads(row.payload) for row in (await session.exec(query)).all()]

    async def overdue(self, now: datetime) -> list[str]:
        async with self.database.read() as session:
            return list(await overdue_ids(session, now, LEAD))

    async def events(self) -> list[str]:
        async with self.database.read() as session:
            query = select(SchedulerOutbox).order_by(col(SchedulerOutbox.id))
            return [row.subject.rpartition(".")[2] for row in (await session.exec(query)).all()]


@contextlib.asynccontextmanager
async def desk(folder: Path, schedule: dict[str, Any] | None = None) -> AsyncGenerator[Desk]:
    database = Database(databases.migrated(folder / "test.db"))
    await add_strategy(database, "s", schedule)
    try:
        yield Desk(database)
    finally:
        await database.close()


async def add_strategy(
    database: Database,
    strategy_id: str,
    schedule: dict[str, Any] | None = None,
    policy: RunPolicy | None = None,
) -> None:
    long_ago = THURSDAY - timedelta(days=30)
    async with database.write() as session:
        session.add(
            Strategy(
                id=strategy_id,
                owner="local",
                name=strategy_id.upper(),
                name_key=strategy_id,
                version=1,
                policy=policy or RunPolicy(),
                created_at=long_ago,
            )
        )
        session.add(
            Version(
                strategy_id=strategy_id,
                number=1,
                sha256="0" * 64,
                filename="s.py",
                size=4,
                source=b"pass",
                created_at=long_ago,
            )
        )
        if schedule:
            session.add(
                ScheduleRow(
                    strategy_id=strategy_id, revision=1, spec=schedule, updated_at=EVENING_BEFORE
                )
            )


def scenario(test: Callable[[Path], Awaitable[None]]) -> Callable[[Path], None]:
    def run(tmp_path: Path) -> None:
        asyncio.run(cast("Any", test(tmp_path)))

    run.__name__ = test.__name__
    run.__doc__ = test.__doc__
    return run


@scenario
async def test_a_due_start_is_granted_once_however_often_it_is_looked_at(tmp_path: Path) -> None:
    async with desk(tmp_path, MARKET) as scheduler:
        scheduler.runner_appears()
        for second in range(5):
            await scheduler.settle(NINE_FIFTEEN + timedelta(seconds=second))
        run = await scheduler.one(Run)
        assert (run.epoch, run.due_at, run.granted_at) == (1, NINE_FIFTEEN, NINE_FIFTEEN)
        occurrence = await scheduler.one(Occurrence)
        assert (occurrence.instant, occurrence.state, occurrence.attempts) == (
            NINE_FIFTEEN,
            "granted",
            1,
        )
        await scheduler.report(NINE_FIFTEEN + timedelta(seconds=7), 1, RunState.RUNNING)
        occurrence = await scheduler.one(Occurrence)
        assert (occurrence.state, occurrence.late_s) == ("done", 7)
        assert (await scheduler.events()).count("run_granted") == 1


@scenario
async def test_two_schedulers_at_one_instant_grant_once(tmp_path: Path) -> None:
    async with desk(tmp_path, MARKET) as one:
        other = Desk(Database(databases.migrated(tmp_path / "test.db")))
        one.runner_appears()
        other.runner_appears()
        await asyncio.gather(one.settle(NINE_FIFTEEN), other.settle(NINE_FIFTEEN))
        assert (await one.one(Run)).epoch == 1
        assert (await one.one(Slot)).epoch == 1
        await other.database.close()


@scenario
async def test_a_start_that_cannot_happen_waits_says_so_and_is_caught_up(tmp_path: Path) -> None:
    async with desk(tmp_path, MARKET) as scheduler:
        await scheduler.settle(NINE_FIFTEEN)
        slot = await scheduler.one(Slot)
        assert slot.waiting == "no runner is connected"
        assert (await scheduler.one(Occurrence)).state == "waiting"
        await scheduler.settle(NINE_FIFTEEN + timedelta(seconds=15))
        assert (await scheduler.events()).count("start_delayed") == 1
        scheduler.runner_appears()
        await scheduler.settle(NINE_FIFTEEN + timedelta(minutes=3))
        await scheduler.report(NINE_FIFTEEN + timedelta(minutes=3), 1, RunState.RUNNING)
        occurrence = await scheduler.one(Occurrence)
        assert (occurrence.state, occurrence.attempts, occurrence.late_s) == ("done", 3, 180)
        assert (await scheduler.one(Slot)).waiting is None


@scenario
async def test_a_start_that_never_could_happen_is_missed_and_says_so(tmp_path: Path) -> None:
    async with desk(tmp_path, MARKET) as scheduler:
        await scheduler.settle(NINE_FIFTEEN)
        await scheduler.settle(HALF_PAST_THREE)
        assert (await scheduler.one(Occurrence)).state == "missed"
        assert "start_missed" in await scheduler.events()
        assert (await scheduler.one(Slot)).waiting is None
        assert await scheduler.rows(Run) == []


@scenario
async def test_the_stop_comes_at_its_time_and_the_next_day_begins_anew(tmp_path: Path) -> None:
    async with desk(tmp_path, MARKET) as scheduler:
        scheduler.runner_appears()
        await scheduler.settle(NINE_FIFTEEN)
        await scheduler.report(NINE_FIFTEEN, 1, RunState.RUNNING)
        settled = await scheduler.settle(HALF_PAST_THREE)
        assert settled.dispatch is not None
        run = await scheduler.one(Run)
        assert (run.stop_reason, run.state) == ("stopped_by_schedule", "running")
        await scheduler.report(
            HALF_PAST_THREE, 1, RunState.EXITED, reason=ExitReason.STOPPED_BY_SCHEDULE
        )
        await scheduler.settle(HALF_PAST_THREE + timedelta(seconds=15))
        assert len(await scheduler.rows(Run)) == 1
        await scheduler.settle(NINE_FIFTEEN + timedelta(days=1))
        assert [run.epoch for run in await scheduler.rows(Run)] == [1, 2]


@scenario
async def test_a_crash_inside_the_window_is_retried_with_pauses_and_given_up(
    tmp_path: Path,
) -> None:
    async with desk(tmp_path, MARKET) as scheduler:
        scheduler.runner_appears()
        now = NINE_FIFTEEN
        await scheduler.settle(now)
        for epoch in range(1, 11):
            await scheduler.report(now, epoch, RunState.RUNNING)
            await scheduler.report(
                now, epoch, RunState.EXITED, reason=ExitReason.CRASHED, exit_code=3
            )
            slot = await scheduler.one(Slot)
            if epoch < 10:
                assert slot.retry_at is not None
                await scheduler.settle(slot.retry_at - timedelta(milliseconds=1))
                assert len(await scheduler.rows(Run)) == epoch
                now = slot.retry_at
                await scheduler.settle(now)
        slot = await scheduler.one(Slot)
        assert (slot.gave_up, slot.failures, slot.retry_at) == (True, 10, None)
        assert (await scheduler.events()).count("strategy_gave_up") == 1
        await scheduler.settle(NINE_FIFTEEN + timedelta(hours=3))
        assert len(await scheduler.rows(Run)) == 10
        await scheduler.settle(NINE_FIFTEEN + timedelta(days=1))
        assert len(await scheduler.rows(Run)) == 11


@scenario
async def test_reports_move_a_run_forward_only_and_old_epochs_count_nothing(
    tmp_path: Path,
) -> None:
    async with desk(tmp_path) as scheduler:
        scheduler.runner_appears()
        await scheduler.at(THURSDAY, lambda slots: slots.start("s"))
        await scheduler.report(
            THURSDAY, 1, RunState.EXITED, reason=ExitReason.COMPLETED, exit_code=0
        )
        await scheduler.report(THURSDAY, 1, RunState.RUNNING)
        assert (await scheduler.one(Run)).state == "exited"
        await scheduler.at(THURSDAY, lambda slots: slots.start("s"))
        await scheduler.report(THURSDAY, 1, RunState.EXITED, reason=ExitReason.CRASHED)
        first, second = await scheduler.rows(Run)
        assert (first.reason, second.state) == ("completed", "granted")
        await scheduler.report(THURSDAY, 99, RunState.RUNNING)
        assert [run.state for run in await scheduler.rows(Run)] == ["exited", "granted"]


@scenario
async def test_what_a_runner_has_forgotten_is_lost_and_what_it_never_heard_is_not(
    tmp_path: Path,
) -> None:
    async with desk(tmp_path) as scheduler:
        scheduler.runner_appears()
        await scheduler.at(THURSDAY, lambda slots: slots.start("s"))
        later = THURSDAY + timedelta(seconds=5)
        came_up = RunnerCameUp(runner="local", at=later, run_ids=())
        await scheduler.at(later, lambda slots: slots.reported([came_up]))
        assert (await scheduler.one(Run)).state == "granted"
        await scheduler.report(later, 1, RunState.RUNNING)
        await scheduler.at(later, lambda slots: slots.reported([came_up]))
        lost, resumed = await scheduler.rows(Run)
        assert (lost.reason, resumed.cause, resumed.epoch) == ("lost", "resume", 2)


@scenario
async def test_a_live_strategy_is_not_started_and_an_unknown_one_is_unknown(
    tmp_path: Path,
) -> None:
    async with desk(tmp_path) as scheduler:
        scheduler.runner_appears()
        await scheduler.at(THURSDAY, lambda slots: slots.start("s"))
        with pytest.raises(StrategyIsRunning):
            await scheduler.at(THURSDAY, lambda slots: slots.start("s"))
        with pytest.raises(UnknownStrategy):
            await scheduler.at(THURSDAY, lambda slots: slots.start("t"))
        assert len(await scheduler.rows(Run)) == 1


@scenario
async def test_commands_that_share_a_transaction_are_carried_out_one_after_another(
    tmp_path: Path,
) -> None:
    async def together(slots: Slots) -> list[Any]:
        await slots.expect(["s", "s", "t"])
        started = await slots.start("s")
        with pytest.raises(StrategyIsRunning):
            await slots.start("s")
        with pytest.raises(UnknownStrategy):
            await slots.start("t")
        return [started, await slots.stop("s")]

    async with desk(tmp_path) as scheduler:
        scheduler.runner_appears()
        started, stopped = await scheduler.at(THURSDAY, together)
        assert isinstance(started.dispatch.command, StartRun)
        assert isinstance(stopped.dispatch.command, StopRun)
        run = await scheduler.one(Run)
        assert (run.epoch, run.stop_reason) == (1, "stopped_by_user")


@scenario
async def test_a_manual_start_without_a_runner_is_kept_and_made_good(tmp_path: Path) -> None:
    async with desk(tmp_path) as scheduler:
        settled = await scheduler.at(THURSDAY, lambda slots: slots.start("s"))
        assert settled.standing.note == "it starts as soon as it can: no runner is connected"
        scheduler.runner_appears()
        await scheduler.settle(THURSDAY + timedelta(seconds=15))
        assert (await scheduler.one(Run)).cause == "manual"


async def reschedule(scheduler: Desk, at: datetime, **changes: Any) -> None:
    async with scheduler.database.write() as session:
        row = await session.get(ScheduleRow, "s")
        assert row is not None
        row.spec, row.revision, row.updated_at = {**MARKET, **changes}, row.revision + 1, at
        session.add(row)


async def run_until_the_stop(scheduler: Desk) -> None:
    scheduler.runner_appears()
    await scheduler.settle(NINE_FIFTEEN)
    await scheduler.report(NINE_FIFTEEN, 1, RunState.RUNNING)
    await scheduler.settle(HALF_PAST_THREE)
    await scheduler.report(
        HALF_PAST_THREE, 1, RunState.EXITED, reason=ExitReason.STOPPED_BY_SCHEDULE
    )


@scenario
async def test_a_stop_may_come_twice_at_one_instant(tmp_path: Path) -> None:
    """Stopped at 15:30, extended to 16:00, set back: the second stop is no second row."""
    async with desk(tmp_path, MARKET) as scheduler:
        await run_until_the_stop(scheduler)
        soon = HALF_PAST_THREE + timedelta(minutes=5)
        await reschedule(scheduler, soon, stop="16:00")
        await scheduler.settle(soon)
        await scheduler.report(soon, 2, RunState.RUNNING)
        await reschedule(scheduler, soon, stop="15:30")
        await scheduler.settle(soon + timedelta(minutes=1))
        assert [run.stop_reason for run in await scheduler.rows(Run)] == ["stopped_by_schedule"] * 2


@scenario
async def test_moving_the_start_into_the_future_stops_what_runs(tmp_path: Path) -> None:
    async with desk(tmp_path, MARKET) as scheduler:
        await run_until_the_stop(scheduler)
        friday = NINE_FIFTEEN + timedelta(days=1)
        await scheduler.settle(friday)
        await scheduler.report(friday, 2, RunState.RUNNING)
        await reschedule(scheduler, friday + timedelta(minutes=15), start="10:00")
        settled = await scheduler.settle(friday + timedelta(minutes=15))
        assert settled.dispatch is not None
        assert (await scheduler.rows(Run))[1].stop_reason == "stopped_by_schedule"


@pytest.mark.parametrize("later", [timedelta(), timedelta(hours=2), timedelta(days=1)])
def test_the_last_covered_day_has_its_stop(tmp_path: Path, later: timedelta) -> None:
    async def scene() -> None:
        async with desk(tmp_path, MARKET) as scheduler:
            scheduler.runner_appears()
            opens = datetime(2026, 12, 31, 3, 45, tzinfo=UTC)
            await scheduler.settle(opens)
            await scheduler.report(opens, 1, RunState.RUNNING)
            closes = datetime(2026, 12, 31, 10, 0, tzinfo=UTC)
            await scheduler.settle(closes - timedelta(minutes=1))
            assert (await scheduler.one(Run)).stop_reason is None
            await scheduler.settle(closes + later)
            assert (await scheduler.one(Run)).stop_reason == "stopped_by_schedule"

    asyncio.run(scene())


@scenario
async def test_a_start_that_failed_is_no_crash_of_the_strategy(tmp_path: Path) -> None:
    async with desk(tmp_path, MARKET) as scheduler:
        async with scheduler.database.write() as session:
            strategy = await session.get(Strategy, "s")
            assert strategy is not None
            strategy.policy = RunPolicy(restart=RestartPolicy.NEVER)
            session.add(strategy)
        scheduler.runner_appears()
        await scheduler.settle(NINE_FIFTEEN)
        now = NINE_FIFTEEN
        for epoch in range(1, 15):
            await scheduler.report(
                now, epoch, RunState.EXITED, reason=ExitReason.START_FAILED, detail="no api"
            )
            slot = await scheduler.one(Slot)
            assert slot.retry_at is not None
            assert slot.retry_at - now <= timedelta(minutes=5)
            assert not slot.gave_up
            now = slot.retry_at
            await scheduler.settle(now)
        assert len(await scheduler.rows(Run)) == 15


@scenario
async def test_an_acknowledged_restart_outlives_an_end_that_came_first(tmp_path: Path) -> None:
    async with desk(tmp_path) as scheduler:
        scheduler.runner_appears()
        await scheduler.at(THURSDAY, lambda slots: slots.start("s"))
        await scheduler.report(THURSDAY, 1, RunState.RUNNING)
        await scheduler.at(THURSDAY, lambda slots: slots.restart("s"))
        later = THURSDAY + timedelta(seconds=1)
        await scheduler.report(later, 1, RunState.EXITED, reason=ExitReason.COMPLETED, exit_code=0)
        first, second = await scheduler.rows(Run)
        assert (first.reason, second.state, second.cause) == ("completed", "granted", "restart")


@scenario
async def test_a_crash_before_the_close_promises_no_retry_after_it(tmp_path: Path) -> None:
    async with desk(tmp_path, MARKET) as scheduler:
        scheduler.runner_appears()
        await scheduler.settle(NINE_FIFTEEN)
        crash = HALF_PAST_THREE - timedelta(milliseconds=500)
        await scheduler.report(NINE_FIFTEEN, 1, RunState.RUNNING)
        await scheduler.report(crash, 1, RunState.EXITED, reason=ExitReason.CRASHED, exit_code=1)
        assert (await scheduler.one(Slot)).retry_at is None
        (told,) = [one for one in await scheduler.told() if "retry_at" in one]
        assert told["retry_at"] is None


@scenario
async def test_a_window_that_was_slept_through_is_missed_and_says_so(tmp_path: Path) -> None:
    async with desk(tmp_path, MARKET) as scheduler:
        scheduler.runner_appears()
        await scheduler.settle(HALF_PAST_THREE + timedelta(hours=1))
        occurrence = await scheduler.one(Occurrence)
        assert (occurrence.instant, occurrence.state) == (NINE_FIFTEEN, "missed")
        await scheduler.settle(HALF_PAST_THREE + timedelta(hours=2))
        assert (await scheduler.events()).count("start_missed") == 1


@scenario
async def test_what_its_user_stopped_was_not_missed(tmp_path: Path) -> None:
    async with desk(tmp_path, MARKET) as scheduler:
        await scheduler.settle(NINE_FIFTEEN)
        await scheduler.at(NINE_FIFTEEN + timedelta(hours=1), lambda slots: slots.stop("s"))
        await scheduler.settle(HALF_PAST_THREE + timedelta(hours=1))
        assert "start_missed" not in await scheduler.events()


@scenario
async def test_a_run_that_nobody_grants_any_more_is_ended(tmp_path: Path) -> None:
    async with desk(tmp_path) as scheduler:
        scheduler.runner_appears()
        await scheduler.at(THURSDAY, lambda slots: slots.start("s"))
        await scheduler.report(THURSDAY, 1, RunState.EXITED, reason=ExitReason.LOST)
        strays: list[str] = []

        async def report(slots: Slots) -> None:
            event = RunReported(
                runner="local",
                at=THURSDAY,
                run_id="s-1",
                strategy_id="s",
                epoch=1,
                state=RunState.RUNNING,
            )
            await slots.reported([event])
            came_up = RunnerCameUp(runner="local", at=THURSDAY, run_ids=("s-1", "t-7"))
            await slots.reported([came_up])
            strays.extend(stray.command.run_id for stray in slots.strays)

        await scheduler.at(THURSDAY, report)
        assert strays == ["s-1", "s-1", "t-7"]


@scenario
async def test_what_is_deleted_while_it_runs_is_stopped_with_all(tmp_path: Path) -> None:
    async with desk(tmp_path) as scheduler:
        scheduler.runner_appears()
        await scheduler.at(THURSDAY, lambda slots: slots.start("s"))
        await scheduler.report(THURSDAY, 1, RunState.RUNNING)
        async with scheduler.database.write() as session:
            (await session.get_one(Strategy, "s")).deleted_at = THURSDAY
        (settled,) = await scheduler.at(THURSDAY, lambda slots: slots.stop_all(["s"]))
        assert settled.dispatch is not None
        assert (await scheduler.one(Run)).stop_reason == "stopped_by_user"


# ---- which strategies are looked at


@scenario
async def test_a_schedule_that_was_set_unheard_is_seen_however_late(tmp_path: Path) -> None:
    """Whatever api's clock said when it was set."""
    async with desk(tmp_path, MARKET) as scheduler:
        evening = HALF_PAST_THREE + timedelta(hours=4)
        assert await scheduler.pending(evening) == ["s"]
        await scheduler.settle(evening)
        assert await scheduler.pending(evening) == []
        await reschedule(scheduler, evening - timedelta(hours=1), start="10:00")
        assert await scheduler.pending(evening) == ["s"]
        await scheduler.settle(evening)
        assert await scheduler.pending(evening) == []


@scenario
async def test_a_schedule_that_was_removed_unheard_is_seen_though_it_was_set_anew(
    tmp_path: Path,
) -> None:
    """Revisions count from one again."""
    async with desk(tmp_path, MARKET) as scheduler:
        evening = HALF_PAST_THREE + timedelta(hours=4)
        await scheduler.settle(evening)
        async with scheduler.database.write() as session:
            await session.delete(await session.get_one(ScheduleRow, "s"))
        assert await scheduler.pending(evening) == ["s"]
        async with scheduler.database.write() as session:
            spec = {**MARKET, "start": "10:00"}
            session.add(ScheduleRow(strategy_id="s", revision=1, spec=spec, updated_at=evening))
        assert await scheduler.pending(evening) == ["s"]
        await scheduler.settle(evening)
        assert await scheduler.pending(evening) == []
        slot = await scheduler.one(Slot)
        assert slot.next_start == NINE_FIFTEEN + timedelta(days=1, minutes=45)


# ---- the service


@contextlib.asynccontextmanager
async def working(
    folder: Path, bus: Bus, *, reconcile_s: float, clock: Callable[[], datetime] = utc_now
) -> AsyncGenerator[Scheduler]:
    """A scheduler at work, over the database of a desk."""
    url = databases.migrated(folder / "test.db")
    settings = Settings(
        database=DatabaseSettings(url=url), scheduler=SchedulerSettings(reconcile_s=reconcile_s)
    )
    database = Database(url)
    scheduler = Scheduler(settings, bus, database, clock)
    try:
        async with scheduler.running():
            yield scheduler
    finally:
        await database.close()


async def until(so: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await so():
            await asyncio.sleep(0.02)


def test_one_strategy_that_cannot_be_stopped_keeps_no_other_running(
    nats: NatsServer, tmp_path: Path
) -> None:
    async def scene() -> None:
        async with desk(tmp_path) as known, nats.bus() as bus:
            await add_strategy(known.database, "broken")
            await add_strategy(known.database, "t")
            databases.execute(
                databases.migrated(tmp_path / "test.db"),
                """UPDATE strategy SET policy = '{"restart": "as another release has it"}'
                 WHERE id = 'broken'""",
            )
            async with working(tmp_path, bus, reconcile_s=60):
                # The log of the defect, with all of its frames, takes seconds on a busy host.
                stop_all = StopStrategies(strategy_ids=("s", "broken", "t"))
                answer = await bus.request(stop_all, timeout_s=60)
            assert answer.strategy_ids == ("broken",)
            stopped = {slot.strategy_id: slot.intent for slot in await known.rows(Slot)}
            assert stopped == {"s": "stop", "t": "stop"}

    asyncio.run(scene())


def test_the_look_at_everything_is_tried_until_it_succeeds(
    nats: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[bool] = []
    all_ids = service.all_ids

    async def fails_twice(session: Any) -> Any:
        tries.append(len(tries) >= 2)
        if not tries[-1]:
            raise OSError
        return await all_ids(session)

    monkeypatch.setattr(service, "all_ids", fails_twice)
    monkeypatch.setattr(service, "RETRY_S", 0.01)

    async def scene() -> None:
        async with desk(tmp_path), nats.bus() as bus, working(tmp_path, bus, reconcile_s=0.1):
            async with asyncio.timeout(3):
                while not any(tries):
                    await asyncio.sleep(0.02)
            await asyncio.sleep(0.5)
            assert tries == [False, False, True]  # and then only now and then

    asyncio.run(scene())


def test_a_scheduler_is_punctual_for_what_another_one_planned(
    nats: NatsServer, tmp_path: Path
) -> None:
    async def scene() -> None:
        async with (
            desk(tmp_path) as known,
            nats.bus() as bus,
            working(tmp_path, bus, reconcile_s=60) as scheduler,
        ):
            await until(lambda: known.rows(Slot))  # its first look is over
            await add_strategy(known.database, "planned", {"kind": "always"})
            async with known.database.write() as session:
                soon = utc_now() + timedelta(seconds=0.5)
                session.add(
                    Slot(
                        strategy_id="planned",
                        owner="local",
                        next_stop=soon,
                        schedule_at=EVENING_BEFORE,
                    )
                )
            assert "planned" not in await known.pending(utc_now())
            scheduler.look()

            async def looked() -> bool:
                (slot,) = [one for one in await known.rows(Slot) if one.strategy_id == "planned"]
                return slot.outlook == "open"

            await until(looked)
            assert utc_now() >= soon

    asyncio.run(scene())
