"""What an owner lets others do with a strategy."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from openbell.contracts.base import Utc
from openbell.contracts.errors import InvalidRequest
from openbell.contracts.model import Permission
from services.api.access import Editing, Reading
from services.api.context import Api
from services.api.limits import Storable

router = APIRouter(prefix="/python", tags=["sharing"])


class ShareView(BaseModel):
    user: str = Field(description="The user's name.")
    permission: Permission
    created_at: Utc


class Shares(BaseModel):
    shares: list[ShareView]


class NewShare(BaseModel):
    model_config = ConfigDict(extra="forbid")

    user: Storable = Field(max_length=64, description="The user's name.")
    permission: Permission = Permission.VIEWER


@router.get("/shares/{strategy_id}", summary="List with whom a strategy is shared")
async def shares(act: Reading, api: Api) -> Shares:
    rows = await api.store.shares(act.id)
    return Shares(
        shares=[
            ShareView(user=name, permission=Permission(row.permission), created_at=row.created_at)
            for row, name in rows
        ]
    )


@router.post("/share/{strategy_id}", summary="Share a strategy")
async def share(act: Editing, api: Api, new: NewShare) -> Shares:
    """A viewer sees its status, log and events; an operator starts and stops it too."""
    user = await api.people.named(new.user)
    if user.id == act.owner:
        raise InvalidRequest.of("user", "it is theirs already")
    await api.store.share(act, user, new.permission)
    return await shares(act, api)


@router.delete("/share/{strategy_id}", summary="Share a strategy no longer")
async def unshare(
    act: Editing, api: Api, user: Annotated[str, Query(description="The user's name.")]
) -> Shares:
    await api.store.share(act, await api.people.named(user, also_disabled=True), None)
    return await shares(act, api)
