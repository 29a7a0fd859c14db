"""Changes the keys under which variables are sealed."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy import ColumnElement, LargeBinary, func
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from openbell.contracts.errors import ServiceUnavailable
from openbell.db.models import Variable
from openbell.db.session import Database
from services.api.acts import Act
from services.api.audit import DONE, REQUESTED, entry
from services.api.variables.keyring import SEALED, Keyring
from services.api.variables.rows import lock_keys
from services.api.variables.sealed import reseal

BATCH = 100

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Resealed:
    """What came of sealing everything under the newest key."""

    resealed: int
    broken: int
    """Values that no key opens: tampered with, or their key is lost."""


class Rotation:
    def __init__(self, database: Database, keyring: Keyring) -> None:
        self._database = database
        self._keyring = keyring

    @property
    def makes_keys(self) -> bool:
        return self._keyring.can_grow

    async def start(self) -> None:
        """What is due before anything is served: to end a rotation that was killed.

        Raises ServiceUnavailable when there are values, and not one of them is sealed under a key
        that we know: the keys are lost, or another host's. What we would seal under them nobody
        else could open, and the logs of every strategy with a secret would be withheld.
        """
        async with self._database.read() as session:
            foreign = await _any(session, SEALED) and not [
                head for head in self._keyring.heads if await _any(session, head)
            ]
        if foreign:
            raise ServiceUnavailable(
                f"no value of a variable opens under the keys of {self._keyring.place}: they are"
                " lost, or another host's. Restore them from a backup; to go on without the"
                " values, empty the database's table `variable`, and set them again"
            )
        await self.reseal()

    async def rotate(self, act: Act) -> Resealed:
        """Seal everything under a new key; with keys of the environment, under its newest.

        Killed in between, all keys that are needed are there, and the next start goes on.
        """
        async with self._database.write() as session:
            session.add(entry(act, REQUESTED))
        if self._keyring.can_grow:
            self._keyring.add()
        done = await self.reseal()
        after = {"resealed": done.resealed, "broken": done.broken}
        async with self._database.write() as session:
            session.add(entry(act, DONE, after=after))
        return done

    async def reseal(self) -> Resealed:
        """Seal under the newest key what is not, then drop the older keys.

        They go in a transaction that finds nothing left which needs them, and which whoever seals
        waits for: nobody can still be about to commit what only a dropped key opens.
        """
        resealed, broken = 0, set[str]()
        while True:
            async with self._database.write() as session:
                await lock_keys(session, exclusive=True)
                self._keyring.refresh()
                head = self._keyring.head
                rows = await _not_under(session, head, broken)
                if not rows:
                    if not broken:
                        self._keyring.drop_older(head)
                    break
                for row in rows:
                    if reseal(self._keyring, row):
                        session.add(row)
                        resealed += 1
                    else:
                        broken.add(row.id)
        if broken:
            log.error("values of variables cannot be opened by any key", count=len(broken))
        return Resealed(resealed, len(broken))


def _beginning(length: int) -> ColumnElement[bytes]:
    return func.substr(col(Variable.sealed), 1, length, type_=LargeBinary)


async def _any(session: AsyncSession, head: bytes) -> bool:
    """Whether a value begins so."""
    query = select(Variable.id).where(_beginning(len(head)) == head).limit(1)
    return (await session.exec(query)).first() is not None


async def _not_under(
    session: AsyncSession, head: bytes, apart_from: Collection[str]
) -> Sequence[Variable]:
    query = (
        select(Variable)
        .where(
            func.length(col(Variable.sealed)) > 0,
            _beginning(len(head)) != head,
            col(Variable.id).not_in(apart_from),
        )
        .limit(BATCH)
    )
    return (await session.exec(query)).all()
