"""What can be used is documented: every endpoint, command, event, setting, error and variable."""

import re
from pathlib import Path
from typing import Any, cast

import pytest
import typer.main
from fastapi import FastAPI
from pydantic import BaseModel

from openbell.cli import app as cli
from openbell.contracts.errors import OpenbellError
from openbell.contracts.events import EVENTS
from openbell.contracts.model import ExitReason
from openbell.settings import Settings
from services.api.service import create_app

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
API = (ROOT / "docs/how-to/api.md").read_text()
SETTINGS = (ROOT / "docs/how-to/settings.md").read_text()
GLOSSARY = (ROOT / "docs/glossary.md").read_text()


@pytest.fixture(scope="module")
def app() -> FastAPI:
    return create_app(cast("Any", None))


def test_every_endpoint_is_documented(app: FastAPI) -> None:
    for path, methods in app.openapi()["paths"].items():
        stem = path.partition("/{")[0]
        verb = stem.removeprefix("/python/")
        for method, described in methods.items():
            assert described["summary"], f"{method} {path}"
            assert verb in API, f"{method} {path}"


def test_every_command_is_documented() -> None:
    group = cast("Any", typer.main.get_command(cli))
    for name, command in group.commands.items():
        assert re.search(rf"`(openbell )?{name}\b", README), name
        assert command.help, name


def test_every_event_is_documented() -> None:
    for event in EVENTS:
        assert f"`{event.kind()}`" in API


def test_every_exit_reason_is_in_the_glossary() -> None:
    for reason in ExitReason:
        assert reason in GLOSSARY, reason


def test_every_setting_is_documented() -> None:
    for name, field in Settings.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            for inner in kind.model_fields:
                assert f"`OPENBELL_{name}__{inner}`".upper() in SETTINGS.upper(), (name, inner)
        else:
            assert f"`OPENBELL_{name}`".upper() in SETTINGS.upper(), name


def test_every_error_has_a_title_a_code_and_a_line() -> None:
    kinds = OpenbellError.__subclasses__()
    assert len({kind.code() for kind in kinds}) == len(kinds)
    for kind in kinds:
        assert kind.__doc__
        assert kind.status >= 400
        assert f"`{kind.code()}`" in API, kind.code()


def test_links_between_documents_lead_somewhere() -> None:
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]:
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
