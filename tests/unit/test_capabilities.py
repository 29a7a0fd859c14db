"""What a host can do, in words."""

import json
from pathlib import Path

import pytest

from openbell import capabilities, doctor


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


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"own_user": "no", "namespaces": "yes"}, "strategies have no sight of others"),
        ({"own_user": "no", "namespaces": "no", "why_not": "a test"}, capabilities.EXPOSED),
    ],
)
def test_doctor_says_plainly_that_nothing_is_kept_apart(
    told: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With a probe that tells of another host."""
    package = tmp_path / "services" / "runner"
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").touch()
    room = {"memory_total_bytes": 2**31, "memory_free_bytes": 2**30}
    probed = json.dumps({"capabilities": told, "pythons": {}, "room": room})
    (package / "probe.py").write_text(f"print({probed!r})")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (said,) = [check for check in doctor.examine(tmp_path) if check.name == "limits"]
    assert said.ok
    assert words in said.detail
    assert told.get("why_not", "") in said.detail
