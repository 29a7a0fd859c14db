"""Hands a run's variables to the runner that holds it, and to nobody else."""

import asyncio
import base64
from collections.abc import Iterable, Mapping, Sequence

from sqlmodel import col, select

from openbell import sealing
from openbell.bus import Bus
from openbell.contracts.commands import GetRunEnvironment, RunEnvironment, RunVariables
from openbell.contracts.errors import ServiceUnavailable, TooLarge, UnknownRun, UnknownSecret
from openbell.db.models import Run, Variable
from openbell.db.session import Database
from services.api.variables.keyring import Keyring
from services.api.variables.rows import OWN, PARAMETER, SECRET, USE
from services.api.variables.sealed import opened

MOST_DELIVERED = 512 * 1024
"""Bytes of all variables of a run: what a message holds, and a process takes."""


class Delivery:
    def __init__(self, bus: Bus, database: Database, keyring: Keyring) -> None:
        self._bus = bus
        self._database = database
        self._keyring = keyring

    async def answer(self, command: GetRunEnvironment) -> RunEnvironment:
        """Sealed to the key that the run's runner announced: a key in the question counts nothing.

        Raises UnknownRun, UnknownSecret, SealBroken, TooLarge, ServiceUnavailable.
        """
        found, runner = await asyncio.gather(
            self.for_run(command.run_id, command.epoch, command.runner),
            self._bus.runner(command.runner),
        )
        if runner is None:
            raise ServiceUnavailable(f"the runner {command.runner} has not announced itself")
        purpose = sealing.for_run(command.run_id, command.epoch)
        sealed = sealing.seal(found.encode(), runner.public_key, purpose)
        return RunEnvironment(sealed=base64.b64encode(sealed))

    async def for_run(self, run_id: str, epoch: int, runner: str) -> RunVariables:
        """What a live run on this runner is to see. Raises UnknownRun, UnknownSecret, SealBroken,
        TooLarge.
        """
        async with self._database.read() as session:
            run = await session.get(Run, run_id)
            if run is None or not run.live or (run.epoch, run.runner) != (epoch, runner):
                raise UnknownRun(f"{run_id[:100]} is not live on this runner")
            query = select(Variable).where(
                Variable.owner == run.owner,
                col(Variable.strategy_id).in_((OWN, run.strategy_id)),
                col(Variable.retired_at).is_(None) | (col(Variable.retired_at) >= run.granted_at),
            )
            rows = (await session.exec(query)).all()
        return self._composed(rows)

    def _composed(self, rows: Sequence[Variable]) -> RunVariables:
        own = [row for row in rows if row.strategy_id == OWN]
        theirs = [row for row in rows if row.strategy_id != OWN]
        secrets = {row.name: row for row in own if row.kind == SECRET and row.retired_at is None}
        values = {
            row.name: opened(self._keyring, row)
            for row in (*own, *theirs)
            if row.retired_at is None and (row.kind == PARAMETER or row.strategy_id != OWN)
            if row.kind != USE
        }
        hidden: set[str] = set()
        for row in theirs:
            if row.retired_at is None and row.kind != PARAMETER:
                hidden.add(row.name)
                if row.kind == USE:
                    values[row.name] = opened(self._keyring, _used(secrets, row))
        earlier = self._earlier(own, theirs) - {values[name] for name in hidden}
        size = sum(len(name) + len(value.encode()) for name, value in values.items())
        size += sum(len(value.encode()) for value in earlier)
        if size > MOST_DELIVERED:
            raise TooLarge(f"the variables have {size} bytes; at most {MOST_DELIVERED} are handed")
        return RunVariables(
            variables=values, secrets=frozenset(hidden), earlier=tuple(sorted(earlier))
        )

    def _earlier(self, own: Iterable[Variable], theirs: Iterable[Variable]) -> set[str]:
        """What a run may know that was granted before these rows were retired."""
        sources = {row.source for row in theirs if row.kind == USE}
        known = [
            *(row for row in theirs if row.kind == SECRET and row.retired_at is not None),
            *(row for row in own if row.kind == SECRET and row.name in sources),
        ]
        return {opened(self._keyring, row) for row in known}


def _used(secrets: Mapping[str, Variable], use: Variable) -> Variable:
    """Raises UnknownSecret: to run without its key is worse than not to run."""
    secret = secrets.get(use.source or "")
    if secret is None:
        raise UnknownSecret(f"{use.name} uses {use.source!r}, and there is no such secret")
    return secret
