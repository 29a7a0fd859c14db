"""Variables on PostgreSQL, where what one transaction has read another may change."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest

from openbell.contracts.base import utc_now
from openbell.contracts.errors import SecretInUse, UnknownSecret
from openbell.contracts.model import Role
from openbell.db import migrate
from openbell.db.models import ApiOutbox, Strategy, User
from openbell.db.session import Database
from openbell.outbox import Outbox
from services.api.uploads import Given
from services.api.variables.keyring import Keyring
from services.api.variables.rotation import Rotation
from services.api.variables.vault import Vault
from tests.integration.test_vault import NO_BUS, act, on

pytestmark = [pytest.mark.docker]


@contextlib.asynccontextmanager
async def opened(address: str, folder: Path) -> AsyncGenerator[tuple[Vault, Rotation]]:
    """A user `ann` with a strategy `ema`."""
    await migrate.upgrade(address)
    database, keyring, now = Database(address), Keyring.of(None, folder / "keys"), utc_now()
    try:
        async with database.write() as session:
            session.add(
                User(id="ann", name="ann", name_key="ann", role=Role.TRADER, created_at=now)
            )
            session.add(
                Strategy(
                    id="ema", owner="ann", name="ema", name_key="ema", version=1, created_at=now
                )
            )
        outbox = Outbox(ApiOutbox, database, NO_BUS)
        yield Vault(database, outbox, keyring), Rotation(database, keyring)
    finally:
        await database.close()


def test_all_succeed_who_set_one_name_at_once(
    new_database: Callable[[str], str], tmp_path: Path
) -> None:
    address = new_database("one-name")

    async def scenario() -> None:
        async with opened(address, tmp_path) as (vault, rotation):
            for _ in range(5):
                await asyncio.gather(
                    *(vault.change(on("ema"), Given(secrets={"PIN": f"p{n}"})) for n in range(6)),
                    *(vault.change_own(act(), Given(parameters={"A": f"{n}"})) for n in range(6)),
                    rotation.rotate(act()),
                )
                for rows in (await vault.variables("ann", "ema"), await vault.variables("ann")):
                    assert len(rows) == 1
                await vault.change(on("ema"), Given(remove=("PIN",)))
                await vault.change_own(act(), Given(remove=("A",)))
            await rotation.start()

    asyncio.run(scenario())


def test_no_secret_is_removed_while_a_strategy_begins_to_use_it(
    new_database: Callable[[str], str], tmp_path: Path
) -> None:
    address = new_database("a-use")

    async def scenario() -> None:
        async with opened(address, tmp_path) as (vault, _):
            for _ in range(10):
                await vault.change_own(act(), Given(secrets={"kite": "kite-live"}))
                outcomes = await asyncio.gather(
                    vault.change(on("ema"), Given(uses={"KEY": "kite"})),
                    vault.change_own(act(), Given(remove=("kite",))),
                    return_exceptions=True,
                )
                refused = [type(one) for one in outcomes if isinstance(one, BaseException)]
                assert refused in ([SecretInUse], [UnknownSecret])
                await vault.change(on("ema"), Given(remove=("KEY",)))

    asyncio.run(scenario())
