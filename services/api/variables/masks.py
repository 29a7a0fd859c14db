"""What hides a strategy's secrets from those who read."""

from sqlmodel import col, select

from openbell.db.models import Variable
from openbell.db.session import Database
from openbell.redaction import Mask
from services.api.variables.keyring import Keyring
from services.api.variables.rows import OWN, SECRET
from services.api.variables.sealed import opened

MOST_MASKS = 256


class Masks:
    def __init__(self, database: Database, keyring: Keyring) -> None:
        self._database = database
        self._keyring = keyring
        self._known: dict[tuple[str, str], tuple[frozenset[str], Mask]] = {}

    async def of(self, owner: str, strategy_id: str) -> Mask:
        """Hides every secret that a run of this strategy may ever have had. Raises SealBroken.

        The same object as long as no secret was set: a value never changes, a row is made anew.
        """
        theirs = (
            Variable.owner == owner,
            col(Variable.strategy_id).in_((OWN, strategy_id)),
            Variable.kind == SECRET,
        )
        async with self._database.read() as session:
            ids = frozenset((await session.exec(select(Variable.id).where(*theirs))).all())
            known_ids, known = self._known.get((owner, strategy_id), (None, None))
            if known is not None and known_ids == ids:
                return known
            rows = (await session.exec(select(Variable).where(*theirs))).all()
        mask = Mask(opened(self._keyring, row) for row in rows)
        if len(self._known) >= MOST_MASKS:
            self._known.clear()
        self._known[owner, strategy_id] = frozenset(row.id for row in rows), mask
        return mask
