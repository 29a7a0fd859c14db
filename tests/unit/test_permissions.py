"""Who may what, as it follows from the contracts."""

import json
import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner

from openbell import nats_config, permissions
from openbell.cli import app
from openbell.contracts.base import Event
from openbell.contracts.events import CalendarChanged
from openbell.contracts.schema import command_types
from openbell.settings import NatsSettings

SERVICES = {*permissions.SERVICES, permissions.RUNNER}


def test_every_command_names_who_answers_and_who_asks() -> None:
    for kind in command_types():
        assert kind.service in SERVICES, kind
        assert kind.asked_by, kind
        assert kind.asked_by < SERVICES - {kind.service}, kind


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_nobody_may_make_a_consumer_or_hear_all(service: str) -> None:
    its = permissions.rights(service, "box-1")
    assert not any("CONSUMER" in subject for subject in its.publish)
    assert not any(subject.startswith((">", "*", "$JS.API.>")) for subject in its.publish)
    assert not any(s.startswith((">", "*", "_INBOX.", "$JS")) for s in its.subscribe)


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_no_right_is_given_twice(service: str) -> None:
    its = permissions.rights(service)
    assert len(set(its.publish)) == len(its.publish)
    assert len(set(its.subscribe)) == len(its.subscribe)


def test_those_who_commit_tell_events_and_nobody_else() -> None:
    telling = {s for s in SERVICES if Event.subjects() in permissions.rights(s).publish}
    assert telling == {"api", "scheduler"}


def test_the_calendar_tells_of_its_changes_and_answers() -> None:
    its = permissions.rights("calendar")
    assert its.publish == (CalendarChanged.SUBJECT,)
    assert its.answers
    assert CalendarChanged.SUBJECT in permissions.rights("scheduler").subscribe


def test_a_runner_names_itself_in_all_that_it_may() -> None:
    """But for what concerns none: the cache of sources."""
    its = permissions.rights("runner", "box-1")
    shared = {
        "openbell.v1.api.publish_artifact",
        "$JS.API.DIRECT.GET.OBJ_openbell_artifacts",
    }
    assert {s for s in (*its.publish, *its.subscribe) if "box-1" not in s} == shared


@pytest.mark.parametrize(
    ("settings", "login"),
    [
        ({}, (None, None)),
        ({"password": "p"}, ("api", "p")),
        ({"user": "all", "password": "p"}, ("all", "p")),
        ({"passwords": {"api": "a", "status": "s"}}, ("api", "a")),
        ({"user": "all", "password": "p", "passwords": {"api": "a"}}, ("api", "a")),
        ({"passwords": {"status": "s"}}, (None, None)),
    ],
)
def test_a_service_logs_in_with_what_is_its_own(
    settings: dict[str, object], login: tuple[str | None, str | None]
) -> None:
    assert NatsSettings.model_validate(settings).login("api") == login


def test_a_configuration_is_written_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    arguments = ["nats-config", "--runner", "box-1", "--runner", "box-2", "--out"]
    folder = tmp_path / "nats"
    done = CliRunner().invoke(app, [*arguments, str(folder)])
    assert done.exit_code == 0
    files = {file.name: file for file in folder.iterdir()}
    users = {"api", "scheduler", "calendar", "status", "runner-box-1", "runner-box-2"}
    assert set(files) == {"nats.conf", *(f"{user}.env" for user in users)}
    assert all(str(file) in done.output.replace("\n", " ").split() for file in files.values())
    for file in files.values():
        assert b"\r" not in file.read_bytes()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600

    options = json.loads(files["nats.conf"].read_text())
    assert options["jetstream"]["sync_interval"] == "always"
    written = {
        user["user"]: user["password"]
        for account in options["accounts"].values()
        for user in account["users"]
    }
    assert set(written) == users
    assert len(set(written.values())) == len(users)
    for user, password in written.items():
        assert f"OPENBELL_NATS__PASSWORD={password}\n" in files[f"{user}.env"].read_text()
    assert "OPENBELL_RUNNER__ID=box-2\n" in files["runner-box-2.env"].read_text()

    before = files["nats.conf"].read_text()
    with pytest.raises(FileExistsError):
        nats_config.write(folder, ["box-3"])
    assert files["nats.conf"].read_text() == before
    assert not (folder / "runner-box-3.env").exists()


@pytest.mark.parametrize("runner", ["*", ">", "a.b", "", "Box", "a b", "../x"])
def test_a_runner_whose_name_would_be_a_wildcard_is_refused(tmp_path: Path, runner: str) -> None:
    with pytest.raises(ValueError, match="no runner's id"):
        nats_config.write(tmp_path, [runner])
    assert list(tmp_path.iterdir()) == []
