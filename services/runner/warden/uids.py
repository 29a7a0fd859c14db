"""A user of the host's for each owner: who has the same user can read what the other has.

The numbers belong to nobody: no name service knows them, no one can log in as one. They are
kept for good, since files belong to them.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

assert sys.platform == "linux"  # before what other platforms do not have

from .journal import sync_folder

FIRST = 1_900_000_000
FIRST_IN_A_CONTAINER = 40_000
"""Where fewer numbers are mapped."""
MOST = 20_000
HOMES = 10_000
"""So many ranges there are. A home chooses one when it is new, and keeps it when it is moved: two
Openbells of a host hardly ever give one number to two people.
"""


class Uids:
    def __init__(self, path: Path) -> None:
        self._path = path
        self.first = first(path)
        self._known: dict[str, int] = {}
        if path.exists():
            kept = json.loads(path.read_text())
            self.first, self._known = kept["first"], kept["owners"]

    def of(self, owner: str) -> int:
        """Raises OSError when it cannot be kept: what nobody remembers would be given twice."""
        if owner not in self._known:
            uid = max(self._known.values(), default=self.first - 1) + 1
            if uid >= self.first + MOST:
                raise OSError(f"no more than {MOST} owners have users of their own")
            self._known[owner] = uid
            try:
                self._keep()
            except OSError:
                del self._known[owner]
                raise
        return self._known[owner]

    def _keep(self) -> None:
        draft = self._path.with_suffix(".draft")
        with draft.open("w") as file:
            json.dump({"first": self.first, "owners": self._known}, file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._path)
        sync_folder(self._path.parent)


def available(uid_map: str | None = None) -> bool:
    """Whether this process may become such a user."""
    least = FIRST_IN_A_CONTAINER
    return os.getuid() == 0 and _mapped(least + MOST, uid_map)


def first(path: Path, uid_map: str | None = None) -> int:
    """The first of those that are for the home in which this path lies."""
    if not _mapped(FIRST + HOMES * MOST, uid_map):
        return FIRST_IN_A_CONTAINER
    home = int.from_bytes(hashlib.sha256(bytes(path.absolute())).digest()[:4])
    return FIRST + home % HOMES * MOST


def _mapped(uid: int, uid_map: str | None = None) -> bool:
    text = Path("/proc/self/uid_map").read_text() if uid_map is None else uid_map
    ranges = (tuple(map(int, line.split())) for line in text.splitlines())
    return any(start <= uid < start + count for start, _, count in ranges)


def give(folder: Path, uid: int) -> None:
    """Makes the folder, with all that is in it, this user's; never follows a link.

    The folder itself stays that of a runner that is not root, which puts sources into it; the
    user gets at it as its group. So no strategy can lock its runner out.
    """
    found, runner = folder.stat(), folder.parent.stat().st_uid
    if uid in {found.st_uid, found.st_gid}:
        return
    for _, folders, files, descriptor in os.fwalk(folder, follow_symlinks=False):
        for name in (*folders, *files):
            os.chown(name, uid, uid, dir_fd=descriptor, follow_symlinks=False)
    if runner == 0:
        os.chown(folder, uid, uid)
    else:
        os.chown(folder, runner, uid)
        folder.chmod(0o770)
