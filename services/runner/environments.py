"""The environments of strategies: immutable, built once of a lock, shared by hash.

Nothing of a package is executed while its environment is made: wheels alone are unpacked, and what
compiles them is the interpreter itself, without its `site`, which would execute their `.pth` files.
"""

import asyncio
import contextlib
import hashlib
import os
import platform
import secrets
import shutil
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import structlog
from filelock import AsyncFileLock

from services.runner.artifacts import Artifacts
from services.runner.pythons import NoSuchPython, Pythons, base_interpreter
from services.runner.uv_process import UvFailed, uv

log = structlog.get_logger()

DEFAULT_LOCK = Path(__file__).with_name("default-environment.txt")
READY = ".ready"
"""The last to be written: how many bytes the environment has."""
USED = ".used"
"""Touched by each start."""
LOCKS = "locks"
BY_LINES = ".by-lines"
"""Marks an environment in which every interpreter writes its output line by line."""
LINES = """\
import sys; sys.stdout is None or sys.stdout.reconfigure(line_buffering=True)
"""
"""A line that `site` executes before any script. Half the system calls of PYTHONUNBUFFERED, which
writes the end of each line by itself."""
TESTS = r"[/\\]tests[/\\]"
"""What nobody imports: two thirds of what there is to compile in pandas."""
BUILD_S = 1800
AT_ONE_TIME = 2

Telling = Callable[[str], Awaitable[None]]
"""Hears, in words, what a start has to wait for."""


class BuildFailed(Exception):
    """An environment could not be built; the message is uv's own."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What an environment is made of."""

    lock_sha256: str | None
    """None: the default packages."""
    base: Path
    version: str

    @property
    def key(self) -> str:
        lock = self.lock_sha256 or hashlib.sha256(DEFAULT_LOCK.read_bytes()).hexdigest()
        host = f"{self.base} {self.version} {platform.machine()}"
        return hashlib.sha256(f"{lock} {host}".encode()).hexdigest()[:16]

    @property
    def words(self) -> str:
        which = "its" if self.lock_sha256 else "the default"
        return f"building {which} environment, with Python {self.version}"


class Environments:
    """Builds into `folder`. With `python` given, that interpreter is the default environment."""

    def __init__(
        self, folder: Path, python: Path | None, pythons: Pythons, artifacts: Artifacts
    ) -> None:
        self._folder = folder
        self._python = python
        self._pythons = pythons
        self._artifacts = artifacts
        self._building: dict[str, asyncio.Task[None]] = {}
        self._turns = asyncio.Semaphore(AT_ONE_TIME)

    async def interpreter(
        self, lock_sha256: str | None = None, python: str | None = None, tell: Telling | None = None
    ) -> Path:
        """That of the environment with this lock and Python, which is built when it is missing.

        Raises BuildFailed; ServiceUnavailable when its lock cannot be had.
        """
        if lock_sha256 is None and python is None and self._python is not None:
            return self._python
        recipe = await self._recipe(lock_sha256, python)
        folder = self._folder / recipe.key
        while not await asyncio.to_thread(_take, folder):
            if tell is not None:
                await tell(recipe.words)
            await self._built(recipe)
        return _interpreter(folder)

    def key(self, python: Path) -> str:
        """Of the environment that this interpreter is of; empty for one that is none of ours."""
        folder = python.parent.parent
        return folder.name if folder.parent == self._folder else ""

    async def build_ahead(self, lock: str | None, python: str) -> None:
        """Begin with what was locked just now, so that its first start need not wait. What fails
        is told to the start that meets it.
        """
        sha256 = None if lock is None else hashlib.sha256(lock.encode()).hexdigest()
        with contextlib.suppress(BuildFailed, OSError):
            if lock is not None and sha256 is not None:
                await asyncio.to_thread(_write, self._lock_file(sha256), lock.encode())
            recipe = await self._recipe(sha256, python)
            if not (self._folder / recipe.key / READY).exists():
                self._build_once(recipe)

    async def close(self) -> None:
        building = list(self._building.values())
        for task in building:
            task.cancel()
        await asyncio.gather(*building, return_exceptions=True)

    async def _recipe(self, lock_sha256: str | None, python: str | None) -> Recipe:
        if python is None:
            return Recipe(lock_sha256, Path(base_interpreter()), platform.python_version())
        try:
            found = await self._pythons.pick(python)
        except NoSuchPython as error:
            raise BuildFailed(str(error)) from None
        return Recipe(lock_sha256, found.path, found.text)

    async def _built(self, recipe: Recipe) -> None:
        """Whoever waits may leave: the build goes on, for the next who asks."""
        await asyncio.shield(self._build_once(recipe))

    def _build_once(self, recipe: Recipe) -> asyncio.Task[None]:
        key = recipe.key
        if key not in self._building:
            task = asyncio.create_task(self._build(recipe))
            self._building[key] = task
            task.add_done_callback(lambda done: self._end(key, done))
        return self._building[key]

    def _end(self, key: str, task: asyncio.Task[None]) -> None:
        del self._building[key]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("an environment could not be built", key=key, reason=str(error))

    async def _build(self, recipe: Recipe) -> None:
        """One process of a host builds it, the others find it built."""
        folder = self._folder / recipe.key
        self._folder.mkdir(parents=True, exist_ok=True)
        lock = await self._lock(recipe.lock_sha256)
        async with self._turns, AsyncFileLock(f"{folder}.lock"):
            if (folder / READY).exists():
                return
            log.info(recipe.words, key=recipe.key)
            try:
                async with asyncio.timeout(BUILD_S):
                    await _make(folder, lock, recipe.base)
            except TimeoutError:
                raise BuildFailed(f"it took longer than {BUILD_S} s") from None
            except UvFailed as error:
                raise BuildFailed(str(error)) from None
            log.info("an environment is ready", key=recipe.key)

    async def _lock(self, sha256: str | None) -> Path:
        """Raises ServiceUnavailable."""
        if sha256 is None:
            return DEFAULT_LOCK
        file = self._lock_file(sha256)
        if await asyncio.to_thread(_touched_hash, file) != sha256:
            await asyncio.to_thread(_write, file, await self._artifacts.get(sha256))
        return file

    def _lock_file(self, sha256: str) -> Path:
        return self._folder / LOCKS / f"{sha256}.txt"


