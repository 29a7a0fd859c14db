"""Whether a runner has room for one more run, and in words why not. Pure: bytes.

When in doubt it has: a start that is refused wrongly is worse than a host that is full.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf

from openbell.contracts.room import Room

MB, GB = 1024**2, 1024**3
NO_ROOM = "no room on "
"""How each reason begins."""


@dataclass(slots=True)
class Vacancy:
    """What is left on one runner while grants are made."""

    runner: str
    room: Room | None
    """As it was told; None where it is of a release that tells none."""
    runs: int = 0
    free: float = inf
    """Below 0 where more was promised than there is."""

    def fits(self, need: int) -> bool:
        """Anything does where nothing runs: there is never going to be more room."""
        if self.room is None or not self.runs:
            return True
        return not self._is_capped and need <= self.free

    def take(self, need: int) -> None:
        self.runs += 1
        self.free -= need

    def why(self, need: int) -> str:
        """It does not fit."""
        assert self.room is not None
        if self._is_capped:
            most = self.room.most_runs
            there = f"{_counted(self.runs)} there"
            return f"{NO_ROOM}{self.runner}: {there}, and it takes {most} at most"
        total = self.room.memory_total_bytes
        taken = max(0, min(total, total - int(self.free)))
        said = f"{_of(taken, total)} are taken or promised"
        return f"{NO_ROOM}{self.runner}: {said}, and it needs {-(-need // MB)} MB"

    @property
    def _is_capped(self) -> bool:
        most = self.room.most_runs if self.room else None
        return most is not None and self.runs >= most


def vacancy(
    runner: str, room: Room | None, live: Mapping[str, int], ended: Mapping[str, int]
) -> Vacancy:
    """`live` is what each run was granted with that the runner should have, and `ended` what those
    had that have ended since the room was told: what it counted is corrected by both.
    """
    if room is None:
        return Vacancy(runner, None, len(live))
    counted = set(room.run_ids)
    coming = sum(need for run_id, need in live.items() if run_id not in counted)
    given_back = {run_id: bytes_ for run_id, bytes_ in ended.items() if run_id in counted}
    runs = len((counted | live.keys()) - given_back.keys())
    free = room.memory_free_bytes - coming + sum(given_back.values())
    return Vacancy(runner, room, runs, free)


def choose(vacancies: Iterable[Vacancy], previous: str | None, need: int) -> Vacancy | None:
    """The runner that had its last run, where its logs and files are; else the one with most room.
    None: none has any.
    """
    fitting = [one for one in vacancies if one.fits(need)]
    there = next((one for one in fitting if one.runner == previous), None)
    return there or _roomiest(fitting)


def why_none(vacancies: Iterable[Vacancy], previous: str | None, need: int) -> str:
    """Of several runners, that of the one which would have had it."""
    full = list(vacancies)
    there = next((one for one in full if one.runner == previous), None) or _roomiest(full)
    assert there is not None
    others = len(full) - 1
    return there.why(need) + (f"; nor on {others} more" if others else "")


def _roomiest(vacancies: list[Vacancy]) -> Vacancy | None:
    return min(vacancies, key=lambda one: (-one.free, one.runner), default=None)


def _of(taken: int, total: int) -> str:
    unit, name, digits = (GB, "GB", 1) if total >= GB else (MB, "MB", 0)
    return f"{taken / unit:.{digits}f} of {total / unit:.{digits}f} {name}"


def _counted(runs: int) -> str:
    return "1 run is" if runs == 1 else f"{runs} runs are"
