"""`python -m services.runner.probe`: prints as JSON what this host can do for a run.

It asks a warden of its own, since what that may do is found out by doing it; nothing stays.
"""

import asyncio
import json
import sys
import tempfile
from pathlib import Path

from services.runner.backends.base import BackendLost
from services.runner.backends.process import ProcessBackend


async def capabilities() -> dict[str, str]:
    """Raises BackendLost."""
    with tempfile.TemporaryDirectory(
        prefix="openbell-probe-", ignore_cleanup_errors=True
    ) as folder:
        backend = ProcessBackend(Path(folder) / "warden")
        try:
            await backend.recover()
            told = backend.capabilities.as_texts()
            await backend.shut_down()
        finally:
            await backend.close()
    return told


if __name__ == "__main__":
    try:
        sys.stdout.write(json.dumps(asyncio.run(capabilities())))
    except BackendLost as error:
        sys.exit(str(error))
