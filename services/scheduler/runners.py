"""Which runners are there, and which of them takes a run."""

import time
from collections.abc import Callable

from openbell.contracts.model import RunnerInfo

SILENT_S = 12.0
"""Without a heartbeat for this long, a runner gets no new runs; those it has, it keeps."""


class Runners:
    """What heartbeats told. Ages are measured on the monotonic clock of this process."""

    def __init__(
        self, appeared: Callable[[], None], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._appeared = appeared
        self._monotonic = monotonic
        self._heard: dict[str, float] = {}

    def heard(self, runner: str, info: RunnerInfo | None) -> None:
        """A heartbeat, or with None a farewell."""
        if info is None:
            self._heard.pop(runner, None)
            return
        known = self._is_present(runner)
        self._heard[runner] = self._monotonic()
        if not known:
            self._appeared()

    def pick(self, previous: str | None) -> str | None:
        """The runner for a new run; the one that had the last, where its logs and files are."""
        present = sorted(runner for runner in self._heard if self._is_present(runner))
        if previous in present:
            return previous
        return present[0] if present else None

    def _is_present(self, runner: str) -> bool:
        at = self._heard.get(runner)
        return at is not None and self._monotonic() - at < SILENT_S
