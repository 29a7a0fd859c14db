"""The database, and what leaves it: a change and its event are one, and the event is told once."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, cast
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy.exc import IntegrityError, OperationalError, StatementError
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from openbell import bus as module_bus
from openbell import outbox as module
from openbell.bus import EVENTS, Bus
from openbell.contracts.errors import ServiceUnavailable, TooLarge
from openbell.contracts.events import StrategyUploaded
from openbell.db.models import ApiOutbox, SchedulerOutbox, Slot
from openbell.db.session import Database
from openbell.outbox import Outbox
from tests.fixtures import databases
from tests.fixtures.nats import NatsServer

NOW = datetime(2026, 8, 3, 3, 45, tzinfo=UTC)
PATIENCE_S = 15
NO_BUS = cast("Bus", None)
INDIA = ZoneInfo("Asia/Kolkata")
Table = type[ApiOutbox] | type[SchedulerOutbox]


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Of a database with this release's tables, and no rows."""
    return databases.migrated(tmp_path / "openbell.db")


@asynccontextmanager
async def opened(url: str) -> AsyncGenerator[Database]:
    database = Database(url)
    try:
        yield database
    finally:
        await database.close()


def uploaded(number: int) -> StrategyUploaded:
    return StrategyUploaded(
        owner="local", strategy_id="one", at=NOW, name=f"number {number}", version=number
    )


async def change(database: Database, outbox: Outbox, *numbers: int, fails: bool = False) -> None:
    """One transaction: a row, and what is told of it."""
    async with database.write() as session:
        for number in numbers:
            session.add(Slot(strategy_id=f"s{number}", owner="local"))
            outbox.add(session, uploaded(number))
        if fails:
            await session.flush()
            raise ZeroDivisionError


async def rows(database: Database, table: Table = ApiOutbox) -> list[Any]:
    async with database.read() as session:
        kind: type[Any] = table
        return list((await session.exec(select(kind).order_by(col(kind.id)))).all())


async def emptied(database: Database, table: Table = ApiOutbox) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while await rows(database, table):
            await asyncio.sleep(0.01)


async def published(bus: Bus) -> list[int]:
    """The versions that the stream tells of, in its order."""
    found: list[int] = []
    after = 0
    while message := await bus.next_stored(EVENTS, after):
        found.append(StrategyUploaded.model_validate_json(message.payload).version)
        after = message.sequence
    return found


