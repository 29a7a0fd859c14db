"""What a benchmark reports."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure, its reference, and the ratio that must hold. Units as named."""

    name: str
    value: float
    reference: float
    unit: str
    target: float
    """The largest ratio that is good enough; for a budget, the reference is the budget."""

    @property
    def ratio(self) -> float:
        return self.value / self.reference

    @property
    def met(self) -> bool:
        return self.ratio <= self.target

    def __str__(self) -> str:
        verdict = "ok  " if self.met else "MISS"
        return (
            f"{verdict} {self.name:44} {self.value:9.2f} {self.unit:4}"
            f" reference {self.reference:9.2f}   {self.ratio:5.2f}x  (at most {self.target:g}x)"
        )


def percentile(values: Sequence[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def median(values: Sequence[float]) -> float:
    return statistics.median(values)
