"""What somebody does, as the audit tells it.

`access.py` makes those of requests, and it alone a `StrategyAct`; `auth/sessions.py` those of who
is only about to be let in; `context.py` those that another service tells of.
"""

from dataclasses import dataclass

from openbell.identity import Caller
from services.api.view import StrategyView


@dataclass(frozen=True, slots=True)
class Act:
    """Somebody does something: what the audit tells of it."""

    caller: Caller
    action: str
    """The route's name."""
    address: str
    """Where it came from."""
    request: str
    """Ties what was requested to what came of it."""


@dataclass(frozen=True, slots=True)
class StrategyAct(Act):
    """Somebody does something to a strategy that they may do this to."""

    strategy: StrategyView
    owner: str

    @property
    def id(self) -> str:
        return self.strategy.id

    @property
    def on(self) -> tuple[str, str]:
        """Whose strategy, and which."""
        return self.owner, self.strategy.id
