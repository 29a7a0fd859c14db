"""Migrations, on both databases: each keeps what the releases before have written."""

import asyncio
import contextlib
import sqlite3
import subprocess
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData, Table, event, insert, inspect, select
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.sql.sqltypes import NullType
from sqlmodel import SQLModel

from openbell.contracts.errors import ServiceUnavailable
from openbell.contracts.limits import RunPolicy, StopPolicy, Usage
from openbell.contracts.model import RestartPolicy
from openbell.contracts.schedules import SCHEDULE, Always, Market
from openbell.db import migrate, models
from openbell.db.session import Database, make_engine
from tests.fixtures.databases import execute, upgrade
from tests.fixtures.postgres import connect
from tests.fixtures.stack import OPENBELL

NOW = datetime(2026, 8, 3, 3, 45, 0, 123456, tzinfo=UTC)
LATER = NOW + timedelta(hours=6, microseconds=1)
BYTES = b"print('\xe2\x82\xb9')\n"
MARKET = {
    "kind": "market",
    "exchange": "NSE",
    "start": "09:15",
    "stop": "15:30",
    "weekdays": ["mon", "fri"],
}
Rows = dict[str, list[dict[str, Any]]]
T = TypeVar("T")

FIRST: Rows = {
    "strategy": [
        {
            "id": "ema-7f3k2a",
            "owner": "local",
            "name": "EMA ₹",
            "name_key": "ema ₹",
            "exchange": "NSE",
            "version": 2,
            "parameters": {"SYMBOL": "SBIN", "EMPTY": "", "RUPEE": "₹"},
            "restart": "on-failure",
            "stop_grace_s": 15.5,
            "created_at": NOW,
            "deleted_at": None,
        },
        {
            "id": "ema-old111",
            "owner": "local",
            "name": "EMA ₹",
            "name_key": "ema ₹",
            "exchange": None,
            "version": 1,
            "parameters": {},
            "restart": "never",
            "stop_grace_s": 0.0,
            "created_at": NOW,
            "deleted_at": LATER,
        },
    ],
    "version": [
        {
            "strategy_id": "ema-7f3k2a",
            "number": number,
            "sha256": f"{number:064x}",
            "filename": "ema.py",
            "size": len(BYTES),
            "source": BYTES,
            "created_at": NOW,
        }
        for number in (1, 2)
    ],
    "schedule": [
        {"strategy_id": "ema-7f3k2a", "revision": 3, "spec": MARKET, "updated_at": NOW},
        {
            "strategy_id": "ema-old111",
            "revision": 1,
            "spec": {"kind": "always"},
            "updated_at": NOW,
        },
    ],
    "slot": [
        {
            "strategy_id": "ema-7f3k2a",
            "owner": "local",
            "epoch": 7,
            "state": "held",
            "runner": "local",
            "run_id": "ema-7f3k2a-7",
            "intent": "auto",
            "intent_at": NOW,
            "failures": 2,
            "retry_at": LATER,
            "gave_up": False,
            "waiting": "the runner does not answer",
            "next_start": LATER,
            "next_stop": None,
            "outlook": "open",
            "outlook_reason": "inside its window on NSE",
        },
        {
            "strategy_id": "ema-old111",
            "owner": "local",
            "epoch": 0,
            "state": "free",
            "runner": None,
            "run_id": None,
            "intent": "stop",
            "intent_at": None,
            "failures": 10,
            "retry_at": None,
            "gave_up": True,
            "waiting": None,
            "next_start": None,
            "next_stop": None,
            "outlook": "none",
            "outlook_reason": "",
        },
    ],
    "run": [
        {
            "id": f"ema-7f3k2a-{epoch}",
            "strategy_id": "ema-7f3k2a",
            "owner": "local",
            "epoch": epoch,
            "runner": "local",
            "state": state,
            "cause": "schedule",
            "version": 1,
            "granted_at": NOW,
            "due_at": NOW,
            "started_at": NOW,
            "stop_reason": None,
            "exited_at": exited_at,
            "exit_code": exit_code,
            "signal": None,
            "reason": reason,
            "detail": detail,
        }
        for epoch, state, exited_at, exit_code, reason, detail in (
            (6, "exited", LATER, 3, "crashed", "no contract for today: ₹"),
            (7, "running", None, None, None, None),
        )
    ],
    "occurrence": [
        {
            "strategy_id": "ema-7f3k2a",
            "instant": NOW,
            "action": action,
            "state": "done",
            "attempts": 1,
            "schedule_revision": 3,
            "late_s": late_s,
            "detail": None,
            "updated_at": NOW,
        }
        for action, late_s in (("start", 0.25), ("stop", None))
    ],
    "feed_position": [{"stream": "OPENBELL_RUNNERS", "incarnation": "abc", "sequence": 41}],
    "outbox_api": [{"message_id": "m1", "subject": "openbell.v1.event.x", "payload": b"{}"}],
    "outbox_scheduler": [{"message_id": "m2", "subject": "openbell.v1.event.y", "payload": b"\0"}],
}

