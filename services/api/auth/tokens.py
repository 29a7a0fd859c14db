"""API tokens: what programs use, with scopes and an end. Only their hashes are kept."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import func
from sqlmodel import col, select

from openbell.contracts.errors import InvalidRequest, UnknownCredential
from openbell.contracts.model import Scope
from openbell.db.models import ApiToken
from openbell.identity import Caller, digest
from services.api.acts import Act
from services.api.audit import record
from services.api.auth.changes import Changes, new_id, new_value

MOST = 100


class Tokens:
    def __init__(self, changes: Changes) -> None:
        self._changes = changes

    async def list(self, caller: Caller) -> Sequence[ApiToken]:
        async with self._changes.read() as session:
            query = select(ApiToken).where(ApiToken.user_id == caller.user)
            return (await session.exec(query.order_by(col(ApiToken.created_at)))).all()

    async def make(
        self, act: Act, name: str, scopes: Sequence[Scope], lasts: timedelta | None
    ) -> tuple[str, ApiToken]:
        """Its value, known here alone, and what is kept. No token can do more than what made it,
        nor outlives it.

        Raises InvalidRequest.
        """
        beyond = sorted(set(scopes) - act.caller.scopes)
        if beyond:
            raise InvalidRequest.of("scopes", f"you have no scope {', '.join(beyond)} to give")
        value, now = new_value("obt"), self._changes.clock()
        token = ApiToken(
            id=new_id("t"),
            user_id=act.caller.user,
            name=name,
            token_hash=digest(value),
            scopes=sorted(set(scopes)),
            created_at=now,
            expires_at=now + lasts if lasts else None,
        )
        async with self._changes.write() as session:
            count = select(func.count()).where(col(ApiToken.user_id) == act.caller.user)
            if (await session.exec(count)).one() >= MOST:
                raise InvalidRequest.of("name", f"{MOST} tokens are enough: revoke one first")
            maker = await session.get(ApiToken, act.caller.credential)
            token.expires_at = _earlier(token.expires_at, maker.expires_at if maker else None)
            session.add(token)
            record(session, act, after={"token": token.id, "name": name, "scopes": token.scopes})
        return value, token

    async def revoke(self, act: Act, token_id: str) -> None:
        """Raises UnknownCredential, for another's alike."""
        async with self._changes.to(act.caller.user) as session:
            token = await session.get(ApiToken, token_id)
            if token is None or token.user_id != act.caller.user:
                raise UnknownCredential(f"you have no token {token_id[:64]!r}")
            await session.delete(token)
            record(session, act, before={"token": token.id, "name": token.name})


def _earlier(one: datetime | None, other: datetime | None) -> datetime | None:
    ends = [end for end in (one, other) if end is not None]
    return min(ends, default=None)
