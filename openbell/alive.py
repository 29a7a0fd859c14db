"""Tells whoever looks at this host that a process serves, and is not merely there.

By a file that is touched: who checks it needs neither a port, nor a token, nor another process of
ours. When the event loop hangs, or NATS does not answer, it grows old.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

from openbell.bus import Bus

EVERY_S = 1.0
ANSWER_S = 5


@contextlib.asynccontextmanager
async def told(file: Path, connections: Sequence[Bus]) -> AsyncGenerator[None]:
    """As long as it is entered. The file is gone afterwards."""
    telling = asyncio.create_task(_tell_forever(file, connections))
    try:
        yield
    finally:
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)
        await asyncio.to_thread(file.unlink, missing_ok=True)


async def _tell_forever(file: Path, connections: Sequence[Bus]) -> None:
    while True:
        if all(await asyncio.gather(*(bus.is_alive(ANSWER_S) for bus in connections))):
            with contextlib.suppress(OSError):  # a full disk: it looks dead, and is tried again
                await asyncio.to_thread(file.touch)
        await asyncio.sleep(EVERY_S)