SECOND: Rows = {
    "user": [
        {
            "id": "u1",
            "name": "Ann",
            "name_key": "ann",
            "role": "trader",
            "password_hash": "$argon2id$x",
            "created_at": NOW,
            "disabled_at": LATER,
        }
    ],
    "session": [
        {
            "id": "s1",
            "user_id": "u1",
            "token_hash": b"\x01" * 32,
            "address": "127.0.0.1",
            "agent": "Firefox",
            "created_at": NOW,
            "seen_at": LATER,
            "expires_at": LATER,
        }
    ],
    "api_token": [
        {
            "id": "t1",
            "user_id": "u1",
            "name": "ci",
            "token_hash": b"\x02" * 32,
            "scopes": ["read", "operate"],
            "created_at": NOW,
            "expires_at": None,
        }
    ],
    "invitation": [
        {
            "id": "i1",
            "token_hash": b"\x03" * 32,
            "role": "viewer",
            "user_id": None,
            "created_by": "local",
            "created_at": NOW,
            "expires_at": LATER,
        }
    ],
    "share": [
        {
            "strategy_id": "ema-7f3k2a",
            "user_id": "u1",
            "permission": "operator",
            "created_at": NOW,
        }
    ],
    "variable": [
        {
            "id": "v1",
            "owner": "u1",
            "strategy_id": "",
            "name": "zerodha-live",
            "kind": "secret",
            "source": None,
            "sealed": b"\x01\x00sealed",
            "updated_at": NOW,
            "retired_at": None,
        }
    ],
    "audit_entry": [
        {
            "at": NOW,
            "request": "r1",
            "user_id": "u1",
            "user_name": "Ann",
            "credential": "t1",
            "address": "127.0.0.1",
            "action": "stop",
            "outcome": "done",
            "owner": "local",
            "strategy_id": "ema-7f3k2a",
            "before": {"status": "running"},
            "after": None,
            "detail": None,
        }
    ],
}
ADDED = {
    "slot": {
        "schedule_at",
        "warning",
        "accounted_until",
        "waiting_since",
        "working_memory_bytes",
    },
    "run": {
        "headline",
        "last_lines",
        "peak_memory_bytes",
        "cpu_s",
        "expected_memory_bytes",
        "working_memory_bytes",
    },
}
"""Columns that came later, empty for what was there."""


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.docker)])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of an empty database, of either kind."""
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path / 'openbell.db'}"
    make: Callable[[str], str] = request.getfixturevalue("new_database")
    return make(f"migrations-{tmp_path.name}")


@pytest.fixture
def url(address: str) -> str:
    """Of a database with this release's tables, and no rows."""
    asyncio.run(migrate.upgrade(address))
    return address


def on(url: str, work: Callable[[Connection], T]) -> T:
    async def run() -> T:
        engine = make_engine(url)
        try:
            async with engine.begin() as connection:
                return await connection.run_sync(work)
        finally:
            await engine.dispose()

    return asyncio.run(run())


