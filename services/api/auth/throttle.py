"""Slows down who guesses: a few tries are free, then each failure doubles the wait. Pure."""

from collections import OrderedDict
from dataclasses import dataclass

FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 900.0
FORGET_S = 3600.0
MOST_KEYS = 50_000


@dataclass(slots=True)
class _Failures:
    count: int
    last: float
    blocked_until: float


class Throttle:
    """Counts failures by key. Times are seconds of one monotonic clock, passed in."""

    def __init__(self) -> None:
        self._failures: OrderedDict[str, _Failures] = OrderedDict()

    def wait_s(self, key: str, now: float) -> float:
        """How long this key is refused from now on; 0 when it may try."""
        known = self._failures.get(key)
        return max(0.0, known.blocked_until - now) if known else 0.0

    def failed(self, key: str, free: int, now: float) -> None:
        known = self._failures.pop(key, None)
        if known is None or now - known.last > FORGET_S:
            known = _Failures(0, now, now)
        known.count, known.last = known.count + 1, now
        if known.count > free:
            doubled = FIRST_WAIT_S * 2 ** min(known.count - free - 1, 20)
            known.blocked_until = now + min(doubled, LONGEST_WAIT_S)
        self._failures[key] = known
        if len(self._failures) > MOST_KEYS:
            self._failures.popitem(last=False)

    def succeeded(self, key: str) -> None:
        self._failures.pop(key, None)