class Gate:
    """A bus that keeps what it is given from its stream, until it is opened."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self.opened = asyncio.Event()
        self.asked: list[str] = []

    async def store(self, subject: str, payload: bytes, message_id: str) -> None:
        self.asked.append(message_id)
        await self.opened.wait()
        await self._bus.store(subject, payload, message_id)


# ---- the outbox


@pytest.mark.parametrize("table", [ApiOutbox, SchedulerOutbox])
def test_a_change_and_its_event_are_one(url: str, table: Table) -> None:
    async def scenario() -> None:
        async with opened(url) as database:
            outbox = Outbox(table, database, NO_BUS)
            await change(database, outbox, 1)
            with pytest.raises(ZeroDivisionError):
                await change(database, outbox, 2, fails=True)
            (row,) = await rows(database, table)
            assert (row.subject, row.payload) == (uploaded(1).subject, uploaded(1).encode())
            async with database.read() as session:
                assert [slot.strategy_id for slot in await session.exec(select(Slot))] == ["s1"]

    asyncio.run(scenario())


def test_a_refused_change_takes_its_event_along(url: str) -> None:
    async def scenario() -> None:
        async with opened(url) as database:
            outbox = Outbox(ApiOutbox, database, NO_BUS)
            await change(database, outbox, 1)
            with pytest.raises(IntegrityError):
                await change(database, outbox, 2, 1)
            assert len(await rows(database)) == 1

    asyncio.run(scenario())


@pytest.mark.parametrize("table", [ApiOutbox, SchedulerOutbox])
def test_events_are_published_in_the_order_of_their_commits(
    nats: NatsServer, url: str, table: Table
) -> None:
    several = module.BATCH + 40

    async def scenario() -> None:
        async with nats.bus() as bus, opened(url) as database:
            outbox = Outbox(table, database, bus)
            await change(database, outbox, *range(several))
            async with outbox.publishing():
                for number in range(several, several + 20):
                    await change(database, outbox, number)
                    outbox.wake()
                await emptied(database, table)
                await asyncio.sleep(0.02)
            assert await published(bus) == list(range(several + 20))

    asyncio.run(scenario())


def test_nothing_is_published_before_its_commit(nats: NatsServer, url: str) -> None:
    async def scenario() -> None:
        async with nats.bus() as bus, opened(url) as database:
            outbox = Outbox(ApiOutbox, database, bus)
            async with outbox.publishing():
                async with database.write() as session:
                    outbox.add(session, uploaded(1))
                    await session.flush()
                    outbox.wake()
                    await asyncio.sleep(0.05)
                    assert await published(bus) == []
                outbox.wake()
                await emptied(database)
                await asyncio.sleep(0.02)
            assert await published(bus) == [1]

    asyncio.run(scenario())


def test_a_row_stays_until_the_stream_has_confirmed_it(nats: NatsServer, url: str) -> None:
    async def scenario() -> None:
        async with nats.bus() as bus, opened(url) as database:
            gate = Gate(bus)
            outbox = Outbox(ApiOutbox, database, cast("Bus", gate))
            await change(database, outbox, 1, 2)
            async with outbox.publishing():
                async with asyncio.timeout(PATIENCE_S):
                    while not gate.asked:
                        await asyncio.sleep(0.01)
                await asyncio.sleep(0.05)
                assert len(await rows(database)) == 2
                gate.opened.set()
                await emptied(database)
                await asyncio.sleep(0.02)
            assert await published(bus) == [1, 2]

    asyncio.run(scenario())


def test_who_forgets_to_wake_it_is_only_late(
    nats: NatsServer, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.02)

    async def scenario() -> None:
        async with nats.bus() as bus, opened(url) as database:
            outbox = Outbox(ApiOutbox, database, bus)
            async with outbox.publishing():
                await asyncio.sleep(0.05)
                await change(database, outbox, 1)
                await emptied(database)
            assert await published(bus) == [1]

    asyncio.run(scenario())


def test_what_was_committed_last_is_published_before_leaving(nats: NatsServer, url: str) -> None:
    async def scenario() -> None:
        async with nats.bus() as bus, opened(url) as database:
            outbox = Outbox(ApiOutbox, database, bus)
            async with outbox.publishing():
                await asyncio.sleep(0.05)
                await change(database, outbox, 1, 2)
            assert await rows(database) == []
            assert await published(bus) == [1, 2]

    asyncio.run(scenario())


def test_a_commit_at_the_last_moment_does_not_keep_it_from_leaving(
    nats: NatsServer, url: str
) -> None:
    async def scenario() -> None:
        async with nats.bus() as bus, opened(url) as database:
            outbox = Outbox(ApiOutbox, database, bus)
            async with asyncio.timeout(1), outbox.publishing():
                await asyncio.sleep(0.1)
                outbox.wake()

    asyncio.run(scenario())


def test_two_publishers_over_one_table_tell_each_event_once(nats: NatsServer, url: str) -> None:
    several = 300

    async def scenario() -> None:
        async with (
            nats.bus("one") as one,
            nats.bus("two") as two,
            opened(url) as first,
            opened(url) as second,
        ):
            outboxes = Outbox(SchedulerOutbox, first, one), Outbox(SchedulerOutbox, second, two)
            async with outboxes[0].publishing(), outboxes[1].publishing():
                for number in range(0, several, 10):
                    await change(first, outboxes[0], *range(number, number + 10))
                    for outbox in outboxes:
                        outbox.wake()
                await emptied(first, SchedulerOutbox)
                await asyncio.sleep(0.05)
            assert await published(one) == list(range(several))

    asyncio.run(scenario())


def test_a_slow_publisher_deletes_no_event_that_it_has_not_published(
    nats: NatsServer, url: str
) -> None:
    async def scenario() -> None:
        async with nats.bus() as bus, opened(url) as database:
            gate = Gate(bus)
            slow = Outbox(SchedulerOutbox, database, cast("Bus", gate))
            quick = Outbox(SchedulerOutbox, database, bus)
            await change(database, slow, 1)
            async with slow.publishing():
                async with asyncio.timeout(PATIENCE_S):
                    while not gate.asked:
                        await asyncio.sleep(0.01)
                async with quick.publishing():
                    await emptied(database, SchedulerOutbox)
                    await asyncio.sleep(0.05)
                await change(database, slow, 2)  # nobody has published this one
                gate.opened.set()
                await emptied(database, SchedulerOutbox)
                await asyncio.sleep(0.05)
            assert await published(bus) == [1, 2]

    asyncio.run(scenario())


def test_killed_between_publishing_and_deleting_it_tells_the_event_once(
    nats: NatsServer, url: str
) -> None:
    async def scenario() -> None:
        async with nats.bus() as bus, opened(url) as database:
            outbox = Outbox(ApiOutbox, database, bus)
            await change(database, outbox, 1, 2)
            before = [row.model_dump() for row in await rows(database)]
            async with outbox.publishing():
                await emptied(database)
                await asyncio.sleep(0.02)
            async with database.write() as session:
                session.add_all(ApiOutbox(**row) for row in before)
            await change(database, outbox, 3)
            async with Outbox(ApiOutbox, database, bus).publishing():
                await emptied(database)
                await asyncio.sleep(0.02)
            assert await published(bus) == [1, 2, 3]

    asyncio.run(scenario())


@pytest.mark.usefixtures("in_a_hurry")
def test_while_nats_is_away_events_wait(
    nats: NatsServer, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.05)

    async def scenario() -> None:
        async with nats.bus() as bus, opened(url) as database:
            outbox = Outbox(ApiOutbox, database, bus)
            async with outbox.publishing():
                await change(database, outbox, 1)
                await emptied(database)
                nats.kill()
                for number in range(2, 12):
                    await change(database, outbox, number)  # the request is answered all the same
                    outbox.wake()
                await asyncio.sleep(0.6)
                assert len(await rows(database)) == 10
                nats.start_again()
                await emptied(database)
                await asyncio.sleep(0.02)
            assert await published(bus) == list(range(1, 12))

    asyncio.run(scenario())


@pytest.mark.usefixtures("in_a_hurry")
def test_it_leaves_also_while_nats_is_away(nats: NatsServer, url: str) -> None:
    async def scenario() -> None:
        async with nats.bus() as bus, opened(url) as database:
            outbox = Outbox(ApiOutbox, database, bus)
            async with outbox.publishing():
                await asyncio.sleep(0.05)
                nats.kill()
                await change(database, outbox, 1)
            assert len(await rows(database)) == 1
            nats.start_again()
            async with Outbox(ApiOutbox, database, bus).publishing():
                await emptied(database)
                await asyncio.sleep(0.02)
            assert await published(bus) == [1]

    asyncio.run(scenario())


def test_an_event_that_was_not_confirmed_is_not_overtaken(
    nats: NatsServer, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a strategy that has exited is shown as running."""
    monkeypatch.setattr(module, "RETRY_S", 0.05)

    async def scenario() -> None:
        async with nats.bus() as bus, opened(url) as database:
            outbox = Outbox(ApiOutbox, database, cast("Bus", FailsOnce(bus)))
            await change(database, outbox, 1, 2, 3)
            async with outbox.publishing():
                await emptied(database)
                await asyncio.sleep(0.02)
            assert await published(bus) == [1, 2, 3]

    asyncio.run(scenario())


