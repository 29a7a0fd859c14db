"""Transactions on accounts, and what all of them need."""

import contextlib
import secrets
from collections.abc import AsyncGenerator, Callable
from datetime import datetime
from typing import Any

from sqlalchemy import delete
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from openbell.contracts.base import utc_now
from openbell.contracts.errors import UnknownUser
from openbell.contracts.events import AccessChanged
from openbell.db.models import Invitation, User
from openbell.db.session import Database
from openbell.identity import Identities
from openbell.outbox import Outbox


class Changes:
    def __init__(
        self,
        database: Database,
        outbox: Outbox,
        identities: Identities,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._database = database
        self._outbox = outbox
        self._identities = identities
        self.clock = clock

    def read(self) -> contextlib.AbstractAsyncContextManager[AsyncSession]:
        return self._database.read()

    def write(self) -> contextlib.AbstractAsyncContextManager[AsyncSession]:
        """For what changes nobody's rights."""
        return self._database.write()

    @contextlib.asynccontextmanager
    async def to(self, user_id: str) -> AsyncGenerator[AsyncSession]:
        """For what changes a user's rights, or with what they have them.

        After it this replica looks the user up anew, and every other one that hears the event.
        """
        async with self._database.write() as session:
            yield session
            self._outbox.add(session, AccessChanged(owner=user_id, at=self.clock()))
        self._identities.forget(user_id)
        self._outbox.wake()


def new_id(kind: str) -> str:
    return f"{kind}{secrets.token_hex(8)}"


def new_value(kind: str) -> str:
    """A credential. Its beginning tells what it is, to those who find it where it should not be."""
    return f"{kind}_{secrets.token_urlsafe(32)}"


async def user_by_name(session: AsyncSession, name: str) -> User | None:
    return (await session.exec(select(User).where(User.name_key == name.casefold()))).first()


async def existing_user(session: AsyncSession, user_id: str) -> User:
    """Raises UnknownUser."""
    user = await session.get(User, user_id)
    if user is None:
        raise UnknownUser(f"there is no user {user_id[:64]!r}")
    return user


def links_to(user_id: str) -> Any:
    """The statement that voids every link which sets a user's password."""
    return delete(Invitation).where(col(Invitation.user_id) == user_id)
