"""Brings a database to this release's schema."""

from pathlib import Path
from typing import Any

from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import DBAPIError

from openbell.contracts.errors import ServiceUnavailable
from openbell.db.session import IMMEDIATE, make_engine

HEAD = "0006"
"""The newest migration; known here so that an up-to-date start need not load Alembic."""
LOCK = 0x4F42_4D49
"""Any number that nobody else locks by."""
MIGRATIONS = Path(__file__).with_name("migrations")


async def upgrade(url: str) -> None:
    """Apply the missing migrations. Safe to repeat."""
    engine = make_engine(url).execution_options(**IMMEDIATE)  # all of it, or none
    try:
        async with engine.begin() as connection:
            if engine.dialect.name == "postgresql":  # two at once: the second finds it done
                await connection.execute(text(f"SELECT pg_advisory_xact_lock({LOCK})"))
            if await connection.run_sync(_revision) != HEAD:
                await connection.run_sync(_upgrade)
    finally:
        await engine.dispose()


async def require_current(url: str) -> None:
    """Raise ServiceUnavailable unless the schema is this release's."""
    engine = make_engine(url)
    try:
        async with engine.connect() as connection:
            revision = await connection.run_sync(_revision)
    except DBAPIError as error:
        raise ServiceUnavailable(
            f"the database cannot be opened: {error.orig}; if it is new, run `openbell migrate`"
        ) from None
    finally:
        await engine.dispose()
    if revision == HEAD:
        return
    if revision is not None and revision > HEAD:
        raise ServiceUnavailable(
            f"the database is at migration {revision}, of a newer release; this one knows {HEAD}"
        )
    raise ServiceUnavailable(
        f"the database is at migration {revision}, this release needs {HEAD}:"
        " run `openbell migrate`"
    )


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _upgrade(connection: Connection) -> None:
    from alembic import command  # noqa: PLC0415 - needed only when there is work

    command.upgrade(config(connection), "head")


def config(connection: Connection | None = None) -> Any:
    """Alembic's own configuration, for its commands."""
    from alembic.config import Config  # noqa: PLC0415

    configured = Config()
    configured.set_main_option("script_location", str(MIGRATIONS))
    configured.attributes["connection"] = connection
    return configured
