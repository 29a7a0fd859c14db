"""What lies in a strategy's folder is the strategy's doing: nothing of it may hurt its host."""

import hashlib
import os
import sys
from pathlib import Path

import pytest

from services.runner import sources

BODY = b"print(1)"


def checked(path: Path) -> str | None:
    return sources._hash(path)  # pyright: ignore[reportPrivateUsage]


def written(path: Path) -> None:
    sources._write(path, BODY)  # pyright: ignore[reportPrivateUsage]


def test_a_source_is_known_by_its_hash(tmp_path: Path) -> None:
    path = tmp_path / "s" / "script.py"
    assert checked(path) is None
    written(path)
    assert checked(path) == hashlib.sha256(BODY).hexdigest()


def test_a_file_of_holes_is_not_read_to_its_end(tmp_path: Path) -> None:
    """One of 16 TB kept a thread of the runner for a day; six of them, all of its threads."""
    path = tmp_path / "script.py"
    with path.open("wb") as file:
        file.truncate(1 << 43)
    path.chmod(0o644)
    assert checked(path) is None


@pytest.mark.parametrize("trap", ["link", "pipe", "folder", "unreadable"])
def test_a_trap_by_its_name_is_neither_followed_nor_waited_for(tmp_path: Path, trap: str) -> None:
    if sys.platform == "win32":
        pytest.skip("there are no such traps")
    path, victim = tmp_path / "s" / "script.py", tmp_path / "victim"
    path.parent.mkdir()
    victim.write_bytes(BODY)
    match trap:
        case "link":
            path.symlink_to(victim)
        case "pipe":
            os.mkfifo(path)
        case "folder":
            (path / "deep").mkdir(parents=True)
        case _:
            path.write_bytes(BODY)
            path.chmod(0o600)
    assert checked(path) is None
    written(path)
    assert checked(path) == hashlib.sha256(BODY).hexdigest()
    assert victim.read_bytes() == BODY
