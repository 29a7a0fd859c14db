"""What strategies see in their environment. Values are taken, and never given back."""

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from openbell.contracts.base import Utc
from openbell.contracts.model import RunState, VariableKind
from openbell.db.models import Variable
from services.api import uploads
from services.api.access import Administration, Editing, Own, OwnEditing, Reading
from services.api.context import Api
from services.api.limits import Storable

router = APIRouter(tags=["variables"])

LIVE = "the run that is live keeps what it has; its next start sees this"

Value = Annotated[Any, WithJsonSchema({"type": ["string", "number"], "writeOnly": True})]
"""Checked by `uploads`, whose errors name the field and never tell the value."""
Names = Annotated[
    list[Storable], Field(max_length=uploads.MOST_VARIABLES, description="Variables to remove.")
]


class VariableView(BaseModel):
    """A variable; its value is never returned."""

    name: str
    kind: VariableKind
    source: str | None = Field(description="Of a use: the name of the owner's secret.")
    updated_at: Utc


class Variables(BaseModel):
    note: str | None = None
    variables: list[VariableView]


class OwnChanges(BaseModel):
    """What is not named stays as it is."""

    model_config = ConfigDict(extra="forbid")

    parameters: dict[str, Value] = Field(default={}, description="Variables in the clear.")
    secrets: dict[str, Value] = Field(default={}, description="Masked wherever they would be seen.")
    remove: Names = []


class Changes(OwnChanges):
    uses: dict[str, Value] = Field(
        default={}, description="By variable, the name of one of the owner's own secrets."
    )


class Rotated(BaseModel):
    note: str
    resealed: int = Field(description="Values that are under the newest key now.")
    broken: int = Field(description="Values that no key opens; set them again.")


@router.get("/python/env/{strategy_id}", summary="List a strategy's variables")
async def strategy_variables(act: Reading, api: Api) -> Variables:
    return Variables(variables=_views(await api.vault.variables(act.owner, act.id)))


@router.post("/python/env/{strategy_id}", summary="Set and remove a strategy's variables")
async def set_strategy_variables(act: Editing, api: Api, changes: Changes) -> Variables:
    """`uses` hands it one of its owner's own secrets under a name: to change the broker, use
    another one.
    """
    given = uploads.check_variables(
        changes.parameters, changes.secrets, changes.uses, changes.remove
    )
    await api.vault.change(act, given)
    api.board.mark(act.id)
    run = act.strategy.run
    note = LIVE if run is not None and run.state is not RunState.EXITED else None
    return Variables(note=note, variables=_views(await api.vault.variables(act.owner, act.id)))


@router.get("/auth/env", summary="List your own variables and secrets")
async def own_variables(act: Own, api: Api) -> Variables:
    """Parameters go to each of your strategies, secrets to those that use them by name."""
    return Variables(variables=_views(await api.vault.variables(act.caller.user)))


@router.post("/auth/env", summary="Set and remove your own variables and secrets")
async def set_own_variables(act: OwnEditing, api: Api, changes: OwnChanges) -> Variables:
    """A secret that a strategy uses cannot be removed; what is set anew reaches each next start."""
    given = uploads.check_own(changes.parameters, changes.secrets, changes.remove)
    await api.vault.change_own(act, given)
    views = _views(await api.vault.variables(act.caller.user))
    return Variables(note="each strategy sees it at its next start", variables=views)


@router.post("/admin/rotate-key", summary="Seal all variables under a new key")
async def rotate_key(act: Administration, api: Api) -> Rotated:
    """The old keys are gone when this is done; older backups of the database need them."""
    done = await api.rotation.rotate(act)
    note = "sealed under a new key"
    if not api.rotation.makes_keys:
        note = "sealed under the first key of OPENBELL_API__KEYS; the others can be removed"
    if done.broken:
        note += "; no key was dropped, since some values cannot be opened"
    return Rotated(note=note, resealed=done.resealed, broken=done.broken)


def _views(rows: list[Variable]) -> list[VariableView]:
    return [
        VariableView(
            name=row.name,
            kind=VariableKind(row.kind),
            source=row.source,
            updated_at=row.updated_at,
        )
        for row in rows
    ]
