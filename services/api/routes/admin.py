"""What admins do: people, everybody's strategies, the whole audit."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from openbell.contracts.base import Utc
from openbell.contracts.model import Role, Scope
from openbell.db.models import Invitation, User
from services.api.access import (
    Administration,
    EverybodysOperating,
    EverybodysReading,
    everybodys,
)
from services.api.audit import entry
from services.api.context import Api
from services.api.history import AuditPage, Search, answer, of_everybody
from services.api.stopping import Hold, Stopped, StopWait, stop_all

router = APIRouter(
    prefix="/admin",
    tags=["administration"],
    dependencies=[Depends(everybodys(Scope.ADMIN))],
)


class PersonView(BaseModel):
    id: str
    name: str
    role: Role
    created_at: Utc
    disabled_at: Utc | None
    claimed: bool = Field(description="Whether they can sign in with a password.")


class People(BaseModel):
    users: list[PersonView]


class RoleChange(BaseModel):
    model_config = ConfigDict(extra="forbid")

    role: Role


class InvitationView(BaseModel):
    id: str
    role: Role
    user_id: str | None = Field(description="Whose password it sets; none makes a new account.")
    created_at: Utc
    expires_at: Utc


class Invitations(BaseModel):
    invitations: list[InvitationView]


class MadeInvitation(InvitationView):
    path: str = Field(description="The link, below this address; shown this once.")


class Withdrawn(BaseModel):
    id: str


@router.get("/users", summary="List all accounts")
async def users(api: Api) -> People:
    return People(users=[_person(user) for user in await api.people.list()])


@router.post("/role/{user_id}", summary="Give an account another role")
async def set_role(user_id: str, given: RoleChange, act: Administration, api: Api) -> PersonView:
    return _person(await api.people.set_role(act, user_id, given.role))


@router.post("/disable/{user_id}", summary="Refuse an account's credentials")
async def disable(user_id: str, act: Administration, api: Api) -> PersonView:
    """What it has running goes on: stop it if it should not."""
    return _person(await api.people.set_disabled(act, user_id, disabled=True))


@router.post("/enable/{user_id}", summary="Take an account's credentials again")
async def enable(user_id: str, act: Administration, api: Api) -> PersonView:
    return _person(await api.people.set_disabled(act, user_id, disabled=False))


@router.post("/reset/{user_id}", status_code=201, summary="Make a link that sets a password")
async def reset(user_id: str, act: Administration, api: Api) -> MadeInvitation:
    return _link(*await api.people.reset(act, user_id))


@router.get("/invitations", summary="List links that were not used yet")
async def invitations(api: Api) -> Invitations:
    rows = await api.people.invitations()
    views = [InvitationView.model_validate(row, from_attributes=True) for row in rows]
    return Invitations(invitations=views)


@router.post("/invitations", status_code=201, summary="Make a link for a new account")
async def invite(given: RoleChange, act: Administration, api: Api) -> MadeInvitation:
    return _link(*await api.people.invite(act, given.role))


@router.delete("/invitations/{invitation_id}", summary="Withdraw a link")
async def withdraw(invitation_id: str, act: Administration, api: Api) -> Withdrawn:
    await api.people.withdraw(act, invitation_id)
    return Withdrawn(id=invitation_id)


@router.post("/stop-all", summary="Stop everybody's strategies")
async def stop_everybody(
    act: EverybodysOperating, api: Api, wait: StopWait = 600, hold: Hold = True
) -> Stopped:
    """Answers when all of them are gone, with a list."""
    return await stop_all(api, act, None, wait, hold=hold)


@router.get(
    "/audit",
    summary="Search what everybody did",
    response_model=AuditPage,
    responses={200: {"content": {"application/x-ndjson": {}}}},
)
async def audit(act: EverybodysReading, api: Api, search: Annotated[Search, Query()]) -> Response:
    """That somebody looked is in it too."""
    await api.audit.write([entry(act)])
    return await answer(api.audit, search, of_everybody)


def _link(value: str, row: Invitation) -> MadeInvitation:
    fields = InvitationView.model_validate(row, from_attributes=True).model_dump()
    return MadeInvitation(**fields, path=f"/join#{value}")


def _person(user: User) -> PersonView:
    return PersonView(
        id=user.id,
        name=user.name,
        role=Role(user.role),
        created_at=user.created_at,
        disabled_at=user.disabled_at,
        claimed=user.password_hash is not None,
    )
