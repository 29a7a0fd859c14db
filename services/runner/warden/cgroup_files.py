"""What the files of control groups say, and how they are written."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from errno import EBUSY, ENOTEMPTY
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Used:
    """What a group uses at one look. None: no controller of this host tells."""

    memory: int | None = None
    """Bytes that count towards the limit, less what the kernel has cached of files, which it gives
    back before anybody comes to harm: a run that reads large files, or writes a log, fills its
    limit with it, and needs none of that.
    """
    peak_memory: int | None = None
    """The most bytes at any time, with all file cache: the kernel keeps no other peak."""
    cpu_s: float | None = None
    processes: int = 0
    """Processes and threads now; one that ended and was not waited for is still one of them."""
    refused: int = 0
    """Processes and threads that it was not given. `Group.kill` may make it grow."""
    out_of_memory: int = 0
    """Above 0 when the kernel ended processes, since this group's memory was out, or that of a
    group above it or the host. On v2, where all end together, it counts one of them twice.
    """
    read_bytes: int | None = None
    written_bytes: int | None = None


class Setting(NamedTuple):
    path: str
    value: str
    harmless: tuple[int, ...] = ()
    """Errors after which the limit holds all the same, or as far as this kernel can."""


def read(path: str) -> str:
    with _opened(path, os.O_RDONLY) as descriptor:
        return b"".join(iter(lambda: os.read(descriptor, 1 << 16), b"")).decode()


def write(path: str, value: str) -> None:
    """Never makes a file: what is not there is not to be set."""
    with _opened(path, os.O_WRONLY) as descriptor:
        os.write(descriptor, value.encode())


@contextmanager
def _opened(path: str, flags: int) -> Generator[int]:
    """OSErrors tell the path, whatever they come from."""
    descriptor = os.open(path, flags)
    try:
        yield descriptor
    except OSError as error:
        error.filename = path
        raise
    finally:
        os.close(descriptor)


def apply(setting: Setting) -> None:
    try:
        write(setting.path, setting.value)
    except OSError as error:
        if error.errno not in setting.harmless:
            raise


def pids(folder: str) -> list[int]:
    """The processes of this very group, without zombies."""
    named = map(int, read(f"{folder}/cgroup.procs").split())
    return [pid for pid in named if pid]  # 0 is one outside of our namespace


def remove(folder: str) -> bool:
    """The group with all that were made below it. True also when it is gone already."""
    for each, _, _ in os.walk(folder, topdown=False):
        try:
            os.rmdir(each)  # noqa: PTH106
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno in (EBUSY, ENOTEMPTY):
                return False
            raise
    return True


def number(path: str) -> int | None:
    """None when this kernel has no such file."""
    try:
        return int(read(path))
    except FileNotFoundError:
        return None


def counts(path: str) -> dict[str, int]:
    """A file of lines `name number`; empty when this kernel has none."""
    with suppress(FileNotFoundError):
        return flat(read(path))
    return {}


def flat(text: str) -> dict[str, int]:
    pairs = (line.split() for line in text.splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def by_device(text: str) -> dict[str, int]:
    """The sums over all devices of v2's io.stat: `8:0 rbytes=1 wbytes=2 ...`."""
    sums: dict[str, int] = {}
    for line in text.splitlines():
        for word in line.split()[1:]:
            name, _, value = word.partition("=")
            if value.isdigit():
                sums[name] = sums.get(name, 0) + int(value)
    return sums


def lacks(folder: str, files: Iterable[str]) -> list[str]:
    return [name for name in files if not os.path.exists(f"{folder}/{name}")]  # noqa: PTH110


def distinct(folders: Mapping[str, str]) -> tuple[str, ...]:
    """Several controllers may share one folder."""
    return tuple(dict.fromkeys(folders.values()))
