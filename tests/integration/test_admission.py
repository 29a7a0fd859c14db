"""What does not fit waits with its reason, in its turn, before a real database; and follows as soon
as there is room.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlmodel import col, select

from openbell.contracts.base import utc_now
from openbell.contracts.events import RunReported
from openbell.contracts.limits import Limits, RunPolicy, Usage
from openbell.contracts.model import ExitReason, RunnerInfo, RunState
from openbell.contracts.room import Room
from openbell.db.models import Occurrence, Run, Slot
from openbell.db.session import Database
from services.scheduler.agenda import pending_ids
from services.scheduler.runners import Runners
from services.scheduler.slots import Slots
from tests.fixtures import databases
from tests.integration.test_slots import (
    HALF_PAST_THREE,
    LEAD,
    MARKET,
    NINE_FIFTEEN,
    THURSDAY,
    Desk,
    add_strategy,
    scenario,
)

MB = 1024**2
SECOND = timedelta(seconds=1)
MANY = [f"s-{number:02}" for number in range(30)]
LONG_AGO = utc_now() - timedelta(days=1)


def told(
    free_mb: int, *run_ids: str, runner: str = "local", at: Any = None, most: int | None = None
) -> RunnerInfo:
    """A heartbeat of a runner of 2 GB. Made long ago, unless a test says otherwise."""
    room = Room(
        memory_total_bytes=2048 * MB,
        memory_free_bytes=free_mb * MB,
        run_ids=run_ids,
        most_runs=most,
    )
    return RunnerInfo(
        runner=runner,
        platform="Linux",
        python="3.11",
        at=at or LONG_AGO,
        capabilities={},
        room=room,
    )


@contextlib.asynccontextmanager
async def many(
    folder: Path, *ids: str, schedule: dict[str, Any] | None = MARKET, limit_mb: int | None = None
) -> AsyncGenerator[Desk]:
    """A scheduler before so many strategies, all due at 09:15."""
    database = Database(databases.migrated(folder / "test.db"))
    policy = RunPolicy(limits=Limits(memory_mb=limit_mb))
    for strategy_id in ids:
        await add_strategy(database, strategy_id, schedule, policy)
    try:
        yield Desk(database)
    finally:
        await database.close()


def hear(desk: Desk, info: RunnerInfo) -> None:
    desk.runners.heard(info.runner, info)


async def look(desk: Desk, now: Any) -> None:
    """At all that may need something, as the scheduler does."""
    ids = await desk.pending(now)
    await desk.at(now, lambda slots: slots.settle(ids))


async def granted(desk: Desk) -> list[str]:
    """Whose runs live, in the order of their grants."""
    async with desk.database.read() as session:
        query = select(Run).where(col(Run.state) != RunState.EXITED)
        runs = (await session.exec(query.order_by(col(Run.granted_at), Run.id))).all()
    return [run.strategy_id for run in runs]


async def waiting(desk: Desk) -> dict[str, str]:
    return {slot.strategy_id: slot.waiting for slot in await desk.rows(Slot) if slot.waiting}


async def end(desk: Desk, strategy_id: str, now: Any, **more: Any) -> None:
    await report(desk, strategy_id, now, state=RunState.EXITED, **more)


async def report(desk: Desk, strategy_id: str, now: Any, **more: Any) -> None:
    async with desk.database.read() as session:
        slot = await session.get_one(Slot, strategy_id)
    told = {
        "runner": slot.runner,
        "at": now,
        "run_id": f"{strategy_id}-{slot.epoch}",
        "strategy_id": strategy_id,
        "epoch": slot.epoch,
        "reason": ExitReason.COMPLETED,
    }
    event = RunReported.model_validate(told | more)
    await desk.at(now, lambda slots: slots.reported([event]))


# ---- 30 are due where 10 fit


@scenario
async def test_of_thirty_that_are_due_ten_fit_and_the_others_wait_with_the_reason(
    tmp_path: Path,
) -> None:
    async with many(tmp_path, *MANY) as desk:
        hear(desk, told(10 * 64 + 63, "of-another-1"))
        await look(desk, NINE_FIFTEEN)
        assert await granted(desk) == MANY[:10]
        waits = await waiting(desk)
        assert sorted(waits) == MANY[10:]
        assert set(waits.values()) == {
            "no room on local: 1.9 of 2.0 GB are taken or promised, and it needs 64 MB"
        }
        starts = {row.strategy_id: row for row in await desk.rows(Occurrence)}
        assert {starts[one].state for one in MANY[:10]} == {"granted"}
        assert {starts[one].state for one in MANY[10:]} == {"waiting"}
        assert (await desk.events()).count("start_delayed") == 20


@scenario
async def test_those_who_wait_follow_in_their_turn_when_room_is_told(tmp_path: Path) -> None:
    async with many(tmp_path, *MANY) as desk:
        hear(desk, told(10 * 64, "of-another-1"))
        await look(desk, NINE_FIFTEEN)
        ids = [f"{one}-1" for one in MANY[:10]]
        hear(desk, told(5 * 64, "of-another-1", *ids))
        await add_strategy(desk.database, "a-newcomer", MARKET)  # the first by name
        await look(desk, NINE_FIFTEEN + SECOND)
        assert await granted(desk) == MANY[:15]
        hear(desk, told(100 * 64, "of-another-1"))
        await look(desk, NINE_FIFTEEN + 2 * SECOND)
        assert len(await granted(desk)) == 31
        assert await waiting(desk) == {}
        assert {slot.waiting_since for slot in await desk.rows(Slot)} == {None}


@scenario
async def test_who_was_due_first_comes_first(tmp_path: Path) -> None:
    """Whatever their names; and by hand no sooner than by schedule."""
    later = {**MARKET, "start": "09:16"}
    async with many(tmp_path, "due-2", schedule=later) as desk:
        await add_strategy(desk.database, "z-due-1", MARKET)
        await add_strategy(desk.database, "by-hand")
        hear(desk, told(0, "of-another-1"))
        await look(desk, NINE_FIFTEEN)
        by_hand = NINE_FIFTEEN + 30 * SECOND
        answer = await desk.at(by_hand, lambda slots: slots.start("by-hand"))
        assert "no room on local" in answer.standing.note
        await look(desk, NINE_FIFTEEN + 60 * SECOND)
        async with desk.database.read() as session:
            pending = await pending_ids(session, NINE_FIFTEEN + 60 * SECOND, LEAD)
        assert pending == ["z-due-1", "by-hand", "due-2"]
        await desk.at(by_hand + SECOND, lambda slots: slots.start("by-hand"))  # keeps its turn
        for free, expected in enumerate(["z-due-1", "by-hand", "due-2"]):
            hear(desk, told(64, *(f"of-another-{n}" for n in range(free + 1))))
            before = set(await granted(desk))
            counted = [f"{one}-1" for one in before]
            hear(desk, told(64, "of-another-1", *counted))
            await look(desk, NINE_FIFTEEN + (61 + free) * SECOND)
            assert set(await granted(desk)) - before == {expected}


@scenario
async def test_a_small_one_passes_a_large_one_that_does_not_fit(tmp_path: Path) -> None:
    async with many(tmp_path, "large", "small") as desk:
        async with desk.database.write() as session:
            session.add(Slot(strategy_id="large", owner="local", working_memory_bytes=500 * MB))
            session.add(Slot(strategy_id="small", owner="local", working_memory_bytes=20 * MB))
        hear(desk, told(100, "of-another-1"))
        await look(desk, NINE_FIFTEEN)
        assert await granted(desk) == ["small"]
        assert "it needs 500 MB" in (await waiting(desk))["large"]


@scenario
async def test_a_wait_is_said_once_however_its_figures_change(tmp_path: Path) -> None:
    async with many(tmp_path, "s") as desk:
        for free in range(60, 0, -10):
            hear(desk, told(free, "of-another-1"))
            await look(desk, NINE_FIFTEEN + (60 - free) * SECOND)
        assert (await desk.events()).count("start_delayed") == 1
        desk.runners.heard("local", None)
        await look(desk, NINE_FIFTEEN + 70 * SECOND)
        assert await waiting(desk) == {"s": "no runner is connected"}
        assert (await desk.events()).count("start_delayed") == 2


@scenario
async def test_what_never_found_room_was_missed_for_that_reason(tmp_path: Path) -> None:
    async with many(tmp_path, "s") as desk:
        hear(desk, told(10, "of-another-1"))
        await look(desk, NINE_FIFTEEN)
        await look(desk, HALF_PAST_THREE)
        (start,) = await desk.rows(Occurrence)
        assert start.state == "missed"
        assert start.detail.startswith("no room on local")
        assert await waiting(desk) == {}


# ---- when in doubt, it fits


@scenario
async def test_a_runner_that_tells_no_room_has_room_for_all(tmp_path: Path) -> None:
    async with many(tmp_path, *MANY) as desk:
        desk.runner_appears()
        await look(desk, NINE_FIFTEEN)
        assert await granted(desk) == MANY


@scenario
async def test_where_nothing_runs_one_fits_whatever_is_told(tmp_path: Path) -> None:
    async with many(tmp_path, "a", "b") as desk:
        hear(desk, told(-500))
        await look(desk, NINE_FIFTEEN)
        assert await granted(desk) == ["a"]
        assert list(await waiting(desk)) == ["b"]


@scenario
async def test_a_limit_below_64_mb_is_all_that_is_needed(tmp_path: Path) -> None:
    async with many(tmp_path, *MANY, limit_mb=32) as desk:
        hear(desk, told(10 * 32, "of-another-1"))
        await look(desk, NINE_FIFTEEN)
        assert len(await granted(desk)) == 10


@scenario
async def test_what_the_runner_has_counted_is_not_counted_again(tmp_path: Path) -> None:
    async with many(tmp_path, "a", "b", "c") as desk:
        hear(desk, told(64, "of-another-1"))
        await look(desk, NINE_FIFTEEN)
        assert await granted(desk) == ["a"]
        hear(desk, told(64, "of-another-1", "a-1"))
        await look(desk, NINE_FIFTEEN + SECOND)
        assert await granted(desk) == ["a", "b"]
        await look(desk, NINE_FIFTEEN + 2 * SECOND)  # the same heartbeat: b has taken it
        assert await granted(desk) == ["a", "b"]


@scenario
async def test_what_ended_since_the_heartbeat_leaves_its_room_at_once(tmp_path: Path) -> None:
    async with many(tmp_path, "a", "b") as desk:
        hear(desk, told(64, "of-another-1", at=NINE_FIFTEEN - SECOND))
        await look(desk, NINE_FIFTEEN)
        hear(desk, told(0, "of-another-1", "a-1", at=NINE_FIFTEEN + 5 * SECOND))
        await end(desk, "a", NINE_FIFTEEN + 6 * SECOND)
        assert desk.runners.wanted
        await look(desk, NINE_FIFTEEN + 6 * SECOND)
        assert await granted(desk) == ["b"]


@scenario
async def test_what_ended_before_the_heartbeat_is_not_given_back_twice(tmp_path: Path) -> None:
    async with many(tmp_path, "a", "b") as desk:
        hear(desk, told(64, "of-another-1", at=NINE_FIFTEEN))
        await look(desk, NINE_FIFTEEN)
        await end(desk, "a", NINE_FIFTEEN + 4 * SECOND)
        hear(desk, told(0, "of-another-1", "a-1", at=NINE_FIFTEEN + 5 * SECOND))
        await look(desk, NINE_FIFTEEN + 6 * SECOND)
        assert await granted(desk) == []


@scenario
async def test_a_restart_by_hand_has_the_room_of_the_run_before(tmp_path: Path) -> None:
    async with many(tmp_path, "a") as desk:
        hear(desk, told(64, "of-another-1", at=NINE_FIFTEEN))
        await look(desk, NINE_FIFTEEN)
        hear(desk, told(0, "of-another-1", "a-1", at=NINE_FIFTEEN + SECOND))
        await desk.at(NINE_FIFTEEN + 2 * SECOND, lambda slots: slots.restart("a"))
        await end(desk, "a", NINE_FIFTEEN + 3 * SECOND, reason=ExitReason.STOPPED_BY_USER)
        assert [run.id for run in await desk.rows(Run) if run.live] == ["a-2"]


@scenario
async def test_what_a_reboot_interrupted_waits_for_room_like_all_else(tmp_path: Path) -> None:
    async with many(tmp_path, "a") as desk:
        hear(desk, told(64, "of-another-1", at=NINE_FIFTEEN))
        await look(desk, NINE_FIFTEEN)
        await report(desk, "a", NINE_FIFTEEN, state=RunState.RUNNING, reason=None)
        hear(desk, told(10, "of-another-1", at=NINE_FIFTEEN + 9 * SECOND))
        await end(desk, "a", NINE_FIFTEEN + 8 * SECOND, reason=ExitReason.LOST)
        assert "no room" in (await waiting(desk))["a"]
        hear(desk, told(64, "of-another-1"))
        await look(desk, NINE_FIFTEEN + 20 * SECOND)
        (run,) = [run for run in await desk.rows(Run) if run.live]
        assert (run.id, run.cause) == ("a-2", "resume")


# ---- a cap, and several runners


@scenario
async def test_a_runner_takes_as_many_as_its_settings_say(tmp_path: Path) -> None:
    async with many(tmp_path, *MANY) as desk:
        hear(desk, told(2000, "of-another-1", most=3))
        await look(desk, NINE_FIFTEEN)
        assert await granted(desk) == MANY[:2]
        assert set((await waiting(desk)).values()) == {
            "no room on local: 3 runs are there, and it takes 3 at most"
        }


@scenario
async def test_runs_go_where_they_were_and_then_where_there_is_most_room(tmp_path: Path) -> None:
    async with many(tmp_path, "a", "b", "c", "d") as desk:
        async with desk.database.write() as session:
            before = Run(
                id="c-1", strategy_id="c", owner="local", epoch=1, runner="box-2", version=1,
                granted_at=THURSDAY - timedelta(days=1), state=RunState.EXITED, cause="schedule",
                exited_at=THURSDAY - timedelta(days=1), reason=ExitReason.STOPPED_BY_SCHEDULE,
            )  # fmt: skip
            session.add(before)
            session.add(Slot(strategy_id="c", owner="local", epoch=1, run_id="c-1"))
        hear(desk, told(150, "x-1", runner="box-1"))
        hear(desk, told(70, "y-1", runner="box-2"))
        await look(desk, NINE_FIFTEEN)
        runs = {run.strategy_id: run.runner for run in await desk.rows(Run) if run.live}
        assert runs == {"a": "box-1", "b": "box-1", "c": "box-2"}
        assert (await waiting(desk))["d"].endswith("; nor on 1 more")


# ---- two schedulers


@scenario
async def test_two_schedulers_give_the_same_room_away_once(tmp_path: Path) -> None:
    """Also when each decides on strategies of its own: the second waits for what the first does."""
    async with many(tmp_path, *MANY) as one:
        other = Desk(Database(databases.migrated(tmp_path / "test.db")))
        for desk in (one, other):
            hear(desk, told(640, "of-another-1"))
        decided, overtaken = asyncio.Event(), asyncio.Event()

        async def first(slots: Slots) -> None:
            await slots.settle(MANY[::2])
            decided.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    await overtaken.wait()

        async def second() -> None:
            await decided.wait()
            await other.at(NINE_FIFTEEN, lambda slots: slots.settle(MANY[1::2]))
            overtaken.set()

        await asyncio.gather(one.at(NINE_FIFTEEN, first), second())
        assert await granted(one) == MANY[:20:2]
        assert len(await waiting(one)) == 20
        await other.database.close()


# ---- what is learned


@scenario
async def test_what_a_run_was_seen_to_use_is_what_the_next_is_expected_to_need(
    tmp_path: Path,
) -> None:
    async with many(tmp_path, "a", schedule=None) as desk:
        hear(desk, told(2000, "of-another-1"))
        first = await desk.at(NINE_FIFTEEN, lambda slots: slots.start("a"))
        assert first.dispatch.command.expected_memory_bytes == 64 * MB
        assert not first.dispatch.command.expected_as_seen
        usage = Usage(peak_memory_bytes=900 * MB, working_memory_bytes=300 * MB)
        await end(desk, "a", NINE_FIFTEEN + SECOND, usage=usage)
        second = await desk.at(NINE_FIFTEEN + 2 * SECOND, lambda slots: slots.start("a"))
        assert second.dispatch.command.expected_memory_bytes == 300 * MB
        assert second.dispatch.command.expected_as_seen
        usage = Usage(working_memory_bytes=100 * MB)
        await end(desk, "a", NINE_FIFTEEN + 3 * SECOND, usage=usage)
        third = await desk.at(NINE_FIFTEEN + 4 * SECOND, lambda slots: slots.start("a"))
        assert third.dispatch.command.expected_memory_bytes == 200 * MB
        runs = sorted(await desk.rows(Run), key=lambda run: run.epoch)
        assert [run.working_memory_bytes for run in runs] == [300 * MB, 100 * MB, None]
        assert [run.expected_memory_bytes for run in runs] == [64 * MB, 300 * MB, 200 * MB]


# ---- what heartbeats wake


def test_room_is_looked_for_as_soon_as_a_heartbeat_tells_of_it() -> None:
    looks: list[str] = []
    runners = Runners(lambda: looks.append("look"))
    runners.heard("local", told(0, "s-1"))
    assert looks == ["look"]  # it has appeared
    runners.heard("local", told(900, "s-1"))
    assert len(looks) == 1  # nobody waits
    runners.want(200 * MB)
    runners.want(100 * MB)
    runners.heard("local", told(99, "s-1"))
    assert (len(looks), runners.wanted) == (1, True)
    runners.heard("local", told(100, "s-1"))
    assert (len(looks), runners.wanted) == (2, False)
