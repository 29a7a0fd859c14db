"""Who there is: accounts, and the links that make them."""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from sqlalchemy.exc import IntegrityError
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from openbell.contracts.errors import LastAdmin, UnknownCredential, UnknownUser, UserNameTaken
from openbell.contracts.model import Role
from openbell.db.models import Invitation, User
from openbell.identity import LOCAL_USER, digest, is_claimed
from services.api.acts import Act
from services.api.audit import record
from services.api.auth import passwords, sessions
from services.api.auth.changes import (
    Changes,
    existing_user,
    invalid,
    new_id,
    new_value,
    user_by_name,
)
from services.api.auth.home import SETUP_TOKEN
from services.api.auth.passwords import Passwords
from services.api.auth.sessions import Sessions, SignedIn

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")
LINK_LASTS = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Link:
    """What somebody can do with a link that they were given."""

    purpose: str
    role: Role
    name: str | None


class People:
    def __init__(
        self, changes: Changes, passwords: Passwords, sessions: Sessions, data: Path
    ) -> None:
        self._changes = changes
        self._passwords = passwords
        self._sessions = sessions
        self._setup_file = data / SETUP_TOKEN

    async def claimed(self) -> bool:
        """Whether somebody can sign in with a password."""
        async with self._changes.read() as session:
            return await is_claimed(session)

    # ---- links

    async def look_at_link(self, value: str) -> Link:
        """Raises UnknownCredential."""
        async with self._changes.read() as session:
            invitation = await self._valid(session, value)
            if invitation.user_id is None:
                return Link("invitation", Role(invitation.role), None)
            user = await existing_user(session, invitation.user_id)
            role = Role(user.role)
            return (
                Link("password", role, user.name)
                if user.password_hash
                else Link("setup", role, None)
            )

    async def accept(
        self, value: str, name: str | None, password: str, *, address: str, agent: str
    ) -> SignedIn:
        """Make the account that a link promises, or set the password of one; and sign in.

        Raises InvalidRequest, UnknownCredential, UserNameTaken.
        """
        async with self._changes.read() as session:  # before the costly hash
            user_id = (await self._valid(session, value)).user_id or new_id("u")
        passwords.check(password)
        hashed = await self._passwords.hash(password)
        try:
            async with self._changes.to(user_id) as session:
                invitation = await self._valid(session, value)
                await session.delete(invitation)  # whoever comes second finds it gone
                user = await self._accepted(session, invitation, name, user_id)
                user.password_hash = hashed
                session.add(user)
                await session.exec(sessions.all_of(user.id))
                signed_in = await self._sessions.begin(
                    session, user, "accept", address=address, agent=agent
                )
        except IntegrityError:
            raise _name_taken() from None
        if user.id == LOCAL_USER:
            await asyncio.to_thread(self._setup_file.unlink, missing_ok=True)
        return signed_in

    async def _accepted(
        self, session: AsyncSession, invitation: Invitation, name: str | None, new_user_id: str
    ) -> User:
        """The account as it will be: a new one, one that is claimed, or one with a password."""
        user = None
        if invitation.user_id is not None:
            user = await existing_user(session, invitation.user_id)
            if user.password_hash is not None:
                return user
        chosen = _check_name(name)
        holder = await user_by_name(session, chosen)
        if holder is not None and holder is not user:
            raise _name_taken()
        if user is not None:
            user.name, user.name_key = chosen, chosen.casefold()
            return user
        return User(
            id=new_user_id,
            name=chosen,
            name_key=chosen.casefold(),
            role=invitation.role,
            created_at=self._changes.clock(),
        )

    async def _valid(self, session: AsyncSession, value: str) -> Invitation:
        query = select(Invitation).where(Invitation.token_hash == digest(value))
        invitation = (await session.exec(query)).first()
        if invitation is None or invitation.expires_at <= self._changes.clock():
            raise UnknownCredential("this link has been used, or has expired: ask for another")
        return invitation

    async def invite(self, act: Act, role: Role) -> tuple[str, Invitation]:
        """The value and the row of a link for a new account."""
        async with self._changes.write() as session:
            return self._new_link(session, act, role, None)

    async def reset(self, act: Act, user_id: str) -> tuple[str, Invitation]:
        """The value and the row of a link that sets a user's password. Raises UnknownUser."""
        async with self._changes.write() as session:
            user = await existing_user(session, user_id)
            return self._new_link(session, act, Role(user.role), user)

    def _new_link(
        self, session: AsyncSession, act: Act, role: Role, user: User | None
    ) -> tuple[str, Invitation]:
        value, now = new_value("join"), self._changes.clock()
        invitation = Invitation(
            id=new_id("i"),
            token_hash=digest(value),
            role=role,
            user_id=user.id if user else None,
            created_by=act.caller.user,
            created_at=now,
            expires_at=now + LINK_LASTS,
        )
        session.add(invitation)
        record(session, act, after={"role": role, "user": user.name if user else None})
        return value, invitation

    async def invitations(self) -> Sequence[Invitation]:
        async with self._changes.read() as session:
            query = select(Invitation).where(Invitation.expires_at > self._changes.clock())
            return (await session.exec(query.order_by(col(Invitation.created_at)))).all()

    async def withdraw(self, act: Act, invitation_id: str) -> None:
        """Raises UnknownCredential."""
        async with self._changes.write() as session:
            invitation = await session.get(Invitation, invitation_id)
            if invitation is None:
                raise UnknownCredential(f"there is no invitation {invitation_id[:64]!r}")
            await session.delete(invitation)
            record(session, act, before={"role": invitation.role})

    # ---- accounts

    async def list(self) -> Sequence[User]:
        async with self._changes.read() as session:
            return (await session.exec(select(User).order_by(User.name_key))).all()

    async def named(self, name: str) -> User:
        """Raises UnknownUser."""
        async with self._changes.read() as session:
            user = await user_by_name(session, name)
        if user is None or user.disabled_at is not None:
            raise UnknownUser(f"there is no user {name[:64]!r}")
        return user

    async def set_role(self, act: Act, user_id: str, role: Role) -> User:
        """Raises UnknownUser, LastAdmin."""
        async with self._changes.to(user_id) as session:
            user = await existing_user(session, user_id)
            before, user.role = user.role, role
            session.add(user)
            await _require_admin(session)
            after = {"user": user.name, "role": role}
            record(session, act, before={"user": user.name, "role": before}, after=after)
        return user

    async def set_disabled(self, act: Act, user_id: str, *, disabled: bool) -> User:
        """A disabled account's sessions and tokens are refused; what it has running goes on.

        Raises UnknownUser, LastAdmin.
        """
        async with self._changes.to(user_id) as session:
            user = await existing_user(session, user_id)
            user.disabled_at = self._changes.clock() if disabled else None
            session.add(user)
            await _require_admin(session)
            if disabled:
                await session.exec(sessions.all_of(user_id))
            record(session, act, after={"user": user.name, "disabled": disabled})
        return user


async def _require_admin(session: AsyncSession) -> None:
    """One who could sign in, or whose machine this is. Raises LastAdmin."""
    await session.flush()
    query = select(User).where(User.role == Role.ADMIN, col(User.disabled_at).is_(None))
    admins = (await session.exec(query)).all()
    if not any(user.password_hash or user.id == LOCAL_USER for user in admins):
        raise LastAdmin("make somebody else an admin first")


def _check_name(name: str | None) -> str:
    if name is None or not NAME.fullmatch(name):
        raise invalid(
            "name",
            "1 to 64 letters, digits and . _ @ + -, beginning with a letter or a digit",
        )
    return name


def _name_taken() -> UserNameTaken:
    return UserNameTaken("choose another name", errors=[{"field": "name", "message": "taken"}])
