"""`python -m services.runner.probe`: prints as JSON what this host has for a run, and can do.

It asks a warden of its own, since what that may do is found out by doing it; nothing stays.
"""

import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from openbell.contracts.room import Room
from openbell.settings import Settings
from services.runner.backends.base import BackendLost
from services.runner.backends.process import ProcessBackend
from services.runner.monitor.room import available, room
from services.runner.pythons import find


async def host() -> tuple[dict[str, str], Room]:
    """Its capabilities, and its room as if nothing of ours ran. Raises BackendLost."""
    with tempfile.TemporaryDirectory(
        prefix="openbell-probe-", ignore_cleanup_errors=True
    ) as folder:
        backend = ProcessBackend(Path(folder) / "warden")
        try:
            await backend.recover()
            told = backend.capabilities.as_texts()
            host, own = backend.capabilities, Settings().runner
            forks = own.fork and host.namespaces
            left = room(available(backend.ceiling()), {}, own.most_runs, None, forks=forks)
            await backend.shut_down()
        finally:
            await backend.close()
    return told, left


async def main() -> dict[str, Any]:
    """Raises BackendLost."""
    (able, left), pythons = await asyncio.gather(host(), find())
    return {
        "capabilities": able,
        "room": left.model_dump(mode="json"),
        "pythons": {str(python.path): python.text for python in pythons},
    }


if __name__ == "__main__":
    try:
        sys.stdout.write(json.dumps(asyncio.run(main())))
    except BackendLost as error:
        sys.exit(str(error))