def differences(url: str) -> list[Any]:
    """What the models have and the tables have not, or the other way round."""

    def compare(connection: Connection) -> list[Any]:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return compare_metadata(context, SQLModel.metadata)

    return on(url, compare)


def tables(connection: Connection) -> dict[str, Table]:
    """As the database itself describes them."""
    found = MetaData()
    found.reflect(connection)
    unknown = [
        column for table in found.sorted_tables for column in table.columns
        if isinstance(column.type, NullType)
    ]  # fmt: skip
    assert unknown == []
    return {name: table for name, table in found.tables.items() if name != "alembic_version"}


def insert_all(url: str, rows: Rows) -> None:
    def work(connection: Connection) -> None:
        known = tables(connection)
        for name, of_it in rows.items():
            connection.execute(insert(known[name]), of_it)

    on(url, work)


def all_rows(url: str) -> Rows:
    """Each with its columns; without the numbers that the database gives."""

    def work(connection: Connection) -> Rows:
        return {
            name: [_plain(row) for row in connection.execute(select(table)).mappings()]
            for name, table in tables(connection).items()
        }

    return on(url, work)


def _plain(row: Mapping[Any, Any]) -> dict[str, Any]:
    numbered = "request" in row or "message_id" in row
    return {str(k): _aware(v) for k, v in row.items() if not (numbered and k == "id")}


def _aware(value: Any) -> Any:
    """SQLite forgets the zone."""
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    return value


def by_key(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=repr)


def columns_of(rows: Rows, names: Rows) -> Rows:
    """As much of the rows as had been written."""
    return {
        table: by_key([{name: row[name] for name in written[0]} for row in rows[table]])
        for table, written in names.items()
    }


def sorted_rows(rows: Rows) -> Rows:
    return {name: by_key(of_it) for name, of_it in rows.items()}


def without_parameters(rows: Rows) -> Rows:
    """As the second migration leaves them: parameters are variables of their own."""
    kept = [{k: v for k, v in row.items() if k != "parameters"} for row in rows["strategy"]]
    return rows | {"strategy": kept}


def without_policy(rows: Rows) -> Rows:
    """As the fourth migration leaves them: what was said of a strategy's runs is in one column."""
    moved = {"restart", "stop_grace_s"}
    kept = [{k: v for k, v in row.items() if k not in moved} for row in rows["strategy"]]
    return rows | {"strategy": kept}


def test_there_are_rows_for_every_table(address: str) -> None:
    upgrade(address, "0001")
    assert set(on(address, tables)) == set(FIRST)
    upgrade(address, "0002")
    assert set(on(address, tables)) == {*FIRST, *SECOND}


def test_what_the_first_release_wrote_is_kept_through_all_migrations(address: str) -> None:
    upgrade(address, "0001")
    insert_all(address, FIRST)
    assert sorted_rows(all_rows(address)) == sorted_rows(FIRST)

    upgrade(address, "0002")
    second = all_rows(address)
    kept = without_parameters(FIRST)
    assert columns_of(second, kept) == sorted_rows(kept)
    found = {(one["owner"], one["strategy_id"], one["name"], one["kind"], one["sealed"])
             for one in second["variable"]}  # fmt: skip
    assert found == {
        ("local", "ema-7f3k2a", "SYMBOL", "parameter", b"\0SBIN"),
        ("local", "ema-7f3k2a", "EMPTY", "parameter", b"\0"),
        ("local", "ema-7f3k2a", "RUPEE", "parameter", "\0₹".encode()),
    }
    assert [(user["id"], user["role"]) for user in second["user"]] == [("local", "admin")]
    insert_all(address, SECOND)
    before = all_rows(address)

    asyncio.run(migrate.upgrade(address))
    asyncio.run(migrate.require_current(address))
    after = all_rows(address)
    kept = without_policy(before)
    assert columns_of(after, before_columns(kept)) == sorted_rows(kept)
    assert {row["id"]: row["policy"] for row in after["strategy"]} == {
        "ema-7f3k2a": {"stop": {"grace_s": 15.5}},
        "ema-old111": {"stop": {"grace_s": 0.0}, "restart": "never"},
    }
    assert after["calendar_override"] == []
    for name, columns in ADDED.items():
        assert {row[column] for row in after[name] for column in columns} == {None}
    assert differences(address) == []


