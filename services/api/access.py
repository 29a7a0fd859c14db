"""Who asks, on which strategy, and whether they may. The one place that decides it.

A route cannot get at a strategy but through what is made here: `Reading`, `Operating`, `Editing`
carry the strategy of the path, and what changes something wants such an `Act` for the audit.

A strategy that the caller may not see is unknown to them, exactly as one that does not exist.
"""

import hmac
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated
from uuid import uuid4

from fastapi import Depends, Request
from fastapi.routing import APIRoute

from openbell.contracts.errors import ForgedRequest, NotAllowed
from openbell.contracts.model import Permission, Role, Scope
from openbell.identity import CSRF_HEADER, Caller, require, require_admin
from services.api.acts import Act, StrategyAct
from services.api.board import unknown
from services.api.context import Api, Context
from services.api.view import access_of

SAFE = {"GET", "HEAD", "OPTIONS"}


def scopes_on(caller: Caller, owner: str, permission: Permission | None) -> frozenset[Scope]:
    """What a caller may do to a strategy; nothing at all, if it is not theirs to see."""
    if owner == caller.user or caller.administers:
        return caller.scopes
    return caller.scopes & permission.scopes if permission else frozenset()


async def act(request: Request, api: Api) -> Act:
    """The caller, who has proven that it is them who asks. Raises NotSignedIn, ForgedRequest."""
    headers: dict[bytes, bytes] = dict(request.scope["headers"])
    caller = await api.identities.caller(headers)
    await api.sessions.seen(caller)
    if request.method not in SAFE:
        _require_proof(caller, headers)
    route = request.scope["route"]
    assert isinstance(route, APIRoute)
    address = request.client.host if request.client else ""
    return Act(caller, route.name, address, uuid4().hex)


def _require_proof(caller: Caller, headers: Mapping[bytes, bytes]) -> None:
    """That it is our page which asks, of a browser; no other site makes one send a token."""
    if caller.csrf is None:
        return
    if not hmac.compare_digest(headers.get(CSRF_HEADER, b""), caller.csrf.encode()):
        raise ForgedRequest("send the cookie openbell_csrf in the header X-Openbell-CSRF too")


def own(scope: Scope) -> Callable[[Request, Context], Awaitable[Act]]:
    """A dependency: the caller, whose account and credential have this scope."""

    async def check(request: Request, api: Api) -> Act:
        asked = await act(request, api)
        require(asked.caller, scope)
        return asked

    return check


async def trading(request: Request, api: Api) -> Act:
    """For what makes a strategy: an account that owns some."""
    asked = await act(request, api)
    if asked.caller.role is Role.VIEWER:
        raise NotAllowed("a viewer owns no strategies; ask an admin for the role trader")
    require(asked.caller, Scope.EDIT)
    return asked


def everybodys(scope: Scope) -> Callable[[Request, Context], Awaitable[Act]]:
    """A dependency: an admin, whose credential has this scope too."""

    async def check(request: Request, api: Api) -> Act:
        asked = await act(request, api)
        require_admin(asked.caller, scope)
        return asked

    return check


def on_strategy(scope: Scope) -> Callable[[str, Request, Context], Awaitable[StrategyAct]]:
    """A dependency: the path's strategy, to which the caller may do this.

    Raises UnknownStrategy, NotAllowed.
    """

    async def check(strategy_id: str, request: Request, api: Api) -> StrategyAct:
        asked = await act(request, api)
        caller = asked.caller
        view = await api.board.get(strategy_id)
        owner = view.owner.id
        allowed = scopes_on(caller, owner, caller.shared.get(strategy_id))
        if not allowed:
            raise unknown(strategy_id)
        _require(scope, allowed, caller)
        seen_as = view.model_copy(update={"access": access_of(caller, view)})
        found = StrategyAct(
            caller, asked.action, asked.address, asked.request, strategy=seen_as, owner=owner
        )
        if scope is Scope.READ and not caller.sees(owner, strategy_id):
            await api.audit.looked(found)
        return found

    return check


def _require(scope: Scope, allowed: frozenset[Scope], caller: Caller) -> None:
    if scope in allowed:
        return
    why = f"this takes the scope {scope}"
    if scope in caller.scopes:
        why = f"{why}; it is shared with you for less"
    raise NotAllowed(why)


Anybody = Annotated[Act, Depends(act)]
Own = Annotated[Act, Depends(own(Scope.READ))]
OwnOperating = Annotated[Act, Depends(own(Scope.OPERATE))]
OwnEditing = Annotated[Act, Depends(own(Scope.EDIT))]
Trading = Annotated[Act, Depends(trading)]
Account = Annotated[Act, Depends(own(Scope.ADMIN))]
Administration = Annotated[Act, Depends(everybodys(Scope.ADMIN))]
EverybodysReading = Annotated[Act, Depends(everybodys(Scope.READ))]
EverybodysOperating = Annotated[Act, Depends(everybodys(Scope.OPERATE))]
Reading = Annotated[StrategyAct, Depends(on_strategy(Scope.READ))]
Operating = Annotated[StrategyAct, Depends(on_strategy(Scope.OPERATE))]
Editing = Annotated[StrategyAct, Depends(on_strategy(Scope.EDIT))]
