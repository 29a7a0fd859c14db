"""What a change answers with: the strategy after it, as its caller sees it."""

from collections.abc import Callable

from pydantic import BaseModel

from services.api.acts import StrategyAct
from services.api.context import Context
from services.api.view import StrategyView


class Outcome(BaseModel):
    """The strategy after what was asked for, and what its user should know."""

    note: str | None = None
    strategy: StrategyView


async def outcome(
    api: Context,
    act: StrategyAct,
    note: str | None,
    so: Callable[[StrategyView], bool] = lambda _: True,
    wait: float = 0,
) -> Outcome:
    """The strategy once it is so, or as it is after `wait` seconds."""
    api.board.mark(act.id)
    view = await api.board.wait_for(act.id, so, wait)
    return Outcome(note=note, strategy=view.model_copy(update={"access": act.strategy.access}))
