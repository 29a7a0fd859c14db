"""What Linux does for a process that enters a cell, and that Python's library does not offer."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

assert sys.platform == "linux"

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_BIND, MS_REC, MS_SLAVE = 32, 4096, 16384, 1 << 19
CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID = 0x20000, 0x8000000, 0x10000000, 0x20000000
MNT_DETACH = 2

_PR_SET_DUMPABLE, _PR_SET_NAME, _PR_SET_NO_NEW_PRIVS = 4, 15, 38
_PR_SET_MM, _PR_SET_MM_MAP = 35, 14
_CAPABILITY_VERSION_3 = 0x20080522
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_MOUNT_SETATTR = 442
"""The same on every architecture: it is newer than their common numbering."""
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41, "riscv64": 41, "armv7l": 218, "ppc64le": 203}
_KEYCTL = {"x86_64": 250, "aarch64": 219, "riscv64": 219, "armv7l": 311, "ppc64le": 271}
_KEYCTL_JOIN_SESSION_KEYRING = 1
_LOCKED = os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC | os.ST_NOATIME
"""A mount of our parent's keeps these flags, or cannot be changed at all."""

_libc = ctypes.CDLL(None, use_errno=True)
_interpreter = ctypes.PyDLL(None, use_errno=True)
"""Called without letting other threads go on."""
_kept: list[object] = []
"""Memory that the kernel has been told of."""


class _Layout(ctypes.Structure):
    """`prctl_mm_map`."""

    _fields_ = (
        *((name, ctypes.c_uint64) for name in ("start_code", "end_code", "start_data", "end_data")),
        *((name, ctypes.c_uint64) for name in ("start_brk", "brk", "start_stack", "arg_start")),
        *((name, ctypes.c_uint64) for name in ("arg_end", "env_start", "env_end")),
        ("auxv", ctypes.c_void_p),
        ("auxv_size", ctypes.c_uint32),
        ("exe_fd", ctypes.c_int32),
    )


class _MountAttributes(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def be_called(name: str) -> None:
    """In lists of processes; 15 bytes."""
    _prctl(_PR_SET_NAME, name.encode())


def be_described(argv: Sequence[str], env: Mapping[str, str]) -> None:
    """In /proc, by these words and variables, as after an exec. Not where the kernel was built
    without it.

    The words stay where they are put: what is told is the memory itself.
    """
    words = b"".join(os.fsencode(word) + b"\0" for word in argv)
    variables = b"".join(os.fsencode(f"{name}={value}") + b"\0" for name, value in env.items())
    told = ctypes.create_string_buffer(words + variables)
    _kept.append(told)
    begin = ctypes.addressof(told)
    middle, end = begin + len(words), begin + len(words) + len(variables)
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    code, stack, data = fields[23:25], fields[25], fields[42:44]
    brk = fields[44]
    _libc.sbrk.restype = ctypes.c_void_p
    addresses = [*code, *data, brk, _libc.sbrk(0), stack, begin, middle, middle, end]
    layout = _Layout(*map(int, addresses), None, 0, -1)
    _libc.prctl(_PR_SET_MM, _PR_SET_MM_MAP, ctypes.byref(layout), ctypes.sizeof(layout), 0)


def gain_no_privileges() -> None:
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def be_readable(*, yes: bool) -> None:
    """By whoever has the same user: ptrace, /proc/<pid>/mem; after an exec it is, again."""
    _prctl(_PR_SET_DUMPABLE, int(yes))


def drop_capabilities() -> None:
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()
    _checked(_libc.capset(header, nothing), "capset")


def join_new_keyring() -> None:
    """An empty session keyring, in place of the one that we were started with."""
    number = _KEYCTL.get(platform.machine())
    if number is not None and _libc.syscall(number, _KEYCTL_JOIN_SESSION_KEYRING, None) < 0:
        code = ctypes.get_errno()
        if code != errno.ENOSYS:  # a kernel without keys
            raise OSError(code, f"keyring: {os.strerror(code)}")


def fork() -> int:
    """As os.fork(), but the interpreter is told of nothing, and does nothing of what it does then:
    that is to write to a megabyte of what was shared. For children that do little; one that goes
    on as any program calls `forked()`. The caller has no other thread.
    """
    pid: int = _interpreter.fork()
    if pid < 0:
        raise OSError(ctypes.get_errno(), "fork")
    return pid


def forked() -> None:
    """Tells the interpreter that it lives in a child by now."""
    _interpreter.PyOS_BeforeFork()
    _interpreter.PyOS_AfterFork_Child()


def unshare(flags: int) -> None:
    _checked(_libc.unshare(ctypes.c_int(flags)), "unshare")


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    _checked(
        _libc.mount(
            os.fsencode(source),
            os.fsencode(target),
            kind.encode() or None,
            ctypes.c_ulong(flags),
            data.encode() or None,
        ),
        f"mount {target}",
    )


def bind(source: str, target: str, *, writable: bool = False) -> None:
    """With all that is mounted below it."""
    mount(source, target, flags=MS_BIND | MS_REC)
    _restrict(target, MS_NOSUID | MS_NODEV | (0 if writable else MS_RDONLY))


def bind_device(source: str, target: str) -> None:
    mount(source, target, flags=MS_BIND)


def change_root(new: str, old: str) -> None:
    """`new` becomes the root, and the old one is gone; `old` is a folder below `new`."""
    number = _PIVOT_ROOT.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, f"pivot_root on {platform.machine()}")
    _checked(_libc.syscall(number, os.fsencode(new), os.fsencode(old)), "pivot_root")
    os.chdir("/")
    gone = "/" + os.path.relpath(old, new)
    _checked(_libc.umount2(os.fsencode(gone), MNT_DETACH), "umount")
    Path(gone).rmdir()


def _restrict(target: str, flags: int) -> None:
    attributes = _MountAttributes(attr_set=flags)
    result = _libc.syscall(
        _MOUNT_SETATTR,
        _AT_FDCWD,
        os.fsencode(target),
        _AT_RECURSIVE,
        ctypes.byref(attributes),
        ctypes.c_size_t(ctypes.sizeof(attributes)),
    )
    if result != 0 and ctypes.get_errno() == errno.ENOSYS:  # Linux before 5.12
        kept = os.statvfs(target).f_flag & _LOCKED
        mount("", target, flags=MS_REMOUNT | MS_BIND | flags | kept)
    else:
        _checked(result, f"restrict {target}")


def _prctl(option: int, value: int | bytes) -> None:
    _checked(_libc.prctl(option, value, 0, 0, 0), f"prctl {option}")


def _checked(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
