"""List, status and start, signed in, with 1,000 strategies of 50 users.

List and status against a bare asyncio server of the same bytes, start against a bare Popen.
"""

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from bench.figure import Figure, median
from bench.list import BareServer, client
from bench.population import populate, strategy_of, token_of
from bench.start import starts
from tests.fixtures.default_environment import base_interpreter
from tests.fixtures.stack import Stack, end_all, start_one_process

USERS, STRATEGIES = 50, 1000
REQUESTS = 40
"""By each of the users, one after the other."""


def measure() -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        try:
            populate(home, users=USERS, strategies=STRATEGIES)
            stack = start_one_process(home)
            yield from _compare(stack, "/python/", "list of 20", 6)
            yield from _compare(stack, f"/python/status/{strategy_of(0)}", "status", 6, users=1)
            yield from starts(stack, Path(folder), f"start, {USERS} users", base_interpreter())
            stack.stop()
        finally:
            end_all(home)


def _compare(
    stack: Stack, path: str, what: str, target: float, users: int = USERS
) -> Iterator[Figure]:
    with stack.client(token_of(0)) as one:
        body = one.get(path).content
    with BareServer(body) as bare:
        mine: list[float] = []
        theirs: list[float] = []
        for user in range(users):
            token = token_of(user)
            ours = urlsplit(stack.url).port or 0
            mine += asyncio.run(client(ours, REQUESTS * USERS // users, token, path))
            theirs += asyncio.run(client(bare, REQUESTS * USERS // users, token))
    name = f"{what} of {STRATEGIES}, {USERS} users, p50"
    yield Figure(name, median(mine) * 1e3, median(theirs) * 1e3, "ms", target)
