"""Answers what is open when."""

import contextlib
from collections.abc import AsyncGenerator

from openbell.bus import Bus
from openbell.contracts.commands import ListSessions, Sessions
from openbell.settings import Settings
from services.calendar.sessions import list_sessions


@contextlib.asynccontextmanager
async def serve(settings: Settings, bus: Bus) -> AsyncGenerator[None]:  # noqa: ARG001 - every service's shape
    async def answer(command: ListSessions) -> Sessions:
        return list_sessions(command.segment, command.first, command.last)

    await bus.answer(ListSessions, answer)
    yield