@pytest.mark.parametrize("spare", [-1, 60, module_bus.HEADERS_MOST - 1])
def test_what_the_stream_never_takes_is_dropped_and_blocks_no_other(
    nats: NatsServer, url: str, spare: int
) -> None:
    """Nor does it end the connection, as a message does whose headers make it too large."""

    async def scenario() -> None:
        async with nats.bus() as bus, opened(url) as database:
            outbox = Outbox(ApiOutbox, database, bus)
            await change(database, outbox, 1)
            size = 2**20 - spare
            async with database.write() as session:
                huge = uploaded(2)
                padding = "x" * (size - len(huge.encode()))
                outbox.add(session, huge.model_copy(update={"name": huge.name + padding}))
            await change(database, outbox, *range(3, module.BATCH + 20))
            async with outbox.publishing():
                await emptied(database)
                await asyncio.sleep(0.02)
            assert await published(bus) == [1, *range(3, module.BATCH + 20)]

    asyncio.run(scenario())


def test_as_much_as_the_stream_takes_is_published(nats: NatsServer) -> None:
    async def scenario() -> None:
        async with nats.bus() as bus:
            event = uploaded(1)
            most = 2**20 - module_bus.HEADERS_MOST
            padding = "x" * (most - len(event.encode()))
            event = event.model_copy(update={"name": event.name + padding})
            await bus.store(event.subject, event.encode(), "1" * 100)
            assert await published(bus) == [1]
            with pytest.raises(TooLarge):
                await bus.store(event.subject, event.encode() + b" ", "2")

    asyncio.run(scenario())


