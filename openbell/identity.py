"""Who is calling. Read-only: used by api and status alike, each with its own memory.

A credential is looked up once, then remembered for a few seconds. What changes it is followed by
the event AccessChanged, which empties that memory; the few seconds are for an event that is lost.
"""

import hashlib
import hmac
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from openbell.bus import Stored
from openbell.contracts.base import ACCOUNT, Event, utc_now
from openbell.contracts.errors import NotAllowed, NotSignedIn
from openbell.contracts.model import Permission, Role, Scope
from openbell.db.models import ApiToken, LoginSession, Share, User
from openbell.db.session import Database, all_rows

LOCAL_USER = "local"
"""The one whose machine this is: there from the first start."""
SESSION_COOKIE = "openbell_session"
CSRF_COOKIE = "openbell_csrf"
"""Readable by the page, which sends its value back in a header: no other site can."""
CSRF_HEADER = b"x-openbell-csrf"
FRESH_S = 5.0
MOST_REMEMBERED = 10_000
LONGEST_CREDENTIAL = 512

ROLE_SCOPES = {
    Role.ADMIN: frozenset(Scope),
    Role.TRADER: frozenset(Scope),
    Role.VIEWER: frozenset({Scope.READ, Scope.OPERATE, Scope.ADMIN}),
}
"""A viewer may operate what is shared for that, and manage the own account."""


@dataclass(frozen=True, slots=True)
class Caller:
    """A user, by one of their credentials."""

    user: str
    name: str
    role: Role
    scopes: frozenset[Scope]
    credential: str
    """The id of the session or token."""
    shared: Mapping[str, Permission]
    """The strategies of others that this user may see."""
    csrf: str | None = None
    """What a browser must send back with all that changes something; a token needs none."""

    @property
    def administers(self) -> bool:
        return self.role is Role.ADMIN and Scope.ADMIN in self.scopes

    def sees(self, owner: str, strategy_id: str) -> bool:
        """Whether events of this strategy are theirs to see without asking for everybody's."""
        return owner == self.user or strategy_id in self.shared


@dataclass(frozen=True, slots=True)
class _Remembered:
    caller: Caller
    at: float
    expires_at: datetime | None


def require(caller: Caller, scope: Scope) -> None:
    """Raises NotAllowed."""
    if scope not in caller.scopes:
        raise NotAllowed(f"this takes the scope {scope}")


def require_admin(caller: Caller, scope: Scope) -> None:
    """For what is everybody's. Raises NotAllowed."""
    if not caller.administers:
        raise NotAllowed("only an admin may do this, with a credential of the scope admin")
    require(caller, scope)


def digest(credential: str) -> bytes:
    """What is kept of a session's or a token's value, which is random and long."""
    return hashlib.sha256(credential.encode()).digest()


def csrf_of(session: str) -> str:
    """Tied to the session's value, so that a planted cookie proves nothing."""
    return hmac.new(session.encode(), b"openbell csrf", hashlib.sha256).hexdigest()


def cookie(headers: Mapping[bytes, bytes], name: str) -> str | None:
    """By hand: other programs of this host set cookies too, which a strict parser stumbles over."""
    for part in headers.get(b"cookie", b"").decode("latin-1").split(";"):
        key, _, value = part.strip().partition("=")
        if key == name:
            return value.strip('"')
    return None