def before_columns(rows: Rows) -> Rows:
    return {name: of_it[:1] for name, of_it in rows.items() if of_it}


def test_this_release_reads_and_changes_what_was_kept(address: str) -> None:
    upgrade(address, "0001")
    insert_all(address, FIRST)
    upgrade(address, "0002")
    insert_all(address, SECOND)
    asyncio.run(migrate.upgrade(address))

    async def scenario() -> None:
        database = Database(address)
        async with database.read() as session:
            run = await session.get_one(models.Run, "ema-7f3k2a-6")
            assert (run.exited_at, run.exit_code, run.decisive_reason) == (LATER, 3, "crashed")
            assert run.usage == Usage()
            strategy = await session.get_one(models.Strategy, "ema-old111")
            assert strategy.policy == RunPolicy(
                stop=StopPolicy(grace_s=0), restart=RestartPolicy.NEVER
            )
            assert (await session.get_one(models.Version, ("ema-7f3k2a", 2))).source == BYTES
            kept = await session.get_one(models.ScheduleRow, "ema-7f3k2a")
            market = SCHEDULE.validate_python(kept.spec)
            assert isinstance(market, Market)
            assert market.weekdays == {"mon", "fri"}
            always = await session.get_one(models.ScheduleRow, "ema-old111")
            assert isinstance(SCHEDULE.validate_python(always.spec), Always)
            assert (await session.get_one(models.ApiToken, "t1")).scopes == ["read", "operate"]
            occurrence = await session.get_one(models.Occurrence, ("ema-7f3k2a", NOW, "start"))
            assert occurrence.late_s == 0.25
        async with database.write() as session:
            slot = await session.get_one(models.Slot, "ema-7f3k2a")
            assert (slot.gave_up, slot.retry_at, slot.accounted_until) == (False, LATER, None)
            slot.accounted_until = LATER
            # the next number, not one of those that are there
            session.add(models.ApiOutbox(message_id="m3", subject="s", payload=b""))
            session.add(models.SchedulerOutbox(message_id="m4", subject="s", payload=b""))
        async with database.read() as session:
            slot = await session.get_one(models.Slot, "ema-7f3k2a")
            assert slot.accounted_until == LATER
        await database.close()

    asyncio.run(scenario())
    assert [row["message_id"] for row in all_rows(address)["outbox_api"]] == ["m1", "m3"]


@pytest.mark.parametrize(
    "change", ["UPDATE audit_entry SET user_name = 'x'", "DELETE FROM audit_entry"]
)
def test_the_audit_stays_append_only(address: str, change: str) -> None:
    upgrade(address, "0002")
    insert_all(address, SECOND)
    asyncio.run(migrate.upgrade(address))
    with pytest.raises((IntegrityError, DBAPIError), match="never changed"):
        execute(address, change)


def test_names_stay_unique_among_what_is_not_deleted(address: str) -> None:
    upgrade(address, "0001")
    insert_all(address, FIRST)
    asyncio.run(migrate.upgrade(address))
    with pytest.raises(IntegrityError):
        execute(address, "UPDATE strategy SET deleted_at = NULL")


# ---- the schema


def test_head_is_the_newest_migration() -> None:
    scripts = ScriptDirectory.from_config(migrate.config())
    assert scripts.get_heads() == [migrate.HEAD]


def test_the_migrations_make_what_the_models_say(url: str) -> None:
    assert differences(url) == []


@pytest.mark.parametrize(
    "statement",
    [
        "DROP INDEX ix_strategy_name",
        "ALTER TABLE slot DROP COLUMN waiting",
        "ALTER TABLE run ADD COLUMN colour VARCHAR",
        "DROP TABLE outbox_api",
    ],
)
def test_a_difference_would_be_found(url: str, statement: str) -> None:
    execute(url, statement)
    assert len(differences(url)) == 1


