"""Requirements made into a lock: exact versions with their hashes, for every platform."""

import asyncio
import re
import tempfile
from pathlib import Path

from packaging.specifiers import InvalidSpecifier

from openbell.contracts.commands import LockedEnvironment, LockEnvironment
from openbell.contracts.errors import EnvironmentRefused, ServiceUnavailable, UnknownPython
from services.runner.environments import Environments
from services.runner.pythons import NoSuchPython, Python, Pythons
from services.runner.uv_process import UvFailed, uv_telling

DEFAULT_REQUIRES = ">=3.11"
"""The Pythons that the default environment's lock is for."""
LOCK_S = 50
AT_ONE_TIME = 2
MOST_BYTES = 512 * 1024
"""Of a lock: it travels in one message."""
YANKED = re.compile(r"^warning: (.* is yanked.*)$", re.MULTILINE)
PINNED = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*==", re.MULTILINE)


class Locking:
    def __init__(self, pythons: Pythons, environments: Environments) -> None:
        self._pythons = pythons
        self._environments = environments
        self._turns = asyncio.Semaphore(AT_ONE_TIME)

    async def answer(self, command: LockEnvironment) -> LockedEnvironment:
        """Raises EnvironmentRefused, UnknownPython, ServiceUnavailable."""
        python = await self._python(command)
        chosen = command.python or python.minor
        if command.requirements is None:
            await self._environments.build_ahead(None, chosen)
            return LockedEnvironment(python=chosen)
        try:
            async with asyncio.timeout(LOCK_S), self._turns:
                lock = await _resolved(command.requirements, python)
        except TimeoutError:
            raise ServiceUnavailable(
                f"the packages could not be resolved within {LOCK_S} s"
            ) from None
        if len(lock) > MOST_BYTES:
            raise EnvironmentRefused(f"its lock has {len(lock)} bytes; at most {MOST_BYTES} do")
        await self._environments.build_ahead(lock, chosen)
        return LockedEnvironment(python=chosen, lock=lock, packages=len(PINNED.findall(lock)))

    async def _python(self, command: LockEnvironment) -> Python:
        requires = command.requires_python
        if command.requirements is None:
            requires = ",".join(filter(None, [requires, DEFAULT_REQUIRES]))
        try:
            return await self._pythons.pick(command.python, requires)
        except InvalidSpecifier as error:
            raise EnvironmentRefused(str(error)) from None
        except NoSuchPython as error:
            raise UnknownPython(str(error)) from None


async def _resolved(requirements: tuple[str, ...], python: Python) -> str:
    """Without a source distribution: building one would run its code, as us.

    Within an empty folder: what looks like a path finds nothing there.
    """
    with tempfile.TemporaryDirectory(prefix="openbell-lock-") as folder:
        try:
            output, told = await uv_telling(
                *("pip", "compile", "--universal", "--generate-hashes", "--only-binary", ":all:"),
                *("--no-header", "--no-annotate", "--no-python-downloads"),
                *("--python", str(python.path), "--python-version", python.minor, "-"),
                given="\n".join([*requirements, ""]).encode(),
                within=Path(folder),
            )
        except UvFailed as error:
            if error.unsatisfiable:
                raise EnvironmentRefused(str(error)) from None
            raise ServiceUnavailable(f"the packages could not be resolved: {error}") from None
    if yanked := YANKED.findall(told):
        raise EnvironmentRefused("; ".join(yanked))
    return output.decode()
