"""Passwords: what is accepted, how they are kept, and how fast they may be tried."""

import asyncio
import time
from collections.abc import Callable

from pwdlib import PasswordHash
from pwdlib.exceptions import UnknownHashError

from openbell.contracts.errors import InvalidRequest, TooManyTries, WrongPassword
from services.api.auth.throttle import Throttle

SHORTEST, LONGEST = 10, 256
AT_ONCE = 2
"""Hashing is slow on purpose; more at once would starve everything else."""
FREE_BY_NAME_AND_ADDRESS = 5
FREE_BY_ADDRESS = 30
FREE_BY_NAME = 100
"""Higher, so that a stranger elsewhere cannot easily keep a user out of their account."""


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
        self._throttle = Throttle()
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._decoy: str | None = None

    async def hash(self, password: str) -> str:
        async with self._slots:
            return await asyncio.to_thread(self._hasher.hash, password)

    async def verify(self, name: str, address: str, password: str, kept: str | None) -> None:
        """Raises TooManyTries, WrongPassword. As slow for an account that there is not.

        A try counts as failed until it has succeeded, so that a thousand at once are not free.
        """
        keys = {
            f"both {name} {address}": FREE_BY_NAME_AND_ADDRESS,
            f"address {address}": FREE_BY_ADDRESS,
            f"name {name}": FREE_BY_NAME,
        }
        now = self._monotonic()
        wait_s = max(self._throttle.wait_s(key, now) for key in keys)
        if wait_s > 0:
            raise TooManyTries(f"try again in {wait_s:.0f} s", retry_after_s=wait_s)
        for key, free in keys.items():
            self._throttle.failed(key, free, now)
        if not await self._matches(password, kept):
            raise WrongPassword("the name or the password is wrong")
        for key in keys:
            self._throttle.succeeded(key)

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