def test_a_migration_may_be_repeated_and_keeps_the_rows(url: str) -> None:
    insert_all(url, SECOND)
    rows = all_rows(url)
    asyncio.run(migrate.upgrade(url))
    asyncio.run(migrate.upgrade(url))
    assert all_rows(url) == rows
    asyncio.run(migrate.require_current(url))


@pytest.mark.docker
def test_several_that_migrate_at_once_do_it_once(
    new_database: Callable[[str], str], tmp_path: Path
) -> None:
    """All have begun, and are held up at the same place, before any goes on."""
    address = new_database(f"migrations-{tmp_path.name}")
    command = [OPENBELL, "migrate", "--home", str(tmp_path), "--database-url", address]
    held_up = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )

    async def scenario() -> list[subprocess.Popen[str]]:
        connection, looking = await connect(address), await connect(address)
        begun = connection.transaction()
        await begun.start()
        await connection.execute("CREATE TABLE alembic_version (version_num VARCHAR(32))")
        at_once = [
            subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            for _ in range(3)
        ]
        async with asyncio.timeout(60):
            while await looking.fetchval(held_up) < len(at_once):
                await asyncio.sleep(0.02)
        await begun.rollback()
        await connection.close()
        await looking.close()
        return at_once

    at_once = asyncio.run(scenario())
    told = [process.communicate(timeout=60)[1] for process in at_once]
    assert [process.returncode for process in at_once] == [0, 0, 0], told
    assert differences(address) == []


@pytest.mark.parametrize(
    ("revision", "advice"),
    [
        (None, "run `openbell migrate`"),
        ("0000", "run `openbell migrate`"),
        ("9999", "of a newer release"),
    ],
)
def test_another_schema_is_refused_with_what_to_do(
    address: str, revision: str | None, advice: str
) -> None:
    if revision is not None:
        asyncio.run(migrate.upgrade(address))
        execute(address, "UPDATE alembic_version SET version_num = :it", it=revision)
    with pytest.raises(ServiceUnavailable, match=advice) as caught:
        asyncio.run(migrate.require_current(address))
    assert str(revision) in caught.value.detail
    assert migrate.HEAD in caught.value.detail


class _Killed(Exception):
    pass


@pytest.mark.parametrize(
    "at",
    [
        *("CREATE TABLE share", "DROP COLUMN parameters", "calendar_override"),
        *("UPDATE strategy SET policy", "DROP COLUMN restart", "ADD COLUMN out_of_memory"),
    ],
)
def test_a_migration_that_was_killed_half_way_leaves_all_as_it_was(address: str, at: str) -> None:
    upgrade(address, "0001")
    insert_all(address, FIRST)
    before = all_rows(address)

    def kill(*arguments: Any) -> None:
        if at in arguments[2]:
            raise _Killed

    event.listen(Engine, "before_cursor_execute", kill)
    try:
        with pytest.raises(_Killed):
            asyncio.run(migrate.upgrade(address))
    finally:
        event.remove(Engine, "before_cursor_execute", kill)
    assert all_rows(address) == before
    asyncio.run(migrate.upgrade(address))
    assert differences(address) == []


def test_a_first_migration_that_was_killed_half_way_can_be_repeated(address: str) -> None:
    def kill(*arguments: Any) -> None:
        if "CREATE TABLE run" in arguments[2]:
            raise _Killed

    event.listen(Engine, "before_cursor_execute", kill)
    try:
        with pytest.raises(_Killed):
            asyncio.run(migrate.upgrade(address))
    finally:
        event.remove(Engine, "before_cursor_execute", kill)
    assert on(address, lambda it: inspect(it).get_table_names()) == []
    asyncio.run(migrate.upgrade(address))
    assert differences(address) == []


@pytest.mark.sqlite("its write-ahead log")
def test_a_migrated_database_is_in_wal_mode_before_any_service_opens_it(tmp_path: Path) -> None:
    file = tmp_path / "new.db"
    asyncio.run(migrate.upgrade(f"sqlite+aiosqlite:///{file}"))
    with contextlib.closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
