"""The file system of a cell: made from nothing, of what a strategy needs and no more.

The system's own folders and the strategy's interpreter, read-only; a private /tmp, /dev and
/proc; and one folder that it may write: its own. Whatever else the host has is not hidden but
absent: Openbell's home, other strategies, other people's files.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

assert sys.platform == "linux"  # before what other platforms do not have

from . import syscalls
from .syscalls import (
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    MS_SLAVE,
)

SYSTEM = (
    *("/usr", "/etc", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"),
    *("/nix/store", "/gnu/store", "/sys/devices/system"),
)
DEVICES = ("null", "zero", "full", "random", "urandom")
DEVICE_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}
SCRATCH = "size=256m,mode=1777"
"""Of /tmp and /dev/shm: it is memory, and counts as the run's."""
OLD = "old"
SHARED_DEPTH = 4
"""Of a file in /run or in a folder of it, where others have theirs."""


def readable(extra: Iterable[str]) -> Iterator[str]:
    """The folders that are bound read-only: what lies below another one comes with it.

    Of a link there is what it leads to, too.
    """
    resolver = str(_resolver(Path("/etc/resolv.conf").resolve()))
    wanted = [os.path.normpath(path) for path in extra]
    found: list[str] = []
    for path in sorted({*SYSTEM, resolver, *wanted, *map(os.path.realpath, wanted)}, key=len):
        seen = os.path.exists(path)  # noqa: PTH110 - False also where we may not look
        if seen and not any(is_below(path, above) for above in found):
            found.append(path)
    yield from found


def _resolver(file: Path) -> Path:
    """Its folder, in which it may be replaced by another one; not where more lies there than it:
    /run, or /tmp.
    """
    return file.parent if len(file.parts) > SHARED_DEPTH else file


def build(root: str, own: str, extra: Iterable[str], rooms: Iterable[str] = ()) -> None:
    """Makes it at `root`, in a mount namespace of the caller's own; with `rooms`, empty folders.
    OSError.
    """
    syscalls.mount("none", "/", flags=MS_REC | MS_SLAVE)
    syscalls.mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, "size=4m,mode=755")
    for name in ("proc", "dev/pts", "dev/shm", "tmp", OLD, *rooms):
        (Path(root) / name).mkdir(parents=True)
    for scratch in ("tmp", "dev/shm"):
        syscalls.mount("tmpfs", f"{root}/{scratch}", "tmpfs", MS_NOSUID | MS_NODEV, SCRATCH)
    for path in readable(extra):
        _show(root, path)
    # Last: it may lie below what was shown just now, or below /tmp.
    Path(root + own).mkdir(parents=True, exist_ok=True)
    syscalls.bind(own, root + own, writable=True)
    _devices(Path(root) / "dev")


def enter(root: str, *, own_processes: bool = True) -> None:
    """Leaves all else behind, for everybody in this mount namespace whose root is that of it. In a
    new namespace of processes, /proc shows that one's; for who has none, it shows the host's.
    """
    if own_processes:
        syscalls.mount("proc", f"{root}/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    else:
        syscalls.mount("/proc", f"{root}/proc", flags=MS_BIND | MS_REC)
    syscalls.change_root(root, f"{root}/{OLD}")
    syscalls.mount("", "/", flags=MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV)


def _show(root: str, path: str) -> None:
    target = Path(root + path)
    target.parent.mkdir(parents=True, exist_ok=True)
    if Path(path).is_symlink():  # /bin, where it is usr/bin
        target.symlink_to(os.readlink(path))  # noqa: PTH115 - as it is written, not resolved
        return
    if Path(path).is_dir():
        target.mkdir(exist_ok=True)
    else:
        target.touch()
    syscalls.bind(path, str(target))


def _devices(folder: Path) -> None:
    for name in DEVICES:
        (folder / name).touch()
        syscalls.bind_device(f"/dev/{name}", str(folder / name))
    for name, target in DEVICE_LINKS.items():
        (folder / name).symlink_to(target)
    syscalls.mount(
        "devpts", str(folder / "pts"), "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666"
    )


def is_below(path: str, above: str) -> bool:
    return path == above or path.startswith(above.rstrip("/") + "/")
