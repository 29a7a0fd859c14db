"""What must be hidden from those who read a strategy's logs."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlmodel import col, select

from openbell.db.models import Variable
from openbell.db.session import Database
from services.api.variables.keyring import Keyring
from services.api.variables.rows import OWN, SECRET
from services.api.variables.sealed import opened

MOST_KNOWN = 256


@dataclass(frozen=True, slots=True)
class Secrets:
    """Every secret that a run of a strategy may have had, but for what the vault has forgotten."""

    version: str
    values: tuple[str, ...]


class Masks:
    def __init__(self, database: Database, keyring: Keyring) -> None:
        self._database = database
        self._keyring = keyring
        self._known: dict[tuple[str, str], Secrets] = {}

    async def version(self, owner: str, strategy_id: str) -> str:
        """Another one as soon as a secret was set: a value never changes, a row is made anew."""
        async with self._database.read() as session:
            ids = (
                await session.exec(select(Variable.id).where(*_theirs(owner, strategy_id)))
            ).all()
        return _version(ids)

    async def of(self, owner: str, strategy_id: str) -> Secrets:
        """Raises SealBroken."""
        known = self._known.get((owner, strategy_id))
        if known is not None and known.version == await self.version(owner, strategy_id):
            return known
        async with self._database.read() as session:
            rows = (await session.exec(select(Variable).where(*_theirs(owner, strategy_id)))).all()
        values = {opened(self._keyring, row) for row in rows}
        found = Secrets(_version(row.id for row in rows), tuple(sorted(values)))
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()
        self._known[owner, strategy_id] = found
        return found


def _theirs(owner: str, strategy_id: str) -> tuple[Any, ...]:
    return (
        Variable.owner == owner,
        col(Variable.strategy_id).in_((OWN, strategy_id)),
        Variable.kind == SECRET,
    )


def _version(ids: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(sorted(ids)).encode()).hexdigest()[:32]
