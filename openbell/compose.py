"""What docker compose needs before anything else starts: `python -m openbell.compose`.

Every login and password is made once, and put where only the one that needs it finds it: into a
folder of its own below `SECRETS`, which is a volume. What is there stays; only the configuration of
nats-server is written anew each time, since a release may need rights that the last one did not.
"""

import os
import secrets
import sys
from pathlib import Path

from openbell import nats_config, permissions
from openbell.settings import Settings

assert sys.platform != "win32"  # it is run in a container

SECRETS, VOLUMES = Path("/secrets"), Path("/volumes")
"""Where `setup` finds what others have elsewhere. A new volume is root's, and they are not."""
USER = 10001
"""As whom every service runs, but for the warden."""
MADE = ".made"
"""Docker gives an empty volume the owner that its folder has in the image of whoever mounts it."""
NATS_PASSWORD, DATABASE_URL = "nats-password", "database-url"
POSTGRES_PASSWORD, NATS_CONF = "password", "nats.conf"
DATABASE = "postgresql+asyncpg://openbell:{password}@postgres:5432/openbell"
WITH_DATABASE = (*permissions.SERVICES, "migrate")
STORE = Path("/data")
"""Of nats-server."""
HEALTH_PORT = 8222
FOLDERS = {"": 0o711, "data": 0o700, "data/warden": 0o700, "log": 0o700, "strategies": 0o711}
"""Of the home. Each strategy finds its own folder, and cannot look for others."""
PRIVATE, OF_ONE_CONTAINER = 0o400, 0o444


def prepare(root: Path, home: Path, runner: str, user: int = USER) -> None:
    """Raises OSError."""
    _make_home(home, user)
    for volume in VOLUMES.glob("*"):
        (volume / MADE).touch()
        os.chown(volume, user, user)
    logins = {
        name: _kept(root / folder / NATS_PASSWORD, user)
        for name, folder in _folders(runner).items()
    }
    password = _kept(root / "postgres" / POSTGRES_PASSWORD, user, OF_ONE_CONTAINER)
    for service in WITH_DATABASE:
        file = root / service / DATABASE_URL
        _write(file, DATABASE.format(password=password), user, PRIVATE)
    config = nats_config.text(
        logins,
        [runner],
        port=nats_config.PORT,
        store=STORE,
        host="0.0.0.0",  # noqa: S104 - of its container, in networks of ours
        http=f"127.0.0.1:{HEALTH_PORT}",
    )
    _write(root / "nats" / NATS_CONF, config, user, OF_ONE_CONTAINER)


def _folders(runner: str) -> dict[str, str]:
    """By user of NATS, the folder of its service."""
    users = {service: service for service in permissions.SERVICES}
    return users | {permissions.user_of("runner", runner): "runner"}


def _make_home(home: Path, user: int) -> None:
    """The runner's, but for its folder of the warden, which is root and would make it its own."""
    for name, mode in FOLDERS.items():
        folder = home / name
        if not folder.is_dir():  # all of it at once: the warden waits for its own
            draft = folder.with_name(f"{folder.name}.draft")
            draft.mkdir(parents=True, exist_ok=True)
            _give(draft, user, mode)
            draft.rename(folder)
        if folder.stat().st_uid != user:
            _give(folder, user, mode)


def _give(folder: Path, user: int, mode: int) -> None:
    os.chown(folder, user, user)
    folder.chmod(mode)


def _kept(file: Path, user: int, mode: int = PRIVATE) -> str:
    """What the file holds; made when it is missing."""
    if not file.exists():
        _write(file, secrets.token_urlsafe(32), user, mode)
    return file.read_text("ascii")


def _write(file: Path, text: str, user: int, mode: int) -> None:
    """Whole or not at all, and on disk when this returns."""
    file.parent.mkdir(exist_ok=True)
    draft = file.with_name(f"{file.name}.draft")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as opened:
        opened.write(text)
        opened.flush()
        os.fsync(opened.fileno())
    os.chown(draft, user, user)
    draft.replace(file)


if __name__ == "__main__":
    settings = Settings()
    prepare(SECRETS, settings.home, settings.runner.id)
