"""Passwords: what is accepted, how they are kept, and how fast they may be tried."""

import asyncio
import math
import time
from collections.abc import Callable

from pwdlib import PasswordHash
from pwdlib.exceptions import UnknownHashError

from openbell.contracts.errors import InvalidRequest, TooManyTries, WrongPassword
from services.api.auth.throttle import Tries

SHORTEST, LONGEST = 10, 256
AT_ONCE = 2
"""Hashing is slow on purpose; more at once would starve everything else."""


def check(password: str, field: str = "password") -> None:
    """Raises InvalidRequest."""
    if SHORTEST <= len(password) <= LONGEST:
        return
    message = f"use {SHORTEST} to {LONGEST} characters"
    raise InvalidRequest(f"{field}: {message}", errors=[{"field": field, "message": message}])


class Passwords:
    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._hasher = PasswordHash.recommended()
        self._monotonic = monotonic
        self._tries = Tries()
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._decoy: str | None = None

    async def hash(self, password: str) -> str:
        async with self._slots:
            return await asyncio.to_thread(self._hasher.hash, password)

    async def verify(self, name: str, address: str, password: str, kept: str | None) -> None:
        """Raises TooManyTries, WrongPassword. As slow for an account that there is not."""
        now = self._monotonic()
        wait_s = self._tries.wait_s(name, address, now)
        if wait_s > 0:
            raise TooManyTries(f"try again in {math.ceil(wait_s)} s", retry_after_s=wait_s)
        self._tries.begin(name, address, now)
        if not await self._matches(password, kept):
            raise WrongPassword("the name or the password is wrong")
        self._tries.succeeded(name, address)

    async def _matches(self, password: str, kept: str | None) -> bool:
        if len(password) > LONGEST:
            return False
        if kept is None:
            self._decoy = self._decoy or await self.hash("nobody's password")
        async with self._slots:
            try:
                matches = await asyncio.to_thread(
                    self._hasher.verify, password, kept or self._decoy or ""
                )
            except UnknownHashError:
                return False
        return matches and kept is not None
