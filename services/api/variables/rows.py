"""The rows of variables: which there are, who waits for whom, what may be told of them."""

from collections.abc import Iterable, Sequence

from sqlalchemy import text
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from openbell.contracts.model import VariableKind
from openbell.db.models import User, Variable

OWN = ""
"""The strategy of what is a user's own."""
LOCK = 0x6F70656E62656C6C

PARAMETER, SECRET, USE = VariableKind.PARAMETER, VariableKind.SECRET, VariableKind.USE


async def current(session: AsyncSession, owner: str, strategy_id: str) -> dict[str, Variable]:
    query = select(Variable).where(
        Variable.owner == owner,
        Variable.strategy_id == strategy_id,
        col(Variable.retired_at).is_(None),
    )
    return {row.name: row for row in (await session.exec(query)).all()}


async def retired(session: AsyncSession, owner: str, strategy_id: str) -> Sequence[Variable]:
    """Newest first."""
    query = (
        select(Variable)
        .where(
            Variable.owner == owner,
            Variable.strategy_id == strategy_id,
            col(Variable.retired_at).is_not(None),
        )
        .order_by(col(Variable.retired_at).desc(), Variable.id)
    )
    return (await session.exec(query)).all()


async def lock_owner(session: AsyncSession, owner: str) -> None:
    """One at a time changes what a user and their strategies have.

    Else two would make the same name anew, or one would take away the secret that the other just
    begins to use. On SQLite every transaction that writes waits for the other.
    """
    await session.get(User, owner, with_for_update=True)


async def lock_keys(session: AsyncSession, *, exclusive: bool) -> None:
    """Whoever seals, or drops keys, waits for the other. On SQLite every transaction does."""
    connection = await session.connection()
    if connection.dialect.name == "postgresql":
        verb = "pg_advisory_xact_lock" if exclusive else "pg_advisory_xact_lock_shared"
        await connection.execute(text(f"SELECT {verb}({LOCK})"))


def names(rows: Iterable[Variable]) -> dict[str, object]:
    """What the audit may tell."""
    kept = list(rows)
    told = {
        "parameters": sorted(row.name for row in kept if row.kind == PARAMETER),
        "secrets": sorted(row.name for row in kept if row.kind == SECRET),
        "uses": {row.name: row.source for row in kept if row.kind == USE},
    }
    return {kind: names for kind, names in told.items() if names}
