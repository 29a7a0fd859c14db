"""Process 1 of the guest: runs the command of /run/job, reaps every orphan, tells the status.

It is run without the packages of the project, so that it is up at once.
"""

import ctypes
import json
import os
import resource
import sys
import termios
import time
from pathlib import Path

assert sys.platform == "linux"

STATUS = Path("/dev/ttyS1")
FILES = (1024, 524288)
"""How many a process may open, as systemd has it."""
RESTART = 0x01234567
"""Of reboot(2); QEMU is told to end instead."""


def main() -> None:
    job = json.loads(Path("/run/job").read_text())
    since_boot = time.clock_gettime(time.CLOCK_BOOTTIME)
    print(f"Linux {os.uname().release}, up after {since_boot:.1f} s", flush=True)
    began = time.monotonic()
    child = os.fork()
    if not child:
        _become(job["command"], job["cwd"], job["environment"])
    status = _reaped(child)
    print(f"status {status} after {time.monotonic() - began:.1f} s", flush=True)
    termios.tcdrain(sys.stdout)
    STATUS.write_text(f"{status}\n")
    Path("/proc/sys/kernel/printk").write_text("0")
    ctypes.CDLL(None).reboot(RESTART)


def _become(command: list[str], cwd: str, environment: dict[str, str]) -> None:
    """The command, in a session of its own."""
    os.setsid()
    resource.setrlimit(resource.RLIMIT_NOFILE, FILES)
    os.chdir(cwd)
    os.execve(command[0], command, environment)


def _reaped(child: int) -> int:
    """Waits for the child, and meanwhile for whatever else is handed to process 1."""
    while True:
        pid, ended = os.wait()
        if pid == child:
            code = os.waitstatus_to_exitcode(ended)
            return code if code >= 0 else 128 - code


if __name__ == "__main__":
    main()
