"""Environments over HTTP and on the command line: locked at upload, refused with uv's own words."""

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from openbell.cli import app
from tests.fixtures.stack import Stack, end_all, start_one_process
from tests.fixtures.wheelhouse import flavours, of_uv

PRINTS = """\
import flavour, sys, time
print("flavour", flavour.VERSION, "python", sys.version_info[:2], flush=True)
time.sleep(600)
"""
BLOCK = "# /// script\n# dependencies = ['flavour<2']\n# ///\n"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Generator[Stack]:
    """An Openbell whose packages come from a folder."""
    folder = tmp_path_factory.mktemp("environments")
    try:
        yield start_one_process(folder / "home", **of_uv(flavours(folder / "wheels")))
    finally:
        end_all(folder / "home")


def sent(shop: Stack, source: str, **form: str) -> httpx.Response:
    files = {"file": ("script.py", source.encode())}
    return shop.http.post("/python/upload", data=form, files=files)


def refused(shop: Stack, source: str, **form: str) -> dict[str, Any]:
    """And nothing is kept of it."""
    before = shop.http.get("/python/").json()
    answer = sent(shop, source, **form)
    assert answer.status_code == 422, answer.text
    assert shop.http.get("/python/").json() == before
    return answer.json()


def test_what_a_script_needs_is_locked_when_it_is_uploaded(shop: Stack) -> None:
    view = sent(shop, BLOCK + PRINTS, name="Old").json()["strategy"]
    environment = view["version"]["environment"]
    assert (environment["kind"], environment["packages"]) == ("own", 1)
    told = shop.http.get(f"/python/environment/{view['id']}").json()
    assert told["requirements"] == ["flavour<2"]
    assert told["lock"].startswith("flavour==1.0 \\\n    --hash=sha256:")
    assert told["python"] == environment["python"]
    assert told["version"] == 1


def test_requirements_may_be_sent_and_a_python_chosen(shop: Stack) -> None:
    answer = sent(shop, PRINTS, name="New", requirements="flavour\n", python="3.11")
    environment = answer.json()["strategy"]["version"]["environment"]
    assert environment == {"kind": "own", "python": "3.11", "packages": 1}


def test_what_names_nothing_has_the_default_environment(shop: Stack) -> None:
    strategy = shop.upload("print(1)", "Plain")
    told = shop.http.get(f"/python/environment/{strategy}").json()
    assert (told["kind"], told["python"], told["packages"]) == ("default", None, None)
    assert (told["lock"], told["requirements"]) == (None, None)


def test_no_packages_at_all_is_an_environment_too(shop: Stack) -> None:
    source = "# /// script\n# dependencies = []\n# ///\n"
    view = sent(shop, source, name="Bare").json()["strategy"]
    assert view["version"]["environment"]["packages"] == 0
    assert shop.http.get(f"/python/environment/{view['id']}").json()["lock"] == ""


def test_the_impossible_is_refused_in_the_words_of_uv(shop: Stack) -> None:
    told = refused(shop, BLOCK.replace("<2", ">2"))
    assert told["code"] == "environment_refused"
    assert "Because only flavour<=2.0 is available and you require flavour>2" in told["detail"]
    assert told["errors"] == [{"field": "file", "message": told["detail"]}]
    told = refused(shop, "print(1)", requirements="flavour\nno-such-package")
    assert "no-such-package was not found" in told["detail"]
    assert told["errors"][0]["field"] == "requirements"


def test_a_python_that_no_runner_has_is_refused_with_those_that_it_has(shop: Stack) -> None:
    told = refused(shop, "print(1)", python="3.99")
    assert (told["code"], told["errors"][0]["field"]) == ("unknown_python", "python")
    assert "there is no Python 3.99 here; there is 3." in told["detail"]
    told = refused(shop, "# /// script\n# requires-python = '>=3.98'\n# ///\n")
    assert (told["code"], told["errors"][0]["field"]) == ("unknown_python", "file")


def test_a_place_is_no_requirement(shop: Stack) -> None:
    told = refused(shop, "print(1)", requirements="-r /etc/passwd")
    assert (told["code"], told["errors"][0]["field"]) == ("invalid_request", "requirements")


def test_conflicting_versions_run_side_by_side(shop: Stack) -> None:
    old = sent(shop, PRINTS, name="Side old", requirements="flavour<2").json()["strategy"]["id"]
    new = sent(shop, PRINTS, name="Side new", requirements="flavour>=2").json()["strategy"]["id"]
    for strategy in (old, new):
        shop.post(f"/python/start/{strategy}")
    assert "flavour 1.0" in shop.wait_log(old, "flavour")
    assert "flavour 2.0" in shop.wait_log(new, "flavour")
    for strategy in (old, new):
        assert shop.status(strategy)["status"] == "running"
        shop.post(f"/python/stop/{strategy}", params={"wait": 20})


def test_it_runs_in_the_python_that_was_chosen(shop: Stack) -> None:
    form = {"requirements": "flavour", "python": "3.11"}
    strategy = sent(shop, PRINTS, name="Chosen", **form).json()["strategy"]["id"]
    shop.post(f"/python/start/{strategy}")
    assert "python (3, 11)" in shop.wait_log(strategy, "flavour")
    shop.post(f"/python/stop/{strategy}", params={"wait": 20})


def openbell(shop: Stack, *arguments: str) -> str:
    environment = {"OPENBELL_TOKEN": shop.token, "COLUMNS": "200"}
    done = CliRunner().invoke(app, [*arguments, "--url", shop.url], env=environment)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_command_line_sends_requirements_and_shows_the_lock(
    shop: Stack, tmp_path: Path
) -> None:
    script, requirements = tmp_path / "by_hand.py", tmp_path / "requirements.txt"
    script.write_text(PRINTS)
    requirements.write_text("flavour==2.0  # the newest\n")
    options = ("--requirements", str(requirements), "--python", "3.11")
    openbell(shop, "upload", str(script), *options)
    shown = openbell(shop, "environment", "by_hand")
    assert "Python 3.11, 1 package of its own" in shown
    assert "flavour==2.0" in shown
    assert "--hash" not in shown
    assert "--hash=sha256:" in openbell(shop, "environment", "by_hand", "--lock")
    assert json.loads(openbell(shop, "environment", "by_hand", "--json"))["kind"] == "own"
    openbell(shop, "upload", str(script), "--name", "simple")
    assert "default packages" in openbell(shop, "environment", "simple")
