"""Hears what runners tell of themselves and of their runs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

import structlog

from openbell.contracts.errors import UnknownStrategy
from openbell.contracts.metrics import RunMetrics, RunnerMetrics
from services.api.board import Board
from services.api.metrics.runners import Runners
from services.api.metrics.store import Store

log = structlog.get_logger()


class Metrics:
    """Kept by each replica for itself: all of them hear the same."""

    def __init__(self, board: Board, wall: Callable[[], float] = time.time) -> None:
        self._board = board
        self._wall = wall
        self.store = Store()
        self.runners = Runners()

    async def told(self, metrics: RunnerMetrics) -> None:
        """Of a run that is not that runner's, nothing is believed. The time is our own."""
        try:
            owners: Counter[str] = Counter()
            for run in metrics.runs:
                owner = await self._owner(metrics.runner, run)
                if owner is not None:
                    owners[owner] += 1
                    self.store.add(self._wall(), run)
            self.runners.told(metrics, owners)
        except Exception:
            log.exception("metrics could not be taken", runner=metrics.runner)

    async def _owner(self, runner: str, run: RunMetrics) -> str | None:
        try:
            view = await self._board.get(run.strategy_id)
        except UnknownStrategy:
            return None
        there = view.run is not None and (view.run.id, view.run.runner) == (run.run_id, runner)
        return view.owner.id if there else None