class FailsOnce:
    """A bus whose stream does not confirm the first message that it is given."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._failed = False

    async def store(self, subject: str, payload: bytes, message_id: str) -> None:
        if not self._failed:
            self._failed = True
            raise ServiceUnavailable("the stream did not confirm")
        await self._bus.store(subject, payload, message_id)


def test_a_database_that_fails_for_a_moment_does_not_end_the_publisher(
    nats: NatsServer, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.05)

    class Failing(Database):
        fails = 0

        @asynccontextmanager
        async def read(self) -> AsyncGenerator[AsyncSession]:
            if self.fails:
                self.fails -= 1
                raise OperationalError("SELECT", None, Exception("the server closed"))
            async with super().read() as session:
                yield session

    async def scenario() -> None:
        async with nats.bus() as bus, opened(url) as database:
            failing = Failing(url)
            outbox = Outbox(ApiOutbox, failing, bus)
            try:
                async with outbox.publishing():
                    await asyncio.sleep(0.05)
                    failing.fails = 1
                    await asyncio.sleep(0.1)
                    await change(database, outbox, 1)
                    outbox.wake()
                    async with asyncio.timeout(0.5):
                        await emptied(database)
            finally:
                await failing.close()

    asyncio.run(scenario())


# ---- transactions


COUNT = """
import asyncio, sys
from openbell.db.models import Slot
from openbell.db.session import Database

async def count(url, times):
    database = Database(url)
    for _ in range(times):
        async with database.write() as session:
            slot = await session.get_one(Slot, "one")
            await asyncio.sleep(0)
            slot.epoch += 1
    await database.close()

