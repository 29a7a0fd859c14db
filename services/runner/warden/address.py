"""One warden a folder: its lock, its door, and the file that says where the door is."""

from __future__ import annotations

import json
import os
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO

if sys.platform == "win32":
    from .windows import lock
else:
    from .posix import belong_to, lock

LOCK = "warden.lock"
SOCKET = "warden.sock"
ADDRESS = "address.json"


def claim(folder: Path) -> IO[bytes] | None:
    """The folder's lock, to be held for life; None when another warden has it."""
    path = folder / LOCK
    while True:
        file = path.open("ab")
        if not lock(file):
            file.close()
            return None
        # Our predecessor may have unlinked it between our open and our lock; the file
        # that we hold would then keep nobody else out.
        if path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno())):
            return file
        file.close()


def listen(folder: Path, *, for_owner: bool = False) -> tuple[socket.socket, str]:
    """A listening socket and the token that each client must begin with, "" for none.

    The folder must be the working directory: a socket's absolute path may be too long. Who
    comes in is who has our user, or `for_owner` the folder's.
    """
    if sys.platform == "win32":
        listener = socket.create_server(("127.0.0.1", 0))
        token = os.urandom(32).hex()
        address = {"port": listener.getsockname()[1], "token": token}
    else:
        token = ""
        listener = _bind(Path(SOCKET))
        address = {"socket": str(folder / SOCKET)}
    listener.settimeout(0)
    _publish(folder / ADDRESS, json.dumps(address))
    if sys.platform != "win32" and for_owner:
        for name in (SOCKET, ADDRESS):
            belong_to(folder / name, folder.stat())
    return listener, token


def withdraw(folder: Path, held: IO[bytes]) -> None:
    for name in (ADDRESS, SOCKET, LOCK):
        with suppress(OSError):  # Windows unlinks no open file
            (folder / name).unlink()
    held.close()


def _bind(path: Path) -> socket.socket:
    assert sys.platform != "win32"
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)
    listener.listen(128)
    return listener


def _publish(path: Path, text: str) -> None:
    draft = path.with_suffix(".draft")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    draft.replace(path)
