"""Files that hold a key: whole or not there at all."""

from pathlib import Path

import pytest

from openbell import private_files


def refusing(times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Windows does, as long as somebody reads the file."""
    replace, left = Path.replace, times

    def refuse(draft: Path, target: Path) -> Path:
        nonlocal left
        left -= 1
        if left >= 0:
            raise PermissionError(13, "it is being used by another process")
        return replace(draft, target)

    monkeypatch.setattr(Path, "replace", refuse)
    monkeypatch.setattr(private_files, "REPLACE_S", 0)


def test_a_file_that_is_read_just_now_is_replaced_a_moment_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "key"
    private_files.write(file, "old")
    refusing(3, monkeypatch)
    private_files.write(file, "new")
    assert private_files.read(file) == "new"
    assert [found.name for found in tmp_path.iterdir()] == ["key"]


def test_a_file_that_cannot_be_replaced_at_all_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "key"
    private_files.write(file, "old")
    refusing(1000, monkeypatch)
    with pytest.raises(PermissionError):
        private_files.write(file, "new")
    assert private_files.read(file) == "old"
