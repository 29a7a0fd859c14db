"""The packages of strategies: locked, built once, shared by hash. Never Openbell's own."""

import asyncio
import contextlib
import hashlib
import os
import platform
import shutil
import sys
from pathlib import Path

import structlog
from filelock import AsyncFileLock

from services.runner.pythons import base_interpreter

log = structlog.get_logger()

DEFAULT_LOCK = Path(__file__).with_name("default-environment.txt")
READY = ".ready"
BY_LINES = ".by-lines"
"""Marks an environment in which every interpreter writes its output line by line."""
LINES = """\
import sys; sys.stdout is None or sys.stdout.reconfigure(line_buffering=True)
"""
"""A line that `site` executes before any script. Half the system calls of PYTHONUNBUFFERED, which
writes the end of each line by itself."""
UV_NEEDS = {
    *("PATH", "HOME", "LANG", "TMPDIR", "XDG_CACHE_HOME"),
    *("SYSTEMROOT", "TEMP", "TMP", "USERPROFILE", "APPDATA", "LOCALAPPDATA"),
}


class BuildFailed(Exception):
    """An environment could not be built; the message is uv's own."""


class Environments:
    """Builds into `folder`. With `python` given, that interpreter serves every strategy."""

    def __init__(self, folder: Path, python: Path | None) -> None:
        self._folder = folder
        self._python = python

    @property
    def ready(self) -> bool:
        """Whether `default` answers without building."""
        return self._python is not None or (self._default / READY).exists()

    async def default(self) -> Path:
        """The interpreter of the default environment, which is built when it is missing.

        Raises BuildFailed.
        """
        if self._python is not None:
            return self._python
        if not (self._default / READY).exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            async with AsyncFileLock(f"{self._default}.lock"):
                if not (self._default / READY).exists():
                    await _build(self._default, DEFAULT_LOCK)
        return _interpreter(self._default)

    @property
    def _default(self) -> Path:
        lock = DEFAULT_LOCK.read_bytes()
        host = f"{base_interpreter()} {platform.python_version()} {platform.machine()}"
        return self._folder / hashlib.sha256(lock + host.encode()).hexdigest()[:16]


async def _build(environment: Path, lock: Path) -> None:
    """Marked ready at the very end: a build that was cut short is begun anew."""
    log.info("building the default environment of strategies; this happens once")
    await asyncio.to_thread(shutil.rmtree, environment, ignore_errors=True)
    await _uv("venv", "--quiet", "--python", base_interpreter(), str(environment))
    await _uv(
        *("pip", "sync", "--quiet", "--require-hashes", "--compile-bytecode"),
        *("--only-binary", ":all:"),  # no code of a package runs while it is installed
        *("--python", str(_interpreter(environment)), str(lock)),
    )
    await asyncio.to_thread(write_by_lines, environment)
    await asyncio.to_thread((environment / READY).touch)
    log.info("the default environment is ready")


def write_by_lines(environment: Path) -> None:
    """Let every interpreter of this environment write what it prints when its line ends."""
    windows = environment / "Lib" / "site-packages"
    for packages in (windows, *environment.glob("lib/python*/site-packages")):
        if packages.is_dir():
            (packages / "openbell_lines.pth").write_text(LINES)
            (environment / BY_LINES).touch()


def writes_by_lines(python: Path) -> bool:
    """Whether this interpreter is of such an environment."""
    return (python.parent.parent / BY_LINES).exists()


async def _uv(*arguments: str) -> None:
    from uv import find_uv_bin  # noqa: PLC0415 - not needed where an interpreter is given

    process = await asyncio.create_subprocess_exec(
        find_uv_bin(),
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=_uv_environment(),
    )
    try:
        output, _ = await process.communicate()
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise
    if process.returncode != 0:
        raise BuildFailed(output.decode(errors="replace").strip()[-2000:])


def _uv_environment() -> dict[str, str]:
    """What uv needs of ours; addresses and tokens of Openbell are none of its business."""
    passed = {
        name: value
        for name, value in os.environ.items()
        if name in UV_NEEDS or name.upper().endswith("_PROXY") or name.startswith(("UV_", "SSL_"))
    }
    return {**passed, "NO_COLOR": "1"}


def _interpreter(environment: Path) -> Path:
    if sys.platform == "win32":
        return environment / "Scripts" / "python.exe"
    return environment / "bin" / "python"
