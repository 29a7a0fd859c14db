"""What routes work with, made once by `serve` and handed to each request."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from openbell.bus import Bus
from openbell.contracts.base import Done
from openbell.contracts.commands import (
    GetRunEnvironment,
    PublishArtifact,
    RunEnvironment,
    SchedulerCommand,
    Standing,
)
from openbell.contracts.errors import UnknownRun
from openbell.identity import caller
from openbell.settings import ApiSettings
from services.api.board import Board
from services.api.store import Store


@dataclass(frozen=True, slots=True)
class Context:
    bus: Bus
    board: Board
    store: Store
    settings: ApiSettings

    async def command(self, owner: str, command: SchedulerCommand) -> Standing:
        """Send a command about one of `owner`'s strategies. Raises UnknownStrategy, and its own."""
        await self.board.get(owner, command.strategy_id)
        return await self.bus.request(command)

    async def answer_publish(self, command: PublishArtifact) -> Done:
        """The object store is a cache: what it has lost, the database still holds."""
        body = await self.store.source(command.sha256)
        if body is None:
            raise UnknownRun("there is no source with this hash")
        await self.bus.put_artifact(command.sha256, body)
        return Done()

    async def answer_environment(self, command: GetRunEnvironment) -> RunEnvironment:
        variables = await self.store.parameters(command.run_id, command.epoch)
        return RunEnvironment(variables=variables)


def _context(request: Request) -> Context:
    return request.app.state.context


def _owner(request: Request) -> str:
    return caller(dict(request.scope["headers"])).owner


Api = Annotated[Context, Depends(_context)]
Owner = Annotated[str, Depends(_owner)]
