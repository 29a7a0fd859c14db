"""What a strategy's version runs with: its Python and its packages."""

from fastapi import APIRouter
from pydantic import Field

from services.api.access import Reading
from services.api.context import Api
from services.api.view import EnvironmentView

router = APIRouter(prefix="/python", tags=["strategies"])


class EnvironmentRecord(EnvironmentView):
    """All that is known of it."""

    version: int
    requirements: list[str] | None = Field(
        description="What was asked for; null means the default packages."
    )
    requires_python: str | None = Field(description="What the script says that it needs.")
    lock_sha256: str | None
    lock: str | None = Field(
        description="Each package with its one version and its hashes, as a requirements.txt; null"
        " for the default packages, which come with each runner."
    )


@router.get("/environment/{strategy_id}", summary="Tell a strategy's environment")
async def environment(act: Reading, api: Api) -> EnvironmentRecord:
    """Which Python and packages its version has, and the lock that fixes them."""
    version = await api.store.version(act.id)
    shown = act.strategy.version.environment
    return EnvironmentRecord(
        **shown.model_dump(),
        version=version.number,
        requirements=version.requirements,
        requires_python=version.requires_python,
        lock_sha256=version.lock_sha256,
        lock=None if version.lock is None else version.lock.decode(),
    )
