"""Which environments are removed: by age and size, and none that may be in use."""

import asyncio
import os
from collections.abc import Collection
from pathlib import Path

import pytest
from filelock import FileLock

from openbell.settings import EnvironmentSettings
from services.runner import collecting
from services.runner.collecting import DAY_S, Built, Collector, superfluous
from services.runner.environments import LOCKS, READY, USED

NOW = 1_800_000_000.0
KEEP = EnvironmentSettings(keep_days=2, max_age_days=30, max_bytes=100)


def built(key: str, days: float, size: int = 10) -> Built:
    return Built(key, NOW - days * DAY_S, size)


@pytest.mark.parametrize(
    ("found", "in_use", "removed"),
    [
        ([built("old", 31), built("new", 29)], set[str](), ["old"]),
        ([built("old", 31)], {"old"}, []),
        ([built("a", 5, 60), built("b", 4, 60), built("c", 3, 60)], set[str](), ["a", "b"]),
        ([built("a", 5, 60), built("b", 4, 60), built("c", 3, 60)], {"a"}, ["b", "c"]),
        ([built("a", 1, 600), built("b", 0, 600)], set[str](), []),
        ([built("a", 1, 600), built("b", 3, 0)], set[str](), ["b"]),
    ],
)
def test_what_is_old_goes_then_what_is_too_much(
    found: list[Built], in_use: set[str], removed: list[str]
) -> None:
    assert [one.key for one in superfluous(found, in_use, KEEP, NOW)] == removed


def aged(path: Path, days: float) -> None:
    at = NOW - days * DAY_S
    os.utime(path, (at, at))


def nothing(path: Path, *, ignore_errors: bool) -> None:
    """A removal that was killed before it did anything."""


class Host:
    """A folder of environments; `in_use` is what its supervisor says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.in_use: Collection[str] | None = frozenset()

    def add(self, key: str, days: float, size: int = 10, *, whole: bool = True) -> Path:
        folder = self.folder / key
        (folder / "bin").mkdir(parents=True)
        for name in (READY, USED) if whole else ():
            (folder / name).write_text(str(size))
            aged(folder / name, days)
        aged(folder, days)
        return folder

    def collect(self) -> set[str]:
        collector = Collector(self.folder, KEEP, lambda: self.in_use, lambda: NOW)
        return set(asyncio.run(collector.collect()))

    def left(self) -> set[str]:
        return {path.name for path in self.folder.iterdir() if path.is_dir()}


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_it_is_gone_and_what_is_in_use_stays(host: Host) -> None:
    host.add("old", 40)
    host.add("used", 40)
    host.add("new", 1)
    host.in_use = {"used"}
    assert host.collect() == {"old"}
    assert host.left() == {"used", "new"}


def test_while_it_is_not_known_what_runs_nothing_goes(host: Host) -> None:
    host.add("old", 40)
    host.in_use = None
    assert host.collect() == set()
    assert host.left() == {"old"}


def test_one_that_is_being_built_stays(host: Host) -> None:
    host.add("old", 40, whole=False)
    with FileLock(host.folder / "old.lock"):
        assert host.collect() == set()
    assert host.left() == {"old"}
    assert host.collect() == {"old"}


def test_one_that_a_start_takes_at_that_very_moment_is_put_back(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = host.add("old", 40)
    rename = Path.rename

    def taken(path: Path, target: Path) -> Path:
        if path == folder:
            (folder / USED).touch()
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", taken)
    assert host.collect() == set()
    assert (folder / READY).exists()


def test_what_a_removal_left_behind_goes_with_the_next(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.add("old", 40)
    with monkeypatch.context() as patched:
        patched.setattr(collecting.shutil, "rmtree", nothing)
        assert host.collect() == {"old"}
    assert host.left() != set()
    host.collect()
    assert host.left() == set()


def test_old_locks_go_and_can_be_had_again(host: Host) -> None:
    (host.folder / LOCKS).mkdir()
    for name, days in (("old.txt", 40), ("new.txt", 1)):
        file = host.folder / LOCKS / name
        file.touch()
        aged(file, days)
    host.collect()
    assert [file.name for file in (host.folder / LOCKS).iterdir()] == ["new.txt"]


def test_without_a_folder_there_is_nothing_to_do(tmp_path: Path) -> None:
    assert Host(tmp_path / "none").collect() == set()
