"""Which runners are there, and what room they say that they have."""

import time
from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

from openbell.contracts.model import RunnerInfo
from openbell.contracts.room import Room
from services.scheduler.vacancies import vacancy

SILENT_S = 12.0
"""Without a heartbeat for this long, a runner gets no new runs; those it has, it keeps."""


class Present(NamedTuple):
    """A runner, by its last heartbeat."""

    runner: str
    at: datetime
    """When it was made, by the runner's own clock."""
    room: Room | None


class Runners:
    """What heartbeats told. Ages are measured on the monotonic clock of this process."""

    def __init__(
        self, appeared: Callable[[], None], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """`appeared` is told of a runner that comes, and of room for what had none."""
        self._appeared = appeared
        self._monotonic = monotonic
        self._heard: dict[str, tuple[float, Present]] = {}
        self._wanted: int | None = None

    def heard(self, runner: str, info: RunnerInfo | None) -> None:
        """A heartbeat, or with None a farewell."""
        if info is None:
            self._heard.pop(runner, None)
            return
        known = self._is_present(runner)
        self._heard[runner] = (self._monotonic(), Present(runner, info.at, info.room))
        if not known or self._has_room(runner, info.room):
            self._wanted = None  # whoever finds none will say so again
            self._appeared()

    def present(self) -> list[Present]:
        """By name."""
        names = sorted(runner for runner in self._heard if self._is_present(runner))
        return [self._heard[runner][1] for runner in names]

    def want(self, need: int) -> None:
        """A start waits until so many bytes are free somewhere."""
        self._wanted = need if self._wanted is None else min(self._wanted, need)

    @property
    def wanted(self) -> bool:
        """Whether a start may wait for room."""
        return self._wanted is not None

    def _has_room(self, runner: str, room: Room | None) -> bool:
        return self._wanted is not None and vacancy(runner, room, {}, {}).fits(self._wanted)

    def _is_present(self, runner: str) -> bool:
        at = self._heard.get(runner)
        return at is not None and self._monotonic() - at[0] < SILENT_S
