"""A few tries are free; then each failure doubles the wait, for who guesses and nobody else."""

import pytest

from services.api.auth import throttle
from services.api.auth.throttle import (
    FORGET_S,
    FREE_BY_ADDRESS,
    FREE_BY_NAME,
    LONGEST_WAIT_OF_ADDRESS_S,
    LONGEST_WAIT_S,
    Throttle,
    Tries,
)

HERE, ELSEWHERE = "10.0.0.1", "10.0.0.2"


def test_some_tries_are_free_and_then_the_wait_doubles() -> None:
    tries = Throttle(3)
    waits: list[float] = []
    for _ in range(8):
        tries.failed("k", now=0)
        waits.append(tries.wait_s("k", now=0))
    assert waits == [0, 0, 0, 1, 2, 4, 8, 16]
    assert tries.wait_s("k", now=15.5) == 0.5
    assert tries.wait_s("k", now=17) == 0
    assert tries.wait_s("other", now=0) == 0


def test_the_wait_has_an_end_and_success_clears_it() -> None:
    tries = Throttle(0)
    for _ in range(1000):
        tries.failed("k", now=0)
    assert tries.wait_s("k", now=0) == LONGEST_WAIT_S
    tries.clear("k")
    assert tries.wait_s("k", now=0) == 0


def test_what_is_long_ago_is_forgotten() -> None:
    tries = Throttle(3)
    for _ in range(5):
        tries.failed("k", now=0)
    tries.failed("k", now=FORGET_S + 1)
    assert tries.wait_s("k", now=FORGET_S + 1) == 0


def test_guessing_names_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "MOST_KEYS", 10)
    tries = Throttle(0)
    for number in range(100):
        tries.failed(str(number), now=number)
    assert len(tries._failures) == 10  # pyright: ignore[reportPrivateUsage]
    assert tries.wait_s("99", now=99) == 1


# ---- who waits


def fails(tries: Tries, name: str, address: str, now: float = 0) -> bool:
    """Whether the try was looked at."""
    if tries.wait_s(name, address, now) > 0:
        return False
    tries.begin(name, address, now)
    return True


def signs_in(tries: Tries, name: str, address: str, now: float = 0) -> bool:
    if not fails(tries, name, address, now):
        return False
    tries.succeeded(name, address)
    return True


def test_an_account_of_ones_own_makes_guessing_no_cheaper() -> None:
    tries, looked_at = Tries(), 0
    for victim in range(80):
        looked_at += fails(tries, f"victim{victim}", HERE)
        if victim % 10 == 9:
            assert signs_in(tries, "mallory", HERE)
    assert looked_at == FREE_BY_ADDRESS + 1


def test_an_office_that_mistypes_is_not_locked_out() -> None:
    """Each fails a few times, and then gets it right; hundreds of them, behind one address."""
    tries = Tries()
    for number in range(500):
        assert all(fails(tries, f"user{number}", HERE) for _ in range(4))
        assert signs_in(tries, f"user{number}", HERE)


def test_who_has_signed_in_here_is_not_held_up_by_a_stranger_here_or_elsewhere() -> None:
    tries = Tries()
    assert signs_in(tries, "alice", HERE)
    for number in range(1000):
        fails(tries, f"name{number}", HERE)
        fails(tries, "alice", f"192.0.2.{number}")
    assert not fails(tries, "bob", HERE)
    assert not fails(tries, "alice", ELSEWHERE)
    assert signs_in(tries, "alice", HERE)


def test_who_has_signed_in_here_is_still_not_guessed_here() -> None:
    tries = Tries()
    assert signs_in(tries, "alice", HERE)
    assert sum(fails(tries, "alice", HERE) for _ in range(1000)) == 6


def test_those_who_are_new_at_an_address_wait_for_a_minute_at_most() -> None:
    tries, now = Tries(), 0.0
    for number in range(100):
        now += tries.wait_s(f"name{number}", HERE, now)
        assert fails(tries, f"name{number}", HERE, now)
    assert tries.wait_s("newcomer", HERE, now) == LONGEST_WAIT_OF_ADDRESS_S
    assert signs_in(tries, "newcomer", HERE, now + LONGEST_WAIT_OF_ADDRESS_S)


def test_a_name_that_is_guessed_from_everywhere_waits_in_the_end() -> None:
    tries = Tries()
    looked_at = sum(fails(tries, "alice", f"192.0.2.{number}") for number in range(1000))
    assert looked_at == FREE_BY_NAME + 1


def test_signing_in_from_many_addresses_counts_for_nothing() -> None:
    tries = Tries()
    for number in range(1000):
        assert signs_in(tries, "alice", f"192.0.2.{number}")
        assert signs_in(tries, f"user{number}", HERE)


def test_those_who_sign_in_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "MOST_KEYS", 10)
    tries = Tries()
    for number in range(100):
        signs_in(tries, f"user{number}", HERE)
    assert len(tries._at_home) == 10  # pyright: ignore[reportPrivateUsage]
