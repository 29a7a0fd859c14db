"""Run tests as root on a kernel with cgroup v2, in a machine that QEMU emulates.

    make test-cgroup2                                   what is marked `cgroup2`: 5 minutes
    make test-cgroup2 ARGS="tests/unit/a.py -k v2 -x"   whatever pytest takes
    python -m tests.cgroup2 --python -m openbell doctor --smoke
                                                        not pytest, but the interpreter with these

It boots a Debian kernel (`kernel.py`) with an initramfs of ours (`initramfs.py`, `init.sh`). The
guest sees the whole file system of this host, read-only, below an overlay in its memory: the same
tree, interpreter, packages and paths, and whatever it writes is gone with it. It has cgroup2 with
all controllers at /sys/fs/cgroup, as systemd mounts it; its own /tmp, /run and /dev/shm in memory;
loopback, and no other network. Process 1 is `guest.py`: it reaps, and tells how the command ended.

The status is that of the command; 124 after `--boot-s`, 125 when the guest ended without one.
Needs Linux on x86-64, QEMU, and Debian's apt-get for the kernel, which is kept in .cache/cgroup2.
No KVM is needed: all is emulated, 20 times as slow. Half a minute of it is what tests/conftest.py
imports; a file that needs no fixture but `cgroup` runs without:

    make test-cgroup2 ARGS="--noconftest -p tests.fixtures.cgroup2 tests/cgroup2/test_kernel.py"
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.cgroup2 import initramfs, kernel

ROOT = Path(__file__).parents[2]
QEMU = "qemu-system-x86_64"
TIMED_OUT, NO_STATUS = 124, 125
SLOWNESS = "OPENBELL_TEST_SLOWNESS"
TEST_S = 600
"""For one test, in place of what pyproject.toml gives one that is not emulated."""
QUIET = "quiet loglevel=3 panic=-1 mitigations=off nokaslr audit=0 random.trust_cpu=on"


def main() -> int:
    options, arguments = _parser().parse_known_args()
    if shutil.which(QEMU) is None:
        sys.exit(f"{QEMU} is missing: apt-get install --no-install-recommends qemu-system-x86")
    try:
        booted = kernel.kept(options.kernel, ROOT / ".cache/cgroup2")
    except kernel.Missing as error:
        sys.exit(str(error))
    python = [
        str(ROOT / ".venv/bin/python"),
        *(arguments if options.python else _pytest(arguments)),
    ]
    signal.signal(signal.SIGTERM, _leave)
    with tempfile.TemporaryDirectory(prefix="openbell-cgroup2-") as folder:
        return _boot(booted, python, options, Path(folder))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.cgroup2",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--python", action="store_true", help="run the interpreter, not pytest")
    parser.add_argument("--kernel", default="linux-image-amd64", help="Debian's package of it")
    parser.add_argument("--boot-s", type=float, default=1800, help="until QEMU is ended")
    parser.add_argument("--memory", default="3G", help="of the guest, which holds its files, too")
    parser.add_argument("--cpus", type=int, default=2)
    return parser


def _pytest(arguments: list[str]) -> list[str]:
    of_pytest = ["-m", "pytest", "-p", "no:cacheprovider", f"--timeout={TEST_S}"]
    return [*of_pytest, *(arguments or ["-m", "cgroup2", *_marked()])]


def _marked() -> list[str]:
    """Found by reading: to collect every test in the guest takes minutes."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    return [str(each.relative_to(ROOT)) for each in files if "mark.cgroup2" in each.read_text()]


def _boot(
    booted: kernel.Kernel, command: list[str], options: argparse.Namespace, folder: Path
) -> int:
    image, status = folder / "initramfs", folder / "status"
    image.write_bytes(initramfs.made(booted, command, ROOT, _environment()))
    machine = [
        *(QEMU, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max,la57=off"),
        *("-m", options.memory, "-smp", str(options.cpus)),
        *("-kernel", str(booted.image), "-initrd", str(image)),
        *("-append", f"console=ttyS0 {QUIET}"),
        *("-virtfs", "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap"),
        *("-chardev", "stdio,id=output", "-serial", "chardev:output"),
        *("-chardev", f"file,id=status,path={status}", "-serial", "chardev:status"),
    ]
    with subprocess.Popen(machine, stdin=subprocess.DEVNULL) as qemu:
        try:
            qemu.wait(options.boot_s)
        except subprocess.TimeoutExpired:
            print(f"ended after {options.boot_s:.0f} s", file=sys.stderr)
            return TIMED_OUT
        finally:
            qemu.kill()
    said = status.read_text().strip()
    if not said:
        print("the guest ended without a status", file=sys.stderr)
    return int(said or NO_STATUS)


def _leave(number: int, _: object) -> None:
    """By an exception, so that QEMU is ended, too."""
    sys.exit(128 + number)


def _environment() -> dict[str, str]:
    """What the command sees in the guest."""
    ours = {name: value for name, value in os.environ.items() if name.startswith("OPENBELL_")}
    path = os.environ.get("PATH", os.defpath)
    return {**ours, SLOWNESS: "8", "PATH": path, "HOME": "/root", "LANG": "C.UTF-8", "TERM": "dumb"}


if __name__ == "__main__":
    sys.exit(main())
