"""Signing in and out: browsers' sessions, and the passwords that begin them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import delete, update
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from openbell.contracts.errors import UnknownCredential, WrongPassword
from openbell.contracts.model import Role
from openbell.db.models import LoginSession, User
from openbell.identity import Caller, digest
from services.api.acts import Act
from services.api.audit import entry, record
from services.api.auth import passwords
from services.api.auth.changes import Changes, existing_user, new_id, new_value, user_by_name
from services.api.auth.passwords import Passwords

SEEN_EVERY = timedelta(minutes=1)
MOST = 50
"""Sessions that one user keeps; beyond it the oldest are over."""
MOST_SEEN = 10_000


log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A session that was just made; its value is known here alone."""

    user: User
    value: str
    expires_at: datetime


class Sessions:
    def __init__(self, changes: Changes, passwords: Passwords, lasts: timedelta) -> None:
        self._changes = changes
        self._passwords = passwords
        self._lasts = lasts
        self._seen: dict[str, datetime] = {}

    async def sign_in(
        self, name: str, password: str, *, address: str, agent: str, former: str | None
    ) -> SignedIn:
        """A new session. `former`, the one that the browser had, is over.

        Raises TooManyTries, WrongPassword.
        """
        async with self._changes.read() as session:
            user = await user_by_name(session, name)
        kept = user.password_hash if user and user.disabled_at is None else None
        try:
            await self._passwords.verify(name.casefold(), address, password, kept)
        except WrongPassword as error:
            await self._audit_failure(user, address, error)
            raise
        assert user is not None
        if former:
            await self._end(former)
        async with self._changes.to(user.id) as session:
            return await self.begin(session, user, "login", address=address, agent=agent)

    async def _end(self, value: str) -> None:
        """The session with this value, whosever it is."""
        async with self._changes.read() as session:
            query = select(LoginSession).where(LoginSession.token_hash == digest(value))
            login = (await session.exec(query)).first()
        if login is not None:
            async with self._changes.to(login.user_id) as session:
                await session.exec(_one(login.id))

    async def _audit_failure(self, user: User | None, address: str, error: WrongPassword) -> None:
        """Nobody's name is not kept: it may be a password that was typed in its place."""
        known = (user.id, user.name) if user else ("", "")
        stranger = Caller(*known, Role.VIEWER, frozenset(), "", {})
        async with self._changes.write() as session:
            session.add(entry(Act(stranger, "login", address, new_id("r")), error.code()))

    async def begin(
        self,
        session: AsyncSession,
        user: User,
        action: str,
        *,
        address: str,
        agent: str,
        after: dict[str, Any] | None = None,
    ) -> SignedIn:
        """In the transaction of what let the user in."""
        value, now = new_value("obs"), self._changes.clock()
        login = LoginSession(
            id=new_id("s"),
            user_id=user.id,
            token_hash=digest(value),
            address=address,
            agent=agent[:200],
            created_at=now,
            seen_at=now,
            expires_at=now + self._lasts,
        )
        session.add(login)
        await self._prune(session, user.id)
        caller = Caller(user.id, user.name, Role(user.role), frozenset(), login.id, {})
        record(session, Act(caller, action, address, new_id("r")), after=after)
        return SignedIn(user, value, login.expires_at)

    async def _prune(self, session: AsyncSession, user_id: str) -> None:
        query = select(LoginSession).where(LoginSession.user_id == user_id)
        query = query.order_by(col(LoginSession.created_at).desc())
        for number, login in enumerate((await session.exec(query)).all()):
            if number >= MOST or login.expires_at <= self._changes.clock():
                await session.delete(login)

    async def seen(self, caller: Caller) -> None:
        """Keep when a session was last used; to the minute, so that reading stays cheap."""
        if caller.csrf is None:
            return
        now = self._changes.clock()
        last = self._seen.get(caller.credential)
        if last is not None and now - last < SEEN_EVERY:
            return
        if len(self._seen) >= MOST_SEEN:
            self._seen.clear()
        self._seen[caller.credential] = now
        seen = update(LoginSession).where(col(LoginSession.id) == caller.credential)
        try:
            async with self._changes.write() as session:
                await session.exec(seen.values(seen_at=now))
        except SQLAlchemyError:
            log.warning("when a session was last used is not kept", exc_info=True)

    async def list(self, caller: Caller) -> Sequence[LoginSession]:
        async with self._changes.read() as session:
            query = select(LoginSession).where(
                LoginSession.user_id == caller.user,
                LoginSession.expires_at > self._changes.clock(),
            )
            return (await session.exec(query.order_by(col(LoginSession.seen_at).desc()))).all()

    async def revoke(self, act: Act, session_id: str) -> None:
        """Raises UnknownCredential, for another's alike."""
        async with self._changes.to(act.caller.user) as session:
            login = await session.get(LoginSession, session_id)
            if login is None or login.user_id != act.caller.user:
                raise UnknownCredential(f"you have no session {session_id[:64]!r}")
            await session.exec(_one(session_id))
            record(session, act, before={"session": session_id})

    async def revoke_others(self, act: Act) -> None:
        async with self._changes.to(act.caller.user) as session:
            await session.exec(_others(act.caller))
            record(session, act)

    async def change_password(self, act: Act, current: str, new: str) -> None:
        """Every other session is over. Raises InvalidRequest, TooManyTries, WrongPassword."""
        async with self._changes.read() as session:
            user = await existing_user(session, act.caller.user)
        passwords.check(new, "new")
        try:
            await self._passwords.verify(user.name_key, act.address, current, user.password_hash)
        except WrongPassword as error:
            async with self._changes.write() as session:
                session.add(entry(act, error.code()))
            raise
        hashed = await self._passwords.hash(new)
        async with self._changes.to(user.id) as session:
            user = await existing_user(session, user.id)
            user.password_hash = hashed
            session.add(user)
            await session.exec(_others(act.caller))
            record(session, act)


def all_of(user_id: str) -> Any:
    """The statement that ends every session of a user."""
    return delete(LoginSession).where(col(LoginSession.user_id) == user_id)


def _others(caller: Caller) -> Any:
    return all_of(caller.user).where(col(LoginSession.id) != caller.credential)


def _one(session_id: str) -> Any:
    return delete(LoginSession).where(col(LoginSession.id) == session_id)
