"""`python -m services.runner.probe`: prints as JSON what this host has for a run, and can do.

It asks a warden of its own, since what that may do is found out by doing it; nothing stays.
"""

import asyncio
import json
import sys
import tempfile
from pathlib import Path

from services.runner.backends.base import BackendLost
from services.runner.backends.process import ProcessBackend
from services.runner.pythons import find


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


async def main() -> dict[str, dict[str, str]]:
    """Raises BackendLost."""
    able, pythons = await asyncio.gather(capabilities(), find())
    return {
        "capabilities": able,
        "pythons": {str(python.path): python.text for python in pythons},
    }


if __name__ == "__main__":
    try:
        sys.stdout.write(json.dumps(asyncio.run(main())))
    except BackendLost as error:
        sys.exit(str(error))
