"""A home with many users and strategies, written into its database before Openbell starts."""

import asyncio
import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from sqlmodel import col, delete, select

from openbell.contracts.limits import RunPolicy
from openbell.contracts.model import RestartPolicy, Role, Scope
from openbell.db.migrate import upgrade
from openbell.db.models import ApiToken, ScheduleRow, Strategy, User, Version
from openbell.db.session import Database
from openbell.identity import digest
from openbell.settings import Settings

NOW = datetime(2026, 8, 3, 3, 45, tzinfo=UTC)
MARKET = {
    "kind": "market",
    "exchange": "NSE",
    "start": "09:15:00",
    "stop": "15:30:00",
    "weekdays": ["mon", "tue", "wed", "thu", "fri"],
}
CHUNK = 1000


def token_of(user: int) -> str:
    return f"obt_user{user}"


def strategy_of(number: int) -> str:
    return f"strategy-{number:06}"


def always(home: Path, several: int) -> None:
    """The first ones are to run at all times, and nothing else."""
    asyncio.run(_always(Settings(home=home).database_url, several))


async def _always(url: str, several: int) -> None:
    now = datetime.now(UTC)
    database = Database(url)
    async with database.write() as session:
        await session.exec(delete(ScheduleRow))
        for number in range(several):
            row = ScheduleRow(
                strategy_id=strategy_of(number), revision=1, spec={"kind": "always"}, updated_at=now
            )
            session.add(row)
    await database.close()


def populate(home: Path, *, users: int, strategies: int, source: bytes = b"print(1)\n") -> None:
    """Strategy n is user n % users's; each second one has a schedule."""
    settings = Settings(home=home)
    settings.data.mkdir(mode=0o700, parents=True)
    asyncio.run(_write(settings.database_url, users, strategies, source))


def schedule_once(home: Path, at: float, source: Callable[[int], bytes]) -> None:
    """Every strategy once at this instant (Unix time), and nothing else; each with a source of its
    own, by its number.
    """
    asyncio.run(_schedule(Settings(home=home).database_url, at, source))


async def _schedule(url: str, at: float, source: Callable[[int], bytes]) -> None:
    now = datetime.now(UTC)
    instant = datetime.fromtimestamp(at, UTC).isoformat()
    spec = {"kind": "once", "timezone": None, "at": instant, "stop": None}
    spec |= {"catch_up": "start", "max_runtime": None}
    database = Database(url)
    async with database.write() as session:
        await session.exec(delete(ScheduleRow))
        versions = await session.exec(select(Version).order_by(col(Version.strategy_id)))
        for number, version in enumerate(versions.all()):
            version.source = source(number)
            version.sha256 = hashlib.sha256(version.source).hexdigest()
            version.size = len(version.source)
            row = ScheduleRow(
                strategy_id=version.strategy_id, revision=1, spec=spec, updated_at=now
            )
            session.add_all([version, row])
    await database.close()


async def _write(url: str, users: int, strategies: int, source: bytes) -> None:
    await upgrade(url)
    database = Database(url)
    async with database.write() as session:
        for user in range(users):
            session.add_all(_user(user))
    for start in range(0, strategies, CHUNK):
        async with database.write() as session:
            for number in range(start, min(start + CHUNK, strategies)):
                session.add_all(_strategy(number, number % users, source))
    await database.close()


def _user(user: int) -> list[User | ApiToken]:
    name = f"user{user}"
    account = User(id=name, name=name, name_key=name, role=Role.TRADER, created_at=NOW)
    token = ApiToken(
        id=f"t{user}",
        user_id=name,
        name="bench",
        token_hash=digest(token_of(user)),
        scopes=list(Scope),
        created_at=NOW,
    )
    return [account, token]


def _strategy(number: int, user: int, source: bytes) -> list[Strategy | Version | ScheduleRow]:
    strategy_id, name = strategy_of(number), f"Strategy {number:06}"
    strategy = Strategy(
        id=strategy_id,
        owner=f"user{user}",
        name=name,
        name_key=name.casefold(),
        version=1,
        policy=RunPolicy(restart=RestartPolicy.NEVER),
        created_at=NOW,
    )
    version = Version(
        strategy_id=strategy_id,
        number=1,
        sha256=hashlib.sha256(source).hexdigest(),
        filename="s.py",
        size=len(source),
        source=source,
        created_at=NOW,
    )
    schedule = ScheduleRow(strategy_id=strategy_id, revision=1, spec=MARKET, updated_at=NOW)
    return [strategy, version, *([schedule] if number % 2 else [])]