async def _make(folder: Path, lock: Path, base: Path) -> None:
    """Marked ready at the very end: a build that was cut short is begun anew.

    Raises UvFailed, BuildFailed.
    """
    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    await uv("venv", "--quiet", "--no-python-downloads", "--python", str(base), str(folder))
    before = await asyncio.to_thread(_contents, folder)
    await uv(
        *("pip", "sync", "--quiet", "--require-hashes", "--allow-empty-requirements"),
        *("--only-binary", ":all:", "--no-compile-bytecode", "--no-python-downloads"),
        *("--python", str(_interpreter(folder)), str(lock)),
    )
    after = await asyncio.to_thread(_contents, folder, before)
    if changed := [name for name, content in before.items() if after.get(name) != content]:
        raise BuildFailed(f"a package of it replaces {changed[0]}, which is the environment's own")
    await _compile(folder, base)
    await asyncio.to_thread(write_by_lines, folder)
    size = await asyncio.to_thread(_size, folder)
    await asyncio.to_thread((folder / READY).write_text, str(size))


async def _compile(folder: Path, base: Path) -> None:
    """What cannot be compiled is left to whoever imports it."""
    process = await asyncio.create_subprocess_exec(
        *(str(base), "-I", "-S", "-m", "compileall", "-qq", "-j", "0", "-x", TESTS),
        *map(str, _packages(folder)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        env={name: os.environ[name] for name in ("SYSTEMROOT", "TEMP") if name in os.environ},
    )
    try:
        await process.wait()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise


def _contents(folder: Path, only: dict[str, bytes] | None = None) -> dict[str, bytes]:
    """What lies in it, by name: the bytes of a file, the target of a link."""
    found: dict[str, bytes] = {}
    for at, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(at) / name
            relative = path.relative_to(folder).as_posix()
            if only is not None and relative not in only:
                continue
            if path.is_symlink():
                found[relative] = os.fsencode(path.readlink())
            elif path.is_file():
                found[relative] = path.read_bytes()
    return found


def _size(folder: Path) -> int:
    """As if it shared nothing with others."""
    paths = (Path(at) / name for at, _, files in os.walk(folder) for name in files)
    return sum(path.lstat().st_size for path in paths)


def _packages(folder: Path) -> list[Path]:
    windows = folder / "Lib" / "site-packages"
    return [path for path in (windows, *folder.glob("lib/python*/site-packages")) if path.is_dir()]


def write_by_lines(environment: Path) -> None:
    """Let every interpreter of this environment write what it prints when its line ends."""
    for packages in _packages(environment):
        (packages / "openbell_lines.pth").write_text(LINES)
        (environment / BY_LINES).touch()


def writes_by_lines(python: Path) -> bool:
    """Whether this interpreter is of such an environment."""
    return (python.parent.parent / BY_LINES).exists()


def _interpreter(environment: Path) -> Path:
    if sys.platform == "win32":
        return environment / "Scripts" / "python.exe"
    return environment / "bin" / "python"


def _take(folder: Path) -> bool:
    """Whether it is there to be used, and marked as used: so that nobody removes it now."""
    if not (folder / READY).exists():
        return False
    try:
        (folder / USED).touch()
    except FileNotFoundError:  # it is being removed
        return False
    return (folder / READY).exists()


def _touched_hash(file: Path) -> str | None:
    try:
        os.utime(file)
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError:
        return None


def _write(file: Path, body: bytes) -> None:
    """Whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f"{file.name}.{secrets.token_hex(8)}.draft")
    draft.write_bytes(body)
    draft.replace(file)
