"""What a strategy's runs were, and what they left behind."""

from typing import Annotated

from fastapi import APIRouter, Query

from services.api.access import Reading
from services.api.context import Api
from services.api.logs import RunWithLog
from services.api.view import RunRecord

router = APIRouter(prefix="/python/runs", tags=["runs"])

LARGEST_EPOCH = 2**31 - 1


@router.get("/{strategy_id}", summary="List the latest runs, newest first")
async def runs(
    act: Reading,
    api: Api,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    before: Annotated[
        int | None, Query(ge=0, le=LARGEST_EPOCH, description="Only those before this epoch.")
    ] = None,
) -> list[RunWithLog]:
    """Each with the size of its log. For the next page send the last one's `epoch` as `before`."""
    return await api.logs.with_sizes(await api.store.runs(act.id, limit, before))


@router.get("/{strategy_id}/{run_id}", summary="Tell what is left of a run")
async def run(run_id: str, act: Reading, api: Api) -> RunRecord:
    """Why and how it ended, what it used, and the last lines of its log."""
    row = await api.store.run(act.id, run_id)
    return RunRecord.model_validate(row, from_attributes=True)
