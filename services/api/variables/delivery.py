"""Hands a run's variables to the runner that holds it, and to nobody else."""

import base64
import json
from collections.abc import Iterable, Mapping, Sequence

from sqlmodel import col, select

from openbell import sealing
from openbell.bus import Bus
from openbell.contracts.commands import GetRunEnvironment, RunEnvironment, RunVariables
from openbell.contracts.errors import ServiceUnavailable, TooLarge, UnknownRun, UnknownSecret
from openbell.contracts.logs import GetLogSecrets, LogSecrets
from openbell.db.models import Run, Variable
from openbell.db.session import Database
from services.api.variables.keyring import Keyring
from services.api.variables.masks import Masks
from services.api.variables.rows import OWN, PARAMETER, SECRET, USE
from services.api.variables.sealed import opened

MOST_DELIVERED = 512 * 1024
"""Bytes of all variables of a run: what a message holds, and a process takes."""
PAGE_BYTES = 256 * 1024
"""Of the texts to hide, as JSON: with one more of them, sealed, it is still one message."""


class Delivery:
    def __init__(self, bus: Bus, database: Database, keyring: Keyring, masks: Masks) -> None:
        self._bus = bus
        self._database = database
        self._keyring = keyring
        self._masks = masks

    async def answer(self, command: GetRunEnvironment) -> RunEnvironment:
        """Sealed to the key that the run's runner announced: a key in the question counts nothing.

        Raises UnknownRun, UnknownSecret, SealBroken, TooLarge, ServiceUnavailable.
        """
        found = await self.for_run(command.run_id, command.epoch, command.runner)
        purpose = sealing.for_run(command.run_id, command.epoch)
        sealed = await self._sealed(command.runner, found.encode(), purpose)
        return RunEnvironment(sealed=sealed)

    async def answer_log(self, command: GetLogSecrets) -> LogSecrets:
        """Sealed in the same way. Raises UnknownRun, SealBroken, ServiceUnavailable."""
        async with self._database.read() as session:
            run = await session.get(Run, command.run_id)
        if run is None or run.runner != command.runner:
            raise UnknownRun(f"{command.run_id[:100]} was not granted to this runner")
        secrets = await self._masks.of(run.owner, run.strategy_id)
        pages = _paged(secrets.values)
        page = pages[command.page] if command.page < len(pages) else []
        purpose = sealing.for_log(command.run_id, secrets.version, command.page)
        sealed = await self._sealed(command.runner, json.dumps(page).encode(), purpose)
        return LogSecrets(
            sealed=sealed, version=secrets.version, more=command.page + 1 < len(pages)
        )

    async def _sealed(self, runner: str, plain: bytes, purpose: bytes) -> bytes:
        """For the key that this runner announced, as a message holds it. Raises SealBroken,
        ServiceUnavailable.
        """
        info = await self._bus.runner(runner)
        if info is None:
            raise ServiceUnavailable(f"the runner {runner} has not announced itself")
        return base64.b64encode(sealing.seal(plain, info.public_key, purpose))

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


def _paged(values: Iterable[str]) -> list[list[str]]:
    """At least one page, which may be empty."""
    pages: list[list[str]] = [[]]
    room = PAGE_BYTES
    for value in values:
        size = len(json.dumps(value))
        if room < 0:
            pages.append([])
            room = PAGE_BYTES
        pages[-1].append(value)
        room -= size
    return pages


def _used(secrets: Mapping[str, Variable], use: Variable) -> Variable:
    """Raises UnknownSecret: to run without its key is worse than not to run."""
    secret = secrets.get(use.source or "")
    if secret is None:
        raise UnknownSecret(f"{use.name} uses {use.source!r}, and there is no such secret")
    return secret
