"""What routes work with, made once by `serve` and handed to each request."""

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Annotated
from uuid import uuid4

from fastapi import Depends, Request

from openbell.bus import Bus
from openbell.contracts.base import Done
from openbell.contracts.commands import PublishArtifact, RecordLook, SchedulerCommand, Standing
from openbell.contracts.errors import UnknownRun
from openbell.contracts.model import Role
from openbell.identity import Caller, Identities
from openbell.settings import ApiSettings
from services.api.acts import Act, StrategyAct
from services.api.audit import Audit, entry
from services.api.auth.people import People
from services.api.auth.sessions import Sessions
from services.api.auth.tokens import Tokens
from services.api.board import Board
from services.api.log_relay import Relays
from services.api.logs import Logs
from services.api.metrics.listener import Metrics
from services.api.store import Store
from services.api.variables.rotation import Rotation
from services.api.variables.vault import Vault


@dataclass(frozen=True, slots=True)
class Context:
    bus: Bus
    board: Board
    store: Store
    settings: ApiSettings
    identities: Identities
    people: People
    sessions: Sessions
    tokens: Tokens
    audit: Audit
    vault: Vault
    logs: Logs
    relays: Relays
    rotation: Rotation
    metrics: Metrics

    async def command(self, act: StrategyAct, command: SchedulerCommand) -> Standing:
        """Ask the scheduler; the audit tells of it before, and of what came of it."""
        async with self.requesting(act):
            standing = await self.bus.request(command)
        before = {"status": act.strategy.status, "intent": act.strategy.intent}
        after = {"intent": standing.intent, "run": standing.run_id}
        await self.audit.write([entry(act, on=act.on, before=before, after=after)])
        return standing

    def requesting(self, act: StrategyAct) -> AbstractAsyncContextManager[None]:
        return self.audit.requesting(act, [act.on])

    async def answer_publish(self, command: PublishArtifact) -> Done:
        """The object store is a cache: what it has lost, the database still holds."""
        body = await self.store.artifact(command.sha256)
        if body is None:
            raise UnknownRun("there is no source and no lock with this hash")
        await self.bus.put_artifact(command.sha256, body)
        return Done()

    async def answer_look(self, command: RecordLook) -> Done:
        caller = Caller(command.user, command.name, Role.ADMIN, frozenset(), command.credential, {})
        act = Act(caller, command.action, command.address, uuid4().hex)
        await self.audit.write([entry(act)])
        return Done()


def _context(request: Request) -> Context:
    return request.app.state.context


Api = Annotated[Context, Depends(_context)]
