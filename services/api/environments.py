"""The environments of versions: locked by a runner, before the version is kept."""

import asyncio
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from openbell.bus import Bus
from openbell.contracts.commands import LockedEnvironment, LockEnvironment
from openbell.contracts.errors import (
    EnvironmentRefused,
    NoAnswer,
    ServiceUnavailable,
    UnknownPython,
)
from services.api.requirements import FILE, Wanted

LOCK_S = 60
"""How long a runner may take; it gives up a little earlier, and says why."""
APPEAR_S = 3
"""How long is waited for a runner: it may be about to come up, as we are."""
LOOK_S = 0.05
LONGEST = 4000


@dataclass(frozen=True, slots=True)
class Environment:
    """What a version runs with, for good."""

    requirements: tuple[str, ...] | None = None
    requires_python: str | None = None
    python: str | None = None
    lock: bytes | None = None
    packages: int = 0

    @property
    def lock_sha256(self) -> str | None:
        return None if self.lock is None else hashlib.sha256(self.lock).hexdigest()


async def locked(bus: Bus, alive: Callable[[], Sequence[str]], wanted: Wanted) -> Environment:
    """As the first runner that can locks it.

    Raises EnvironmentRefused, which names the field and gives uv's own message, UnknownPython,
    ServiceUnavailable when no runner answers.
    """
    if wanted.is_default:
        return Environment()
    command = LockEnvironment(
        requirements=wanted.requirements,
        requires_python=wanted.requires_python,
        python=wanted.python,
    )
    try:
        answer = await _asked(bus, await _runners(alive), command)
    except EnvironmentRefused as error:
        raise EnvironmentRefused(
            error.detail[:LONGEST], errors=_errors(wanted.field, error)
        ) from None
    except UnknownPython as error:
        field = FILE if wanted.python is None else "python"
        raise UnknownPython(error.detail[:LONGEST], errors=_errors(field, error)) from None
    return Environment(
        requirements=wanted.requirements,
        requires_python=wanted.requires_python,
        python=answer.python,
        lock=None if answer.lock is None else answer.lock.encode(),
        packages=answer.packages,
    )


async def _runners(alive: Callable[[], Sequence[str]]) -> Sequence[str]:
    """Raises ServiceUnavailable when there is none."""
    for _ in range(round(APPEAR_S / LOOK_S)):
        if there := alive():
            return there
        await asyncio.sleep(LOOK_S)
    raise ServiceUnavailable("no runner is connected, so that its environment cannot be locked")


async def _asked(bus: Bus, runners: Sequence[str], command: LockEnvironment) -> LockedEnvironment:
    """One after another, until one can. What cannot be resolved on one cannot on the others."""
    missing: list[str] = []
    away: ServiceUnavailable | None = None
    until = time.monotonic() + LOCK_S
    for runner in runners:
        left_s = max(1.0, until - time.monotonic())
        try:
            return await bus.request(command, runner, timeout_s=left_s)
        except NoAnswer:
            raise
        except UnknownPython as error:
            missing.append(f"{runner}: {error.detail}" if len(runners) > 1 else error.detail)
        except ServiceUnavailable as error:
            away = error
    if away is not None:
        raise away
    raise UnknownPython("; ".join(missing))


def _errors(field: str, error: Exception) -> list[dict[str, str]]:
    return [{"field": field, "message": str(error)[:LONGEST]}]


def headline(environment: Environment) -> dict[str, str]:
    """For the audit: what differs from the default."""
    said: dict[str, str] = {}
    if environment.python is not None:
        said["python"] = environment.python
    if environment.lock_sha256 is not None:
        said["requirements"] = json.dumps(environment.requirements)[:LONGEST]
        said["lock_sha256"] = environment.lock_sha256
    return said
