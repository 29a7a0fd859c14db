"""Every Python of this host that can run strategies: found by looking, known by asking each once.

A name proves nothing: the shims of version managers are there for versions that are not. So each
candidate is executed, without its packages, and says what it is.
"""

import asyncio
import contextlib
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog
from packaging.specifiers import SpecifierSet

log = structlog.get_logger()

NAME = re.compile(r"python(3(\.\d+)?)?(\.exe)?", re.IGNORECASE)
LEAST = (3, 9)
"""What is older, no release of common packages is built for, and nobody mends."""
NEEDED = ("PATH", "HOME", "SYSTEMROOT")
"""By a shim that stands for a Python that is there."""
PATIENCE_S = 10
AT_ONE_TIME = 2
"""Whatever else comes up with the runner needs processors as well."""
ASK = """
import json, os, sys
free = getattr(sys, "abiflags", "").startswith("t")
released = sys.version_info[3] == "final" and sys.implementation.name == "cpython" and not free
print(json.dumps([os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable),
    list(sys.version_info[:3]), released]))
"""


class NoSuchPython(Exception):
    """No Python of this host will do; the message tells which there are."""


@dataclass(frozen=True, slots=True)
class Python:
    """An interpreter, by its real path: never a shim, a link or an environment's."""

    version: tuple[int, int, int]
    path: Path

    @property
    def text(self) -> str:
        return ".".join(map(str, self.version))

    @property
    def minor(self) -> str:
        return f"{self.version[0]}.{self.version[1]}"

    def is_of(self, wanted: str) -> bool:
        """Whether it is what `3.12`, or `3.12.1`, names."""
        parts = wanted.split(".")
        return self.text.split(".")[: len(parts)] == parts


class Pythons:
    """Looked for once, and again when one is asked for that was not found."""

    def __init__(self) -> None:
        self._found: tuple[Python, ...] = ()
        self._looking: asyncio.Task[tuple[Python, ...]] | None = None

    @property
    def found(self) -> tuple[Python, ...]:
        """Newest first; none before the first look is over."""
        return self._found

    async def pick(self, wanted: str | None, requires: str | None = None) -> Python:
        """The newest that is `wanted`, like 3.12, and satisfies `requires`, like >=3.11.

        Raises NoSuchPython, and InvalidSpecifier.
        """
        specifiers = SpecifierSet(requires or "")
        for look_again in (not self._found, True):
            if look_again:
                await self.look()
            for python in self._found:
                fits = wanted is None or python.is_of(wanted)
                if fits and specifiers.contains(python.text):
                    return python
        there = ", ".join(python.text for python in self._found) or "none"
        if wanted and requires and any(python.is_of(wanted) for python in self._found):
            raise NoSuchPython(
                f"it needs Python {requires}, and {wanted} was asked for; there is {there}"
            )
        raise NoSuchPython(f"there is no Python {wanted or requires} here; there is {there}")

    async def look(self) -> None:
        """One look for all who ask meanwhile, and who come and go."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(find())
        self._found = await asyncio.shield(self._looking)

    async def close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)


async def find() -> tuple[Python, ...]:
    """Newest first; of two of one version, the one that comes first on the search path."""
    candidates = await asyncio.to_thread(lambda: list(_candidates()))
    turns = asyncio.Semaphore(AT_ONE_TIME)
    told = await asyncio.gather(*(_told_by(path, turns) for path in candidates))
    found: dict[Path, Python] = {}
    for python in told:
        if python is not None and python.version >= LEAST:
            found.setdefault(python.path, python)
    return tuple(sorted(found.values(), key=lambda python: python.version, reverse=True))


def _candidates() -> Iterator[Path]:
    """Each file once, by whatever name it is found first."""
    seen: set[Path] = set()
    for path in _named():
        with contextlib.suppress(OSError):
            real = path.resolve(strict=True)
            if real not in seen and os.access(real, os.X_OK):
                seen.add(real)
                yield real


def _named() -> Iterator[Path]:
    """Openbell's own is the first: it is known to work."""
    yield Path(base_interpreter())
    roots = _pyenv_roots()
    shims = {root / "shims" for root in roots}
    for folder in map(Path, os.environ.get("PATH", "").split(os.pathsep)):
        if folder.is_absolute() and folder not in shims:  # what they stand for comes below
            yield from _in(folder)
    installed = [version for root in roots for version in _folders(root / "versions")]
    for folder in (*installed, *_folders(_uv_folder())):
        yield from _in(folder if sys.platform == "win32" else folder / "bin")


def _in(folder: Path) -> Iterable[Path]:
    with contextlib.suppress(OSError):
        return sorted(path for path in folder.iterdir() if NAME.fullmatch(path.name))
    return ()


def _folders(folder: Path) -> Sequence[Path]:
    with contextlib.suppress(OSError):
        return sorted(path for path in folder.iterdir() if path.is_dir())
    return ()


def _pyenv_roots() -> list[Path]:
    named = os.environ.get("PYENV_ROOT")
    with contextlib.suppress(RuntimeError):  # nobody's home
        usual = Path.home() / ".pyenv"
        usual = usual / "pyenv-win" if sys.platform == "win32" else usual
        return list(dict.fromkeys([*([Path(named)] if named else []), usual]))
    return [Path(named)] if named else []


def _uv_folder() -> Path:
    """Where uv installs the Pythons that it manages, as `uv python dir` tells."""
    if named := os.environ.get("UV_PYTHON_INSTALL_DIR"):
        return Path(named)
    if sys.platform == "win32":
        return Path(os.environ.get("APPDATA", "")) / "uv" / "python"
    data = os.environ.get("XDG_DATA_HOME")
    with contextlib.suppress(RuntimeError):
        return (Path(data) if data else Path.home() / ".local" / "share") / "uv" / "python"
    return Path("/nonexistent")


async def _told_by(path: Path, turns: asyncio.Semaphore) -> Python | None:
    """What it says it is; None for what does not run, or is no released CPython."""
    async with turns:
        try:
            process = await asyncio.create_subprocess_exec(
                *(str(path), "-I", "-S", "-c", ASK),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env={name: os.environ[name] for name in NEEDED if name in os.environ},
            )
        except OSError:
            return None
        try:
            async with asyncio.timeout(PATIENCE_S):
                output, _ = await process.communicate()
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            if isinstance(error, TimeoutError):
                log.warning("a Python does not answer", path=str(path))
                return None
            raise
    try:
        real, version, released = json.loads(output)
        return Python((version[0], version[1], version[2]), Path(real)) if released else None
    except (ValueError, TypeError, IndexError):
        return None


def base_interpreter() -> str:
    """The interpreter that Openbell's own environment was made from, by name.

    A search would end in the shims of version managers, which start nothing here.
    """
    return getattr(sys, "_base_executable", None) or sys.executable
