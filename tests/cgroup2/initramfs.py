"""The initramfs of a boot: an archive in the format newc, which is what the kernel unpacks.

The format is described in the kernel's documentation, driver-api/early-userspace/buffer-format.
"""

import json
import stat
from collections.abc import Mapping
from pathlib import Path

from tests.cgroup2.kernel import Kernel

HERE = Path(__file__).parent
FILE, PROGRAM, FOLDER = stat.S_IFREG | 0o644, stat.S_IFREG | 0o755, stat.S_IFDIR | 0o755


def made(kernel: Kernel, command: list[str], cwd: Path, environment: Mapping[str, str]) -> bytes:
    """One that starts this command in the guest, as `guest.py` reads it."""
    job = {"command": command, "cwd": str(cwd), "environment": dict(environment)}
    entries = [
        *(_entry(name, FOLDER) for name in ("bin", "modules", "dev", "host", "new", "over")),
        _entry("bin/busybox", PROGRAM, kernel.busybox.read_bytes()),
        _entry("init", PROGRAM, (HERE / "init.sh").read_bytes()),
        _entry("job", FILE, json.dumps(job).encode()),
        _entry("start", FILE, f"{command[0]} -I -S {HERE / 'guest.py'}".encode()),
        _entry("order", FILE, "\n".join(each.name for each in kernel.modules).encode()),
        *(_entry(f"modules/{each.name}", FILE, each.read_bytes()) for each in kernel.modules),
        _entry("TRAILER!!!", 0),
    ]
    return b"".join(entries)


def _entry(name: str, mode: int, content: bytes = b"") -> bytes:
    """A header of hexadecimal fields, the name, the content: each filled up to 4 bytes."""
    inode = owner = group = time = device_major = device_minor = node_major = node_minor = check = 0
    links, named = 1, name.encode() + b"\0"
    devices = (device_major, device_minor, node_major, node_minor)
    fields = (inode, mode, owner, group, links, time, len(content), *devices, len(named), check)
    header = b"070701" + b"".join(b"%08X" % field for field in fields)
    return _filled(header + named) + _filled(content)


def _filled(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