class Identities:
    """Knows callers by their headers."""

    def __init__(
        self,
        database: Database,
        clock: Callable[[], datetime] = utc_now,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._clock = clock
        self._monotonic = monotonic
        self._remembered: dict[bytes, _Remembered] = {}
        self._age = 0
        """Counts what has made memories void, so that a lookup under way is made again."""

    def told(self, event: Stored | None) -> None:
        """An event from the live feed; None: some may have been missed."""
        if event is None:
            self.forget()
            return
        user, topic, _ = Event.parts(event.subject)
        if topic == ACCOUNT:
            self.forget(user)

    def forget(self, user: str | None = None) -> None:
        """Look this user, or everybody, up anew."""
        self._age += 1
        self._remembered = {
            key: one for key, one in self._remembered.items() if user and one.caller.user != user
        }

    async def caller(self, headers: Mapping[bytes, bytes], within_s: float = FRESH_S) -> Caller:
        """As it was so many seconds ago at most. Raises NotSignedIn."""
        given = headers.get(b"authorization", b"") + b"\0" + headers.get(b"cookie", b"")
        key = hashlib.sha256(given).digest()  # headers may be long, and are sent by anybody
        known = self._remembered.get(key)
        if known and self._monotonic() - known.at < within_s and not self._expired(known):
            return known.caller
        while True:
            age, at = self._age, self._monotonic()
            caller, expires_at = await self._look_up(headers)
            if age == self._age:
                break  # else somebody was revoked while we looked, who must not be let in
        if len(self._remembered) >= MOST_REMEMBERED:
            self._remembered.clear()
        self._remembered[key] = _Remembered(caller, at, expires_at)
        return caller

    def _expired(self, known: _Remembered) -> bool:
        return known.expires_at is not None and known.expires_at <= self._clock()

    async def _look_up(self, headers: Mapping[bytes, bytes]) -> tuple[Caller, datetime | None]:
        """A token that is sent counts, valid or not; only without one does the cookie."""
        authorization = headers.get(b"authorization")
        if authorization is not None:
            kind, _, value = authorization.decode("latin-1").partition(" ")
            if kind.lower() != "bearer" or not value:
                raise NotSignedIn("send `Authorization: Bearer TOKEN`")
            return await self._by_token(value.strip())
        value = cookie(headers, SESSION_COOKIE)
        if not value:
            raise NotSignedIn("sign in, or send a token")
        return await self._by_session(value)

    async def _by_token(self, value: str) -> tuple[Caller, datetime | None]:
        async with self._database.read() as session:
            query = (
                select(ApiToken, User)
                .join(User, col(User.id) == ApiToken.user_id)
                .where(ApiToken.token_hash == _checked(value))
            )
            for token, user in await all_rows(session, query):
                if token.expires_at is not None and token.expires_at <= self._clock():
                    raise NotSignedIn("this token has expired")
                granted = (Scope(scope) for scope in token.scopes)
                return await _caller(session, user, token.id, granted), token.expires_at
        raise NotSignedIn("there is no such token")

    async def _by_session(self, value: str) -> tuple[Caller, datetime | None]:
        async with self._database.read() as session:
            query = (
                select(LoginSession, User)
                .join(User, col(User.id) == LoginSession.user_id)
                .where(LoginSession.token_hash == _checked(value))
            )
            for login, user in await all_rows(session, query):
                if login.expires_at <= self._clock():
                    raise NotSignedIn("this session has expired")
                caller = await _caller(session, user, login.id, Scope, csrf_of(value))
                return caller, login.expires_at
        raise NotSignedIn("this session is over")


async def is_claimed(session: AsyncSession) -> bool:
    """Whether somebody can sign in: until then nothing but this machine is served."""
    query = select(User.id).where(col(User.password_hash).is_not(None)).limit(1)
    return (await session.exec(query)).first() is not None


def _checked(value: str) -> bytes:
    if len(value) > LONGEST_CREDENTIAL:
        raise NotSignedIn("this is no credential of ours")
    return digest(value)


async def _caller(
    session: AsyncSession,
    user: User,
    credential: str,
    scopes: Iterable[Scope],
    csrf: str | None = None,
) -> Caller:
    if user.disabled_at is not None:
        raise NotSignedIn("this account is disabled")
    role = Role(user.role)
    query = select(Share).where(Share.user_id == user.id)
    shares = (await session.exec(query)).all()
    return Caller(
        user=user.id,
        name=user.name,
        role=role,
        scopes=frozenset(scopes) & ROLE_SCOPES[role],
        credential=credential,
        shared={share.strategy_id: Permission(share.permission) for share in shares},
        csrf=csrf,
    )
