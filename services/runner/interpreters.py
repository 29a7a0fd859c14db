"""What an interpreter consists of: what a strategy must be able to read, to run at all."""

import asyncio
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

ASK = """
import json, os, sys
print(json.dumps([sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix,
    os.path.dirname(sys.executable), os.path.dirname(os.path.realpath(sys.executable)), *sys.path]))
"""
PATIENCE_S = 30
ENVIRONMENT_MARK = "pyvenv.cfg"


class BrokenInterpreter(Exception):
    """An interpreter that does not run; the message says what it said."""


class Interpreters:
    """`home` is Openbell's own: whatever holds it is never shown to a strategy."""

    def __init__(self, home: Path) -> None:
        self._home = home.resolve()
        self._known: dict[Path, asyncio.Task[tuple[Path, ...]]] = {}

    async def readable(self, python: Path) -> tuple[Path, ...]:
        """Its folders, asked of it once, however many starts ask. Raises BrokenInterpreter.

        None where a strategy sees its host's own file system, whatever it is told to read.
        """
        if sys.platform != "linux":
            return ()
        if python not in self._known:
            self._known[python] = asyncio.create_task(self._learned(python))
        try:
            return await asyncio.shield(self._known[python])
        except BrokenInterpreter:
            self._known.pop(python, None)
            raise

    async def _learned(self, python: Path) -> tuple[Path, ...]:
        folders = [*await _ask(python), *_surroundings(python)]
        return tuple(await asyncio.to_thread(self._shown, folders))

    def _shown(self, folders: Iterable[Path]) -> list[Path]:
        return [
            folder
            for folder in dict.fromkeys(folders)
            if folder.is_absolute() and folder.exists() and not holds(folder, self._home)
        ]


def holds(folder: Path, home: Path) -> bool:
    """Whether who sees the folder sees what is in the home."""
    return home.resolve().is_relative_to(folder.resolve())


def _surroundings(python: Path) -> Iterator[Path]:
    """The environment that it is of, which it does not know without its `site`."""
    yield python.parent
    if (python.parent.parent / ENVIRONMENT_MARK).exists():
        yield python.parent.parent


async def _ask(python: Path) -> list[Path]:
    """Without its `site`, and with no variable of ours: what packages do when an interpreter comes
    up is done as the strategy's user, not as ours.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *(str(python), "-I", "-S", "-c", ASK),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={},
        )
    except OSError as error:
        raise BrokenInterpreter(f"{python}: {error.strerror}") from None
    try:
        async with asyncio.timeout(PATIENCE_S):
            output, errors = await process.communicate()
    except BaseException as error:
        process.kill()
        await process.wait()
        if isinstance(error, TimeoutError):
            raise BrokenInterpreter(f"{python} does not answer") from None
        raise
    if process.returncode != 0:
        raise BrokenInterpreter(f"{python}: {errors.decode(errors='replace').strip()[-500:]}")
    try:
        return [Path(folder) for folder in json.loads(output)]
    except ValueError:
        raise BrokenInterpreter(f"{python} does not say where it lies") from None
