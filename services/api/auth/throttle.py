"""Slows down who guesses: a few tries are free, then each failure doubles the wait. Pure."""

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

FREE_BY_NAME_AND_ADDRESS = 5
FREE_BY_ADDRESS = 20
"""Names that have failed from it and never signed in."""
FREE_BY_NAME = 100
FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 900.0
LONGEST_WAIT_OF_ADDRESS_S = 60.0
"""Shorter, since those who have done nothing wait too: behind one address may be a whole office."""
FORGET_S = 3600.0
MOST_KEYS = 50_000


@dataclass(slots=True)
class _Failures:
    count: int
    last: float


class Throttle:
    """Counts failures by key. Times are seconds of one monotonic clock, passed in."""

    def __init__(self, free: int, longest_s: float = LONGEST_WAIT_S) -> None:
        self._free = free
        self._longest_s = longest_s
        self._failures: OrderedDict[Hashable, _Failures] = OrderedDict()

    def wait_s(self, key: Hashable, now: float) -> float:
        """How long this key is refused from now on; 0 when it may try."""
        known = self._failures.get(key)
        if known is None or known.count <= self._free:
            return 0.0
        doubled = FIRST_WAIT_S * 2 ** min(known.count - self._free - 1, 20)
        return max(0.0, known.last + min(doubled, self._longest_s) - now)

    def failed(self, key: Hashable, now: float) -> int:
        """How often it has, by now."""
        known = self._failures.pop(key, None)
        if known is None or now - known.last > FORGET_S:
            known = _Failures(0, now)
        known.count, known.last = known.count + 1, now
        self._failures[key] = known
        if len(self._failures) > MOST_KEYS:
            self._failures.popitem(last=False)
        return known.count

    def take_back(self, key: Hashable) -> None:
        """One failure that was none."""
        known = self._failures.get(key)
        if known is not None:
            known.count = max(0, known.count - 1)

    def clear(self, key: Hashable) -> None:
        self._failures.pop(key, None)


class Tries:
    """Limits who tries to sign in: as one name from one address, from one address, as one name.

    The second stops who tries every name with a few passwords, the third who does so from many
    addresses. Neither holds up a name at an address from which it has signed in before, so that
    no stranger, there or elsewhere, keeps people out of their accounts.
    """

    def __init__(self) -> None:
        self._pairs = Throttle(FREE_BY_NAME_AND_ADDRESS)
        self._addresses = Throttle(FREE_BY_ADDRESS, LONGEST_WAIT_OF_ADDRESS_S)
        self._names = Throttle(FREE_BY_NAME)
        self._at_home: OrderedDict[tuple[str, str], None] = OrderedDict()

    def wait_s(self, name: str, address: str, now: float) -> float:
        """How long this try is refused; 0 when it may be made."""
        pair = name, address
        wait_s = self._pairs.wait_s(pair, now)
        if pair in self._at_home:
            return wait_s
        return max(wait_s, self._addresses.wait_s(address, now), self._names.wait_s(name, now))

    def begin(self, name: str, address: str, now: float) -> None:
        """Counts as failed until it has succeeded, so that a thousand at once are not free."""
        pair = name, address
        first = self._pairs.failed(pair, now) == 1
        if pair in self._at_home:
            return
        self._names.failed(name, now)
        if first:
            self._addresses.failed(address, now)

    def succeeded(self, name: str, address: str) -> None:
        """Clears what this name did here, and nothing of what others did."""
        pair = name, address
        self._pairs.clear(pair)
        if pair not in self._at_home:
            self._addresses.take_back(address)
            self._names.take_back(name)
        self._at_home[pair] = None
        self._at_home.move_to_end(pair)
        if len(self._at_home) > MOST_KEYS:
            self._at_home.popitem(last=False)
