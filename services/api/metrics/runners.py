"""Which runners there are, what they enforce, and how busy their machines are."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from pydantic import BaseModel, Field

from openbell.bus import STALE_S
from openbell.contracts.base import Utc, utc_now
from openbell.contracts.metrics import HostMetrics, RunnerMetrics
from openbell.contracts.model import RunnerInfo
from openbell.contracts.room import Room
from openbell.identity import Caller

FORGOTTEN_S = 86_400
"""A runner that was not heard of for so long is not told of any more."""


SLOW = "its processors have been busy for a minute: what runs there may be slow"


class RunnerMemory(BaseModel):
    """In bytes; of the machine, or of the control group that runs are in, if that has less."""

    total_bytes: int
    free_bytes: int = Field(
        description="For more runs: what is available, less a reserve, less what is promised."
        " Below 0 where more is promised than there is."
    )
    promised_bytes: int = Field(
        description="What its runs are expected to use besides what they use now."
    )
    each_bytes: int = Field(description="What one more is reckoned to need, for `fits`.")
    most_runs: int | None = Field(description="How many it takes by its settings, if they say.")


class RunnerView(BaseModel):
    """The agent on a host that runs strategies."""

    id: str
    alive: bool = Field(description="Whether its heartbeat is fresh.")
    heard_at: Utc
    platform: str
    python: str
    capabilities: dict[str, str] = Field(
        description="What its host does about each limit: `enforced`, `watched` once a second, or"
        " `none`; and how strategies are kept apart."
    )
    pythons: list[str] = Field(
        description="The versions of Python that strategies may have there, newest first; none"
        " before they are found."
    )
    runs: int = Field(description="Live runs on it: yours, or for admins everybody's.")
    fits: int | None = Field(
        description="How many more runs have room on it: of so much each as of a strategy that has"
        " not run yet, or of as much as those that run there need on average, whichever is more."
        " Null: it is gone, or of a release that does not tell."
    )
    warning: str | None = Field(description="Why what runs there may be slow, if it may.")
    memory: RunnerMemory | None = Field(description="What it has for runs; for admins.")
    host: HostMetrics | None = Field(description="How busy its machine is; for admins.")


@dataclass(slots=True)
class _Runner:
    info: RunnerInfo
    heard: float
    """Monotonic seconds."""
    heard_at: datetime
    left: bool = False
    host: HostMetrics | None = None
    told: float = 0
    """When it told of its machine; monotonic seconds."""
    parts: dict[int, Counter[str]] = field(default_factory=dict[int, Counter[str]])
    """How many runs each owner has, by the messages that tell of them."""

    def runs(self, owner: str | None) -> int:
        """Of an owner, or of everybody."""
        owners = self.parts.values()
        return sum(one.total() if owner is None else one[owner] for one in owners)


class Runners:
    """By heartbeats and metrics. Their ages are measured on our own clock."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._runners: dict[str, _Runner] = {}

    def heard(self, runner: str, info: RunnerInfo | None) -> None:
        """A heartbeat, or with None a farewell."""
        known = self._runners.get(runner)
        if info is None:
            if known is not None:
                known.left = True
            return
        now = self._clock()
        if known is None:
            self._runners[runner] = _Runner(info, now, utc_now())
        else:
            known.info, known.heard, known.heard_at, known.left = info, now, utc_now(), False
        self._forget_old()

    def told(self, metrics: RunnerMetrics, owners: Counter[str]) -> None:
        """What it tells of its machine, and whose runs it told of."""
        known = self._runners.get(metrics.runner)
        if known is None:
            return  # its heartbeat is on its way
        known.host, known.told = metrics.host, self._clock()
        known.parts[metrics.part] = owners
        known.parts = {n: one for n, one in known.parts.items() if n <= metrics.parts}

    def alive(self) -> list[str]:
        """By name."""
        return sorted(name for name, runner in self._runners.items() if self._is_alive(runner))

    def _is_alive(self, runner: _Runner) -> bool:
        return not runner.left and self._clock() - runner.heard < STALE_S

    def views(self, caller: Caller) -> list[RunnerView]:
        """By name. What others run is told to admins alone, and so is how busy they keep it."""
        self._forget_old()
        return [self._view(name, self._runners[name], caller) for name in sorted(self._runners)]

    def _view(self, name: str, runner: _Runner, caller: Caller) -> RunnerView:
        now = self._clock()
        fresh = now - runner.told < STALE_S
        everybodys = caller.administers
        alive = self._is_alive(runner)
        room = runner.info.room if alive else None
        return RunnerView(
            id=name,
            alive=alive,
            heard_at=runner.heard_at,
            platform=runner.info.platform,
            python=runner.info.python,
            capabilities=runner.info.capabilities,
            pythons=list(runner.info.pythons),
            runs=runner.runs(None if everybodys else caller.user) if fresh else 0,
            fits=room.fits if room else None,
            warning=SLOW if room and room.is_busy else None,
            memory=_memory(room) if room and everybodys else None,
            host=runner.host if fresh and everybodys else None,
        )

    def _forget_old(self) -> None:
        since = self._clock() - FORGOTTEN_S
        self._runners = {name: one for name, one in self._runners.items() if one.heard > since}


def _memory(room: Room) -> RunnerMemory:
    return RunnerMemory(
        total_bytes=room.memory_total_bytes,
        free_bytes=room.memory_free_bytes,
        promised_bytes=room.memory_promised_bytes,
        each_bytes=room.each_bytes,
        most_runs=room.most_runs,
    )
