"""What a host can do, in words."""

import pytest

from openbell import capabilities


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({}, ""),
        (
            {"memory_limit": "enforced", "pids_limit": "enforced", "cpu_limit": "enforced"},
            "memory, processes, processors enforced",
        ),
        (
            {"memory_limit": "watched", "cpu_limit": "none", "disk_limit": "watched", "x": "none"},
            "memory, disk watched; processors not limited",
        ),
        ({"memory_limit": "a word of another release"}, ""),
    ],
)
def test_limits_are_told_by_what_becomes_of_them(told: dict[str, str], words: str) -> None:
    assert capabilities.limits(told) == words


def test_how_strategies_are_kept_apart() -> None:
    told = {"own_user": "yes", "namespaces": "no"}
    assert capabilities.apart(told) == "a user for each owner"
    assert capabilities.apart(told | {"namespaces": "yes"}).endswith("no sight of others")
    assert capabilities.apart({}) == ""
