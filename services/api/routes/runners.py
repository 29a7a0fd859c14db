"""The runners, and what runs on them uses."""

import time
from datetime import UTC, datetime
from math import isnan
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel, Field

from openbell.contracts.base import Utc
from openbell.contracts.model import Scope
from services.api.access import Reading, own
from services.api.context import Api
from services.api.metrics.ring import COLUMNS, Row
from services.api.metrics.runners import RunnerView
from services.api.pages import PAGE

router = APIRouter(tags=["runners"])

RECENTLY_S = 900


class RunnerList(BaseModel):
    runners: list[RunnerView]


class MetricsPoint(BaseModel):
    """One span of time, all of the run's processes together; null where it is not known."""

    at: Utc = Field(description="Where it begins.")
    cpu_percent: float | None = Field(description="On average, of one processor.")
    cpu_percent_max: float | None
    memory_bytes: float | None = Field(description="On average.")
    memory_bytes_max: float | None
    processes: float | None = Field(description="Processes and threads at most.")
    disk_bytes: float | None = Field(description="What its folder held at most.")
    read_bytes_s: float | None = Field(description="From disks, on average.")
    written_bytes_s: float | None


class MetricsView(BaseModel):
    """Oldest first. While nothing ran there are no points."""

    step_s: int = Field(description="How long each point is, in seconds.")
    points: list[MetricsPoint]


@router.get("/runners", summary="List the runners", response_model=RunnerList)
async def runners(request: Request, api: Api) -> Response:
    """What each enforces, and how many more fit; for admins also how busy its machine is, and what
    memory it has. In a browser, this is the page.

    One that has died is listed for a day.
    """
    if "text/html" in request.headers.get("accept", ""):
        return FileResponse(PAGE / "runners.html")
    act = await own(Scope.READ)(request, api)
    listed = RunnerList(runners=api.metrics.runners.views(act.caller))
    return Response(listed.model_dump_json(), media_type="application/json")


@router.get("/python/metrics/{strategy_id}", summary="Tell what a strategy's runs used")
async def metrics(
    act: Reading,
    api: Api,
    since: Annotated[
        Utc | None, Query(description="By default, 15 minutes ago; 24 hours are kept.")
    ] = None,
    step: Annotated[
        int, Query(ge=5, le=3600, description="Seconds a point; of the past, 60 at least.")
    ] = 5,
) -> MetricsView:
    """Every 5 seconds for the last 15 minutes, every minute for the last 24 hours."""
    now = time.time()
    begin = now - RECENTLY_S if since is None else since.timestamp()
    step_s, rows = api.metrics.store.of(act.id).rows(begin, step, now)
    return MetricsView(step_s=step_s, points=[_point(row) for row in rows])


def _point(row: Row) -> MetricsPoint:
    values = (None if isnan(value) else value for value in row.values)
    return MetricsPoint.model_validate(
        {"at": datetime.fromtimestamp(row.at, UTC), **dict(zip(NAMES, values, strict=True))}
    )


NAMES = [
    f"{name}_max" if kind == "max" and (name, "mean") in COLUMNS else name for name, kind in COLUMNS
]
"""The field of each column."""
