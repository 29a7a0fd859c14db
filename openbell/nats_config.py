"""What a nats-server of Openbell's is configured with, and the logins of those who use it."""

import json
import os
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from openbell import permissions
from openbell.settings import RUNNER_ID

PORT = 4222


def new_passwords(runners: Iterable[str]) -> dict[str, str]:
    """A random one for each user."""
    return {user: secrets.token_urlsafe(32) for user in permissions.users(runners)}


def text(
    passwords: Mapping[str, str], runners: Iterable[str], *, port: int, store: Path, **more: Any
) -> str:
    """A nats.conf."""
    options = {
        "host": "127.0.0.1",
        "port": port,
        "jetstream": {
            "store_dir": str(store.resolve()),
            # its default flushes every two minutes: acknowledged messages would be lost
            "sync_interval": "always",
        },
        "accounts": permissions.accounts(passwords, runners),
        **more,
    }
    return json.dumps(options, indent=2)


def write(folder: Path, runners: Sequence[str]) -> list[Path]:
    """Write a nats.conf, and for each service a file with its login. Returns the files.

    Raises FileExistsError, for what is there may be in use; ValueError for an id of no runner.
    """
    for runner in runners:
        if not re.fullmatch(RUNNER_ID, runner):
            raise ValueError(f"{runner!r} is no runner's id: lower case letters, digits, dashes")
    passwords = new_passwords(runners)
    files = {"nats.conf": text(passwords, runners, port=PORT, store=folder / "store")}
    for user, password in passwords.items():
        files[f"{user}.env"] = f"OPENBELL_NATS__PASSWORD={password}\n"
    for runner in runners:
        files[f"{permissions.user_of('runner', runner)}.env"] += f"OPENBELL_RUNNER__ID={runner}\n"
    for name in files:
        if (folder / name).exists():
            raise FileExistsError(f"{folder / name} exists already; nothing was written")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return [_write_private(folder / name, content) for name, content in files.items()]


def _write_private(file: Path, content: str) -> Path:
    """The same bytes on every system: on Windows too, a container reads them."""
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as opened:
        opened.write(content.encode())
    return file
