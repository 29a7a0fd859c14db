"""Settings: from files, for what must be in no environment; and what is said of a wrong one."""

import os
import subprocess
from pathlib import Path

import pytest

from openbell.settings import Settings
from tests.fixtures.stack import OPENBELL


def test_a_setting_may_be_in_a_file_that_the_environment_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "password").write_text("s3cret\n")
    (tmp_path / "url").write_text("postgresql+asyncpg://here/db\n")
    monkeypatch.setenv("OPENBELL_NATS__PASSWORD_FILE", str(tmp_path / "password"))
    monkeypatch.setenv("OPENBELL_DATABASE__URL_FILE", str(tmp_path / "url"))
    monkeypatch.setenv("OTHER_NATS__URL_FILE", str(tmp_path / "url"))
    settings = Settings()
    assert settings.nats.login("api") == ("api", "s3cret")
    assert settings.database_url == "postgresql+asyncpg://here/db"
    assert settings.nats.url is None


def test_a_variable_itself_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "url").write_text("nats://file")
    monkeypatch.setenv("OPENBELL_NATS__URL_FILE", str(tmp_path / "url"))
    monkeypatch.setenv("OPENBELL_NATS__URL", "nats://variable")
    assert Settings().nats.url == "nats://variable"


def test_a_file_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBELL_DATABASE__URL_FILE", "/nowhere/url")
    with pytest.raises(FileNotFoundError, match="/nowhere/url"):
        Settings()


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("OPENBELL_RUNNER__MOST_RUNS", "0", "greater than or equal to 1"),
        ("OPENBELL_HTTP__PORT", "many", "valid integer"),
    ],
)
def test_a_wrong_setting_is_told_by_its_variable(variable: str, value: str, said: str) -> None:
    environment = {**os.environ, variable: value}
    done = subprocess.run(
        [OPENBELL, "up"], env=environment, check=False, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert f"openbell: {variable}: " in done.stderr
    assert said in done.stderr
    assert "pydantic" not in done.stderr
