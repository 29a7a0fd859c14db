"""What docker compose's first start makes, and what each later one leaves alone."""

import json
import os
import stat
import sys
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("it is run in a container", allow_module_level=True)
assert sys.platform != "win32"

from openbell import compose  # noqa: E402

OTHERS = {"api", "scheduler", "calendar", "status", "runner"}


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    root = tmp_path / "secrets"
    root.mkdir()
    made(root)
    return root


def made(root: Path) -> None:
    compose.prepare(root, root.parent / "home", "local", os.geteuid())


def kept(root: Path) -> dict[str, str]:
    return {
        str(file.relative_to(root)): file.read_text()
        for file in root.rglob("*")
        if file.is_file() and file.name != compose.NATS_CONF
    }


def test_each_has_its_own_login_and_nobody_elses(secrets: Path) -> None:
    config = json.loads((secrets / "nats" / "nats.conf").read_text())
    users = [user for account in config["accounts"].values() for user in account["users"]]
    passwords = {user["user"]: user["password"] for user in users}
    assert len(set(passwords.values())) == len(passwords) == len(OTHERS)
    for user, password in passwords.items():
        folder = user.removesuffix("-local")
        holders = [name for name, text in kept(secrets).items() if password in text]
        assert holders == [f"{folder}/nats-password"]
    assert config["jetstream"]["sync_interval"] == "always"


def test_only_who_uses_the_database_knows_its_password(secrets: Path) -> None:
    password = (secrets / "postgres" / "password").read_text()
    holders = {name for name, text in kept(secrets).items() if password in text}
    using = {f"{service}/database-url" for service in (*OTHERS - {"runner"}, "migrate")}
    assert holders == {*using, "postgres/password"}


def test_what_is_there_stays_and_the_rights_are_written_anew(secrets: Path) -> None:
    before, config = kept(secrets), secrets / "nats" / "nats.conf"
    fresh = config.read_text()
    config.unlink()
    made(secrets)
    assert kept(secrets) == before
    assert config.read_text() == fresh


def test_a_services_secrets_are_its_own_to_read(secrets: Path) -> None:
    for name in kept(secrets):
        mode = stat.S_IMODE((secrets / name).stat().st_mode)
        assert mode == (0o444 if name.startswith("postgres/") else 0o400), name


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives folders away")
def test_the_home_is_made_for_its_runner_and_a_strategy_finds_its_folder(tmp_path: Path) -> None:
    compose.prepare(tmp_path, tmp_path / "home", "local", 10001)
    found = {
        name: (folder.stat().st_uid, oct(folder.stat().st_mode & 0o777))
        for name in ("data", "data/warden", "log", "strategies")
        for folder in [tmp_path / "home" / name]
    }
    assert found == {
        "data": (10001, "0o700"),
        "data/warden": (10001, "0o700"),
        "log": (10001, "0o700"),
        "strategies": (10001, "0o711"),
    }
