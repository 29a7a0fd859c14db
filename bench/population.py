"""A home with many users and strategies, written into its database before Openbell starts."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

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


def populate(home: Path, *, users: int, strategies: int, source: bytes = b"print(1)\n") -> None:
    """Strategy n is user n % users's; each second one has a schedule."""
    settings = Settings(home=home)
    settings.data.mkdir(mode=0o700, parents=True)
    asyncio.run(_write(settings.database_url, users, strategies, source))


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
        sha256="0" * 64,
        filename="s.py",
        size=len(source),
        source=source,
        created_at=NOW,
    )
    schedule = ScheduleRow(strategy_id=strategy_id, revision=1, spec=MARKET, updated_at=NOW)
    return [strategy, version, *([schedule] if number % 2 else [])]
