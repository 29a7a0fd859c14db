"""Reads the audit: searched by page, exported whole as JSON lines."""

from collections.abc import AsyncGenerator, Callable
from typing import Any, Literal

from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Select, or_
from sqlmodel import col, select

from openbell.contracts.base import Utc
from openbell.db.models import AuditEntry
from services.api.audit import Audit

PAGE = 500
LARGEST_ID = 2**31 - 1
"""Of PostgreSQL's integers; larger ones are refused before they are asked for."""

Narrow = Callable[[Any], Any]
"""Restricts a query to what its caller may see."""


class Search(BaseModel):
    """What of the audit is wanted, newest first."""

    model_config = ConfigDict(extra="forbid")

    user: str | None = Field(default=None, max_length=64, description="Who did it, by name.")
    strategy: str | None = Field(default=None, max_length=128, description="A strategy's id.")
    action: str | None = Field(default=None, max_length=64)
    outcome: str | None = Field(default=None, max_length=64)
    since: Utc | None = None
    until: Utc | None = None
    before: int | None = Field(
        default=None, ge=0, le=LARGEST_ID, description="Older than this entry's id."
    )
    limit: int = Field(default=100, ge=1, le=PAGE)
    format: Literal["json", "jsonl"] = Field(
        default="json", description="`jsonl` exports all that matches, a line an entry."
    )


class AuditView(BaseModel):
    """Who did what to what, when, from where, and what it changed."""

    id: int
    at: Utc
    request: str = Field(description="Ties an outcome to its request.")
    user_id: str
    user: str
    credential: str = Field(description="The session or token that was used.")
    address: str
    action: str
    outcome: str = Field(description="`requested`, `done`, or the code of the refusal.")
    owner: str | None
    strategy_id: str | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    detail: str | None


class AuditPage(BaseModel):
    entries: list[AuditView]
    next_before: int | None = Field(description="Send it as `before` for the next page.")


def of_user(user: str) -> Narrow:
    """What they did, and what was done to their strategies."""
    return lambda query: query.where(
        or_(col(AuditEntry.user_id) == user, col(AuditEntry.owner) == user)
    )


def of_everybody(query: Any) -> Any:
    return query


async def answer(audit: Audit, search: Search, narrow: Narrow) -> Response:
    if search.format == "jsonl":
        headers = {"content-disposition": 'attachment; filename="openbell-audit.jsonl"'}
        lines = _lines(audit, search, narrow)
        return StreamingResponse(lines, media_type="application/x-ndjson", headers=headers)
    entries = await _page(audit, search, narrow, search.limit)
    following = entries[-1].id if len(entries) == search.limit else None
    page = AuditPage(entries=entries, next_before=following)
    return JSONResponse(page.model_dump(mode="json"))


async def _lines(audit: Audit, search: Search, narrow: Narrow) -> AsyncGenerator[bytes]:
    """Page by page: an audit of years is never held whole."""
    while True:
        entries = await _page(audit, search, narrow, PAGE)
        if not entries:
            return
        yield b"".join(entry.model_dump_json().encode() + b"\n" for entry in entries)
        search = search.model_copy(update={"before": entries[-1].id})


async def _page(audit: Audit, search: Search, narrow: Narrow, most: int) -> list[AuditView]:
    query = narrow(_matching(search)).order_by(col(AuditEntry.id).desc()).limit(most)
    return [_view(entry) for entry in await audit.read(query)]


def _matching(search: Search) -> Select[Any]:
    query: Any = select(AuditEntry)
    equal = {
        AuditEntry.user_name: search.user,
        AuditEntry.strategy_id: search.strategy,
        AuditEntry.action: search.action,
        AuditEntry.outcome: search.outcome,
    }
    for column, value in equal.items():
        if value is not None:
            query = query.where(col(column) == value)
    if search.since is not None:
        query = query.where(col(AuditEntry.at) >= search.since)
    if search.until is not None:
        query = query.where(col(AuditEntry.at) < search.until)
    if search.before is not None:
        query = query.where(col(AuditEntry.id) < search.before)
    return query


def _view(entry: AuditEntry) -> AuditView:
    fields: dict[str, Any] = {**entry.model_dump(), "user": entry.user_name}
    return AuditView.model_validate(fields)
