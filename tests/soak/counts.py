"""What Openbell's own processes hold on this host, and what runs have left on it."""

import contextlib
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import psutil

from tests.fixtures.logs import disk_bytes
from tests.fixtures.processes import name_of
from tests.fixtures.stack import Stack, processes_of

MB = 1024**2
DATABASE = "openbell.db"
GROUPS = Path("/sys/fs/cgroup")
PARENT = re.compile(r"openbell-[0-9a-f]+")


@dataclass(frozen=True, slots=True)
class Counts:
    """Of one process, or of the host."""

    descriptors: int
    """But for the database's: SQLite keeps as many as were ever needed at one time."""
    sockets: int
    threads: int
    memory_mb: float
    zombies: int
    """Children that have ended and were not waited for."""


@dataclass(frozen=True, slots=True)
class Look:
    """At one moment."""

    at_s: float
    """Since the beginning."""
    product: Counts
    nats: Counts
    warden: Counts
    runs: int
    """Cells that the warden remembers."""
    groups: int
    """Control groups of runs, under all controllers."""
    strangers: int
    """Processes of strategies."""
    logs_mb: float
    """What the logs of all runs take up on the disk."""

    def row(self) -> str:
        own = [self.product, self.nats, self.warden]
        cells = " | ".join(" ".join(_shown(value) for value in astuple(one)) for one in own)
        host = f"{self.runs:5} {self.groups:6} {self.strangers:9} {self.logs_mb:8.1f}"
        return f"{self.at_s:6.0f} | {cells} | {host}"


def heading() -> str:
    columns = " ".join(f"{field.name[:7]:>7}" for field in fields(Counts))
    names = " | ".join(f"{name:{len(columns)}}" for name in ("product", "nats-server", "warden"))
    host = f"{'cells':>5} {'groups':>6} {'processes':>9} {'logs MB':>8}"
    return f"{'':6} | {names} |\n{'s':>6} | {columns} | {columns} | {columns} | {host}"


def _shown(value: float) -> str:
    return f"{value:7.1f}" if isinstance(value, float) else f"{value:7}"


class Observer:
    """Knows whose processes are whose: cells are forks of the warden, and look like it."""

    def __init__(self, stack: Stack) -> None:
        self._home = stack.home
        self._product = psutil.Process(stack.processes[0].pid)
        self._nats = next(p for p in processes_of(stack.home) if "nats-server" in p.name())

    def look(self, at_s: float) -> Look:
        warden = self.warden()
        return Look(
            at_s,
            counts(self._product),
            counts(self._nats),
            counts(warden) if warden else Counts(0, 0, 0, 0.0, 0),
            len(self.cells()),
            len(self.groups()),
            len(strategies(warden)),
            self.log_bytes() / MB,
        )

    def warden(self) -> psutil.Process | None:
        """The oldest of its kind; None when it has ended, with nothing to do."""
        found = [p for p in processes_of(self._home) if _is_warden(p)]
        return min(found, key=lambda process: process.create_time(), default=None)

    def cells(self) -> Sequence[str]:
        folder = self._home / "data" / "warden" / "cells"
        return [path.name for path in folder.iterdir()]

    def log_bytes(self) -> int:
        files = (self._home / "log").rglob("*.*")
        return sum(disk_bytes(file) for file in files if file.is_file())

    def groups(self) -> Sequence[str]:
        """Of this home: each controller of the first version has its own."""
        ours = self._home / "data" / "warden" / "groups.json"
        parents = set(PARENT.findall(ours.read_text() if ours.exists() else ""))
        return [
            f"{path}/{run}"
            for path, runs in folders(GROUPS)
            if path.name in parents
            for run in runs
        ]


def folders(top: Path) -> Iterator[tuple[Path, Sequence[str]]]:
    """With the names of the folders in each. What vanishes meanwhile is passed over."""
    for path, names, _ in os.walk(top):
        yield Path(path), names


def _is_warden(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return "warden.main" in " ".join(process.cmdline())
    return False


def strategies(warden: psutil.Process | None) -> Sequence[psutil.Process]:
    """All that descends from the warden, zombies included, but for what they are forked from."""
    with contextlib.suppress(psutil.NoSuchProcess):
        found = warden.children(recursive=True) if warden else []
        return [process for process in found if name_of(process) != "openbell-zygote"]
    return []


def counts(process: psutil.Process) -> Counts:
    assert sys.platform != "win32"
    with process.oneshot():
        return Counts(
            process.num_fds() - sum(DATABASE in file.path for file in process.open_files()),
            len(process.net_connections("all")),
            process.num_threads(),
            process.memory_info().rss / MB,
            _zombies(process.children()),
        )


def _zombies(children: Iterable[psutil.Process]) -> int:
    found = 0
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            found += child.status() == psutil.STATUS_ZOMBIE
    return found
