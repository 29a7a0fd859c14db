"""Signing in and out, and what everybody does with their own account."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Literal
from urllib.parse import urlsplit

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from openbell.contracts.base import Utc
from openbell.contracts.errors import NotAllowed
from openbell.contracts.model import Role, Scope
from openbell.db.models import ApiToken, LoginSession
from openbell.identity import CSRF_COOKIE, SESSION_COOKIE, Caller, cookie, csrf_of
from services.api.access import Account, Anybody, Own
from services.api.auth.sessions import SignedIn
from services.api.context import Api
from services.api.history import AuditPage, Search, answer, of_user
from services.api.limits import Storable

router = APIRouter(prefix="/auth", tags=["account"])


class _Given(BaseModel):
    model_config = ConfigDict(extra="forbid")


class UserView(BaseModel):
    id: str
    name: str
    role: Role


class Me(BaseModel):
    """The caller, and what this credential may do."""

    user: UserView
    scopes: list[Scope]
    claimed: bool = Field(description="Whether anybody can sign in with a password yet.")


class Signed(BaseModel):
    user: UserView


class Login(_Given):
    name: Storable = Field(max_length=64)
    password: str = Field(max_length=1024)


class Done(BaseModel):
    done: Literal[True] = True


class LinkToken(_Given):
    token: str = Field(max_length=128)


class LinkView(BaseModel):
    purpose: Literal["setup", "invitation", "password"]
    role: Role
    name: str | None = Field(description="Whose password it sets; none lets you choose a name.")


class Acceptance(LinkToken):
    name: str | None = Field(default=None, max_length=64)
    password: str = Field(max_length=1024)


class PasswordChange(_Given):
    current: str = Field(max_length=1024)
    new: str = Field(max_length=1024)


class SessionView(BaseModel):
    id: str
    created_at: Utc
    seen_at: Utc
    expires_at: Utc
    address: str
    agent: str
    current: bool = Field(description="Whether it is the one that asks.")


class Sessions(BaseModel):
    sessions: list[SessionView]


class TokenView(BaseModel):
    id: str
    name: str
    scopes: list[Scope]
    created_at: Utc
    expires_at: Utc | None


class Tokens(BaseModel):
    tokens: list[TokenView]


class NewToken(_Given):
    name: str = Field(min_length=1, max_length=64, pattern=r"^[\x20-\x7e]+$")
    scopes: list[Scope] = Field(min_length=1, max_length=4)
    expires_days: int | None = Field(default=None, ge=1, le=3650)


class MadeToken(BaseModel):
    token: TokenView
    value: str = Field(description="Shown this once: only its hash is kept.")


@router.get("/me", summary="Tell who is signed in")
async def me(act: Anybody, api: Api) -> Me:
    caller = act.caller
    return Me(
        user=UserView(id=caller.user, name=caller.name, role=caller.role),
        scopes=sorted(caller.scopes),
        claimed=await api.people.claimed(),
    )


@router.post("/login", summary="Sign in with name and password")
async def login(given: Login, request: Request, response: Response, api: Api) -> Signed:
    """A session in a cookie, and in another the value that must come back with each change."""
    headers: dict[bytes, bytes] = dict(request.scope["headers"])
    signed_in = await api.sessions.sign_in(
        given.name,
        given.password,
        address=address_of(request),
        agent=request.headers.get("user-agent", ""),
        former=cookie(headers, SESSION_COOKIE),
    )
    return _signed(request, response, signed_in)


@router.post("/logout", summary="Sign out")
async def logout(act: Anybody, response: Response, api: Api) -> Done:
    if act.caller.csrf is None:
        raise NotAllowed("a token is revoked, not signed out: DELETE /auth/tokens/{id}")
    await api.sessions.revoke(act, act.caller.credential)
    response.delete_cookie(SESSION_COOKIE)
    response.delete_cookie(CSRF_COOKIE)
    return Done()


@router.post("/link", summary="Tell what an invitation, setup or password link is for")
async def link(given: LinkToken, api: Api) -> LinkView:
    found = await api.people.look_at_link(given.token)
    return LinkView.model_validate(found, from_attributes=True)


@router.post("/accept", summary="Make the account, or set the password, that a link is for")
async def accept(given: Acceptance, request: Request, response: Response, api: Api) -> Signed:
    signed_in = await api.people.accept(
        given.token,
        given.name,
        given.password,
        address=address_of(request),
        agent=request.headers.get("user-agent", ""),
    )
    api.board.mark_all()  # the account may have got another name
    return _signed(request, response, signed_in)


@router.post("/password", summary="Change your password")
async def password(given: PasswordChange, act: Account, api: Api) -> Done:
    """All your other sessions are over."""
    await api.sessions.change_password(act, given.current, given.new)
    return Done()


@router.get("/sessions", summary="List where you are signed in")
async def sessions(act: Account, api: Api) -> Sessions:
    rows = await api.sessions.list(act.caller)
    return Sessions(sessions=[_session_view(row, act.caller) for row in rows])


@router.delete("/sessions", summary="Sign out everywhere else")
async def revoke_sessions(act: Account, api: Api) -> Done:
    await api.sessions.revoke_others(act)
    return Done()


@router.delete("/sessions/{session_id}", summary="End one of your sessions")
async def revoke_session(session_id: str, act: Account, api: Api) -> Done:
    """Its open streams end too."""
    await api.sessions.revoke(act, session_id)
    return Done()


@router.get("/tokens", summary="List your API tokens")
async def tokens(act: Account, api: Api) -> Tokens:
    return Tokens(tokens=[_token_view(row) for row in await api.tokens.list(act.caller)])


@router.post("/tokens", status_code=201, summary="Make an API token")
async def new_token(given: NewToken, act: Account, api: Api) -> MadeToken:
    lasts = timedelta(days=given.expires_days) if given.expires_days else None
    value, row = await api.tokens.make(act, given.name, given.scopes, lasts)
    return MadeToken(token=_token_view(row), value=value)


@router.delete("/tokens/{token_id}", summary="Revoke an API token")
async def revoke_token(token_id: str, act: Account, api: Api) -> Done:
    """Its open streams end too."""
    await api.tokens.revoke(act, token_id)
    return Done()


@router.get(
    "/audit",
    summary="Search what you did, and what was done to your strategies",
    response_model=AuditPage,
    responses={200: {"content": {"application/x-ndjson": {}}}},
)
async def audit(act: Own, api: Api, search: Annotated[Search, Query()]) -> Response:
    return await answer(api.audit, search, of_user(act.caller.user))


def _signed(request: Request, response: Response, signed_in: SignedIn) -> Signed:
    """Both cookies; over HTTPS, which the page's Origin tells, for HTTPS alone."""
    secure = urlsplit(request.headers.get("origin", "")).scheme == "https"
    for name, value, hidden in (
        (SESSION_COOKIE, signed_in.value, True),
        (CSRF_COOKIE, csrf_of(signed_in.value), False),
    ):
        response.set_cookie(
            name,
            value,
            expires=signed_in.expires_at,
            secure=secure,
            httponly=hidden,
            samesite="lax",
        )
    user = signed_in.user
    return Signed(user=UserView(id=user.id, name=user.name, role=Role(user.role)))


def address_of(request: Request) -> str:
    return request.client.host if request.client else ""


def _session_view(row: LoginSession, caller: Caller) -> SessionView:
    return SessionView(
        id=row.id,
        created_at=row.created_at,
        seen_at=row.seen_at,
        expires_at=row.expires_at,
        address=row.address,
        agent=row.agent,
        current=row.id == caller.credential,
    )


def _token_view(row: ApiToken) -> TokenView:
    return TokenView(
        id=row.id,
        name=row.name,
        scopes=_scopes(row.scopes),
        created_at=row.created_at,
        expires_at=row.expires_at,
    )


def _scopes(names: Sequence[str]) -> list[Scope]:
    return [Scope(name) for name in names]
