"""A few tries are free; then each failure doubles the wait."""

import pytest

from services.api.auth import throttle
from services.api.auth.throttle import FORGET_S, LONGEST_WAIT_S, Throttle


def test_some_tries_are_free_and_then_the_wait_doubles() -> None:
    tries = Throttle()
    waits: list[float] = []
    for _ in range(8):
        tries.failed("k", 3, now=0)
        waits.append(tries.wait_s("k", now=0))
    assert waits == [0, 0, 0, 1, 2, 4, 8, 16]
    assert tries.wait_s("k", now=15.5) == 0.5
    assert tries.wait_s("k", now=17) == 0
    assert tries.wait_s("other", now=0) == 0


def test_the_wait_has_an_end_and_success_clears_it() -> None:
    tries = Throttle()
    for _ in range(1000):
        tries.failed("k", 0, now=0)
    assert tries.wait_s("k", now=0) == LONGEST_WAIT_S
    tries.succeeded("k")
    assert tries.wait_s("k", now=0) == 0


def test_what_is_long_ago_is_forgotten() -> None:
    tries = Throttle()
    for _ in range(5):
        tries.failed("k", 3, now=0)
    tries.failed("k", 3, now=FORGET_S + 1)
    assert tries.wait_s("k", now=FORGET_S + 1) == 0


def test_guessing_names_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "MOST_KEYS", 10)
    tries = Throttle()
    for number in range(100):
        tries.failed(str(number), 0, now=number)
    assert len(tries._failures) == 10  # pyright: ignore[reportPrivateUsage]
    assert tries.wait_s("99", now=99) == 1
