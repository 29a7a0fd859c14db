"""What lies in the home to let its owner in: whoever can read it there, owns this Openbell."""

import asyncio
import socket
from datetime import timedelta
from pathlib import Path
from typing import Any

from filelock import AsyncFileLock
from sqlalchemy import delete
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from openbell import private_files
from openbell.contracts.model import Role, Scope
from openbell.db.models import ApiToken, Invitation, LoginSession, User
from openbell.identity import LOCAL_USER, digest
from services.api.auth.changes import Changes, links_to, new_id, new_value

LOCAL_TOKEN = "local-token"  # noqa: S105 - the name of a file
"""For the command line on this machine."""
SETUP_TOKEN = "setup-token"  # noqa: S105
"""Of the link that claims the first account; gone once somebody has."""
SETUP_LASTS = timedelta(days=3650)


async def prepare(changes: Changes, data: Path) -> None:
    """Replicas share the folder: of two that begin together, one would void the other's link, or
    each write half of a file.
    """
    await asyncio.to_thread(data.mkdir, mode=0o700, parents=True, exist_ok=True)
    async with AsyncFileLock(data / "prepare.lock"), changes.write() as session:
        await _forget_expired(session, changes)
        await _prepare_local_token(session, changes, data / LOCAL_TOKEN)
        await _prepare_setup(session, changes, data / SETUP_TOKEN)


async def _prepare_local_token(session: AsyncSession, changes: Changes, file: Path) -> None:
    kept = await asyncio.to_thread(_kept, file)
    known = select(ApiToken.id).where(ApiToken.token_hash == digest(kept))
    if kept and (await session.exec(known)).first() is not None:
        return
    name = f"this machine: {socket.gethostname()} {file}"
    await session.exec(_former(name))
    value = new_value("obt")
    session.add(
        ApiToken(
            id=new_id("t"),
            user_id=LOCAL_USER,
            name=name,
            token_hash=digest(value),
            scopes=list(Scope),
            created_at=changes.clock(),
        )
    )
    await asyncio.to_thread(private_files.write, file, value)


def _former(name: str) -> Any:
    """Whoever deletes the file wants the token in it to be void."""
    mine = (col(ApiToken.user_id) == LOCAL_USER) & (col(ApiToken.name) == name)
    return delete(ApiToken).where(mine)


async def _forget_expired(session: AsyncSession, changes: Changes) -> None:
    for kind in (Invitation, LoginSession):
        await session.exec(delete(kind).where(col(kind.expires_at) <= changes.clock()))


async def _prepare_setup(session: AsyncSession, changes: Changes, file: Path) -> None:
    local = await session.get(User, LOCAL_USER)
    if local is None or local.password_hash is not None:
        await asyncio.to_thread(file.unlink, missing_ok=True)
        return
    kept = await asyncio.to_thread(_kept, file)
    known = select(Invitation.id).where(Invitation.token_hash == digest(kept))
    if kept and (await session.exec(known)).first() is not None:
        return
    await session.exec(links_to(LOCAL_USER))
    value, now = new_value("setup"), changes.clock()
    session.add(
        Invitation(
            id=new_id("i"),
            token_hash=digest(value),
            role=Role.ADMIN,
            user_id=LOCAL_USER,
            created_by=LOCAL_USER,
            created_at=now,
            expires_at=now + SETUP_LASTS,
        )
    )
    await asyncio.to_thread(private_files.write, file, value)


def _kept(file: Path) -> str:
    """Raises ServiceUnavailable when others could read it."""
    return private_files.read(file).strip() if file.exists() else ""