asyncio.run(count(sys.argv[1], int(sys.argv[2])))
"""
"""Reads, then writes what follows from it."""


@pytest.mark.sqlite("its lock")
def test_five_processes_read_and_then_write_without_a_failure(url: str) -> None:
    processes, times = 5, 50
    asyncio.run(_add_slot(url))
    running = [
        subprocess.Popen(
            [sys.executable, "-c", COUNT, url, str(times)], stderr=subprocess.PIPE, text=True
        )
        for _ in range(processes)
    ]
    errors = [process.communicate(timeout=60)[1] for process in running]
    assert [process.returncode for process in running] == [0] * processes, errors
    assert asyncio.run(_epoch(url)) == processes * times


@pytest.mark.sqlite("its lock")
def test_five_threads_read_and_then_write_without_a_failure(url: str) -> None:
    threads, times = 5, 50
    asyncio.run(_add_slot(url))
    errors: list[BaseException] = []

    async def count() -> None:
        async with opened(url) as database:
            for _ in range(times):
                async with database.write() as session:
                    (await session.get_one(Slot, "one")).epoch += 1

    def work() -> None:
        try:
            asyncio.run(count())
        except BaseException as error:  # noqa: BLE001 - it is what the test looks for
            errors.append(error)

    running = [threading.Thread(target=work) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert errors == []
    assert asyncio.run(_epoch(url)) == threads * times


@pytest.mark.sqlite("its lock")
def test_many_tasks_of_one_process_read_and_then_write_without_a_failure(url: str) -> None:
    async def scenario() -> None:
        async with opened(url) as database:

            async def count() -> None:
                async with database.write() as session:
                    (await session.get_one(Slot, "one")).epoch += 1

            await asyncio.gather(*(count() for _ in range(100)))

    asyncio.run(_add_slot(url))
    asyncio.run(scenario())
    assert asyncio.run(_epoch(url)) == 100


def test_a_reader_is_not_held_up_by_a_writer(url: str) -> None:
    async def scenario() -> None:
        async with opened(url) as database, database.write() as session:
            (await session.get_one(Slot, "one")).epoch = 9
            await session.flush()
            async with asyncio.timeout(2), database.read() as reading:
                assert (await reading.get_one(Slot, "one")).epoch == 0

    asyncio.run(_add_slot(url))
    asyncio.run(scenario())
    assert asyncio.run(_epoch(url)) == 9


@pytest.mark.sqlite("its settings")
def test_a_commit_is_on_disk_before_it_is_answered(url: str) -> None:
    async def scenario() -> tuple[Any, Any]:
        async with opened(url) as database, database.read() as session:
            connection = await session.connection()
            return (
                (await connection.exec_driver_sql("PRAGMA journal_mode")).scalar(),
                (await connection.exec_driver_sql("PRAGMA synchronous")).scalar(),
            )

    assert asyncio.run(scenario()) == ("wal", 2)


async def _add_slot(url: str) -> None:
    async with opened(url) as database, database.write() as session:
        session.add(Slot(strategy_id="one", owner="local"))


async def _epoch(url: str) -> int:
    async with opened(url) as database, database.read() as session:
        return (await session.get_one(Slot, "one")).epoch


# ---- instants


def test_an_instant_without_a_zone_is_refused(url: str) -> None:
    naive = NOW.replace(tzinfo=None)

    async def scenario() -> None:
        async with opened(url) as database:
            with pytest.raises(StatementError, match="needs a time zone"):
                async with database.write() as session:
                    session.add(Slot(strategy_id="one", owner="local", next_start=naive))
            with pytest.raises(StatementError, match="needs a time zone"):
                async with database.read() as session:
                    await session.exec(select(Slot).where(col(Slot.next_start) < naive))

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "moment",
    [
        NOW,
        NOW.astimezone(INDIA),
        NOW.astimezone(timezone(-timedelta(hours=12))),
        NOW.replace(microsecond=999_999),
        datetime(2026, 11, 1, 1, 30, tzinfo=ZoneInfo("America/New_York"), fold=1),
        None,
    ],
    ids=str,
)
def test_an_instant_comes_back_as_the_same_one_in_utc(url: str, moment: datetime | None) -> None:
    async def scenario() -> datetime | None:
        async with opened(url) as database:
            async with database.write() as session:
                session.add(Slot(strategy_id="one", owner="local", next_start=moment))
            async with database.read() as session:
                return (await session.get_one(Slot, "one")).next_start

    found = asyncio.run(scenario())
    assert found == (moment.astimezone(UTC) if moment else None)
    assert found is None or found.tzinfo is UTC


def test_instants_of_different_zones_are_compared_as_instants(url: str) -> None:
    moments = [NOW.astimezone(INDIA), NOW + timedelta(hours=1), NOW + timedelta(microseconds=1)]

    async def scenario() -> Sequence[str]:
        async with opened(url) as database:
            async with database.write() as session:
                for number, moment in enumerate(moments):
                    session.add(Slot(strategy_id=str(number), owner="local", next_start=moment))
            async with database.read() as session:
                query = select(Slot).where(
                    col(Slot.next_start) < (NOW + timedelta(minutes=59)).astimezone(INDIA)
                )
                found = await session.exec(query.order_by(col(Slot.next_start)))
                return [slot.strategy_id for slot in found]

    assert asyncio.run(scenario()) == ["0", "2"]
