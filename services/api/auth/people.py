"""Who there is: accounts, and the links that make them."""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import delete
from sqlalchemy.exc import IntegrityError
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from openbell.contracts.errors import (
    InvalidRequest,
    LastAdmin,
    UnknownCredential,
    UnknownUser,
    UserNameTaken,
)
from openbell.contracts.model import Role
from openbell.db.models import Invitation, User
from openbell.identity import LOCAL_USER, digest, is_claimed
from services.api.acts import Act
from services.api.audit import record
from services.api.auth import passwords, sessions
from services.api.auth.changes import (
    Changes,
    existing_user,
    links_to,
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
            invitation = await self._valid(session, value)
            user_id = invitation.user_id or new_id("u")
        passwords.check(password)
        hashed = await self._passwords.hash(password)
        try:
            async with self._changes.to(user_id) as session:
                await _use_up(session, invitation)
                user = await self._accepted(session, invitation, name, user_id)
                user.password_hash = hashed
                session.add(user)
                await session.exec(sessions.all_of(user.id))
                signed_in = await self._sessions.begin(
                    session, user, "accept", address=address, agent=agent, after=_about(invitation)
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
            if user.disabled_at is not None:
                raise _no_link()
            if user.password_hash is not None:
                return user
        chosen = _check_name(name)
        holder = await user_by_name(session, chosen)
        reserved = chosen.casefold() == LOCAL_USER and invitation.user_id != LOCAL_USER
        if reserved or (holder is not None and holder is not user):
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
        """A link is as good as the one who made it still is. Raises UnknownCredential."""
        query = (
            select(Invitation)
            .join(User, col(User.id) == Invitation.created_by)
            .where(
                Invitation.token_hash == digest(value),
                Invitation.expires_at > self._changes.clock(),
                User.role == Role.ADMIN,
                col(User.disabled_at).is_(None),
            )
        )
        invitation = (await session.exec(query)).first()
        if invitation is None:
            raise _no_link()
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
        record(session, act, after=_about(invitation))
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
            record(session, act, before=_about(invitation))

    # ---- accounts

    async def list(self) -> Sequence[User]:
        async with self._changes.read() as session:
            return (await session.exec(select(User).order_by(User.name_key))).all()

    async def named(self, name: str, *, also_disabled: bool = False) -> User:
        """Raises UnknownUser."""
        async with self._changes.read() as session:
            user = await user_by_name(session, name)
        if user is None or (user.disabled_at is not None and not also_disabled):
            raise UnknownUser(f"there is no user {name[:64]!r}")
        return user

    async def set_role(self, act: Act, user_id: str, role: Role) -> User:
        """Raises UnknownUser, LastAdmin."""
        _require_owner(user_id, remains=role is Role.ADMIN)
        async with self._changes.to(user_id) as session:
            user = await existing_user(session, user_id)
            before, user.role = user.role, role
            session.add(user)
            after = {"user": user.name, "role": role}
            record(session, act, before={"user": user.name, "role": before}, after=after)
        return user

    async def set_disabled(self, act: Act, user_id: str, *, disabled: bool) -> User:
        """A disabled account's sessions and tokens are refused; what it has running goes on.

        Raises UnknownUser, LastAdmin.
        """
        _require_owner(user_id, remains=not disabled)
        async with self._changes.to(user_id) as session:
            user = await existing_user(session, user_id)
            before = {"user": user.name, "disabled": user.disabled_at is not None}
            user.disabled_at = self._changes.clock() if disabled else None
            session.add(user)
            if disabled:
                await session.exec(sessions.all_of(user_id))
                await session.exec(links_to(user_id))
            record(session, act, before=before, after={"user": user.name, "disabled": disabled})
        return user


def _require_owner(user_id: str, *, remains: bool) -> None:
    """Whoever can read the home is an admin anyway, and must be able to let the others in again.

    Raises LastAdmin.
    """
    if user_id == LOCAL_USER and not remains:
        raise LastAdmin("this is the account of the machine itself: it remains an admin")


async def _use_up(session: AsyncSession, invitation: Invitation) -> None:
    """Whoever comes second waits for the first, and finds it gone. With it goes every other link
    to the same account. Raises UnknownCredential.
    """
    mine = delete(Invitation).where(col(Invitation.id) == invitation.id)
    if (await session.exec(mine)).rowcount != 1:
        raise _no_link()
    if invitation.user_id is not None:
        await session.exec(links_to(invitation.user_id))


def _about(invitation: Invitation) -> dict[str, Any]:
    """What the audit tells of a link: its id ties an account to who invited it."""
    told = {"link": invitation.id, "role": invitation.role, "by": invitation.created_by}
    return told | ({"user_id": invitation.user_id} if invitation.user_id else {})


def _no_link() -> UnknownCredential:
    return UnknownCredential("this link has been used, or is void: ask for another")


def _check_name(name: str | None) -> str:
    if name is None or not NAME.fullmatch(name):
        raise InvalidRequest.of(
            "name",
            "1 to 64 letters, digits and . _ @ + -, beginning with a letter or a digit",
        )
    return name


def _name_taken() -> UserNameTaken:
    return UserNameTaken("choose another name", errors=[{"field": "name", "message": "taken"}])
