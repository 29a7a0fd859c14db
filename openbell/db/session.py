"""Connections: SQLite on one host, PostgreSQL beyond."""

import contextlib
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from sqlalchemy import Connection, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlmodel.ext.asyncio.session import AsyncSession

IMMEDIATE: dict[str, Any] = {"openbell_immediate": True}


class Database:
    """Reads and writes apart, since on SQLite a write must say so when it begins.

    A transaction that reads first and writes later fails on SQLite when another has written in
    between, whatever the timeout; `BEGIN IMMEDIATE` takes the write lock at once, and waits.
    """

    def __init__(self, url: str) -> None:
        self._engine = make_engine(url)
        self._writing = self._engine.execution_options(**IMMEDIATE)

    @contextlib.asynccontextmanager
    async def read(self) -> AsyncGenerator[AsyncSession]:
        async with AsyncSession(self._engine, expire_on_commit=False) as session:
            yield session

    @contextlib.asynccontextmanager
    async def write(self) -> AsyncGenerator[AsyncSession]:
        """One short transaction: committed at the end, rolled back on an exception."""
        async with (
            AsyncSession(self._writing, expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session

    async def close(self) -> None:
        await self._engine.dispose()


async def all_rows(session: AsyncSession, query: Any, **values: Any) -> Sequence[Any]:
    """The rows of a query over many tables, which the type checker cannot follow.

    Of one that is asked often: built once, with `values` for what differs. To build it takes as
    long as to ask.
    """
    untyped: Any = session
    return (await untyped.exec(query, params=values or None)).all()


def make_engine(url: str) -> AsyncEngine:
    """For SQLite: write-ahead log, every commit on disk, transactions begun as they say."""
    if not url.startswith("sqlite"):
        return create_async_engine(url, pool_pre_ping=True)
    engine = create_async_engine(url, connect_args={"timeout": 30})

    @event.listens_for(engine.sync_engine, "connect")
    def configure(connection: Any, _record: object) -> None:  # pyright: ignore[reportUnusedFunction]
        connection.isolation_level = None  # transactions are begun below, not by the driver
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Connection) -> None:  # pyright: ignore[reportUnusedFunction]
        immediate = connection.get_execution_options().get("openbell_immediate")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    return engine
