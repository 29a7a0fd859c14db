"""What a strategy's runs may use, how they are watched, stopped and restarted."""

import contextlib
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body
from pydantic import BaseModel, Field

from openbell.contracts.commands import PlanStrategy
from openbell.contracts.errors import OpenbellError
from openbell.contracts.limits import RunPolicy
from services.api.access import Editing, Reading
from services.api.context import Api, Context
from services.api.view import StrategyView, has_ended

router = APIRouter(prefix="/python/limits", tags=["limits"])

CAPABILITIES = {
    "memory_mb": "memory_limit",
    "processes": "pids_limit",
    "cpu_weight": "cpu_limit",
    "cpus": "cpu_limit",
    "disk_mb": "disk_limit",
    "open_files": "files_limit",
}
"""By limit, the name under which a runner says what it makes of it."""
AT_START = ("limits.", "watchdogs.", "interpreter")
"""How the names of those fields begin that a run has for good."""

Enforcement = Literal["enforced", "watched", "none"]


class HostView(BaseModel):
    """What a runner makes of each limit."""

    runner: str
    limits: dict[str, Enforcement] = Field(
        description="`enforced` by the host, `watched` once a second, or `none`."
    )


class LimitsView(BaseModel):
    """A strategy's policy for its runs."""

    policy: RunPolicy
    host: HostView | None = Field(description="Of its latest run, if its runner is connected.")
    note: str | None = None


@router.get("/{strategy_id}", summary="Tell what a strategy's runs may use")
async def limits(act: Reading, api: Api) -> LimitsView:
    """Its limits, watchdogs, stop ladder and restart policy, and what its host makes of them.

    Where `memory_mb` is null, it is by the host's size.
    """
    return LimitsView(policy=await api.store.policy(act.id), host=await _host(api, act.strategy))


@router.post("/{strategy_id}", summary="Set what a strategy's runs may use")
async def set_limits(
    act: Editing,
    api: Api,
    policy: Annotated[
        dict[str, Any],
        Body(
            description="The whole policy, or a part: a field that is not named stays, null sets"
            " it to its default.",
            examples=[{"limits": {"memory_mb": 512}, "watchdogs": {"quiet_s": 600}}],
        ),
    ],
) -> LimitsView:
    """Checked as a whole first: on any error the old policy stays as it was.

    Limits, watchdogs and interpreter take effect at the next start; how it is stopped and
    restarted, at once.
    """
    kept, names = await api.store.change_policy(act, policy)
    api.board.mark(act.id)
    if "restart" in names:
        with contextlib.suppress(OpenbellError):  # the scheduler looks by itself, a little later
            await api.bus.request(PlanStrategy(strategy_id=act.id))
    host = await _host(api, act.strategy)
    return LimitsView(policy=kept, host=host, note=_effect(names, act.strategy))


def _effect(names: set[str], strategy: StrategyView) -> str:
    """When what was changed takes effect."""
    if not names:
        return "nothing was changed"
    later = {name for name in names if name.startswith(AT_START)}
    if not later or has_ended(strategy):
        return "it holds from now on"
    at_next = "limits, watchdogs and interpreter hold from its next start on"
    return f"{at_next}; the rest from now on" if names - later else at_next


async def _host(api: Context, strategy: StrategyView) -> HostView | None:
    if strategy.run is None:
        return None
    with contextlib.suppress(OpenbellError):
        info = await api.bus.runner(strategy.run.runner)
        if info is not None:
            told = {limit: info.capabilities.get(name) for limit, name in CAPABILITIES.items()}
            known = {limit: word for limit, word in told.items() if word in _WORDS}
            return HostView.model_validate({"runner": info.runner, "limits": known})
    return None


_WORDS = {"enforced", "watched", "none"}
