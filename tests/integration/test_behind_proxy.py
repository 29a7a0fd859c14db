"""Openbell behind a server with TLS: asked under a public name, told where callers really are."""

import os
import subprocess
from pathlib import Path

import pytest
from pydantic import ValidationError

from openbell.settings import HttpSettings, Settings
from tests.fixtures.people import PASSWORD
from tests.fixtures.stack import OPENBELL, Stack, start_one_process

NAME = "openbell.example"
BEHIND = {
    "OPENBELL_HTTP__NAMES": f"{NAME}, other.example",
    "OPENBELL_HTTP__TRUSTED_PROXIES": "127.0.0.1",
}
FORWARDED = {
    "Host": NAME,
    "Origin": f"https://{NAME}",
    "X-Forwarded-For": "198.51.100.7, 203.0.113.9",
    "X-Forwarded-Proto": "https",
}


def claimed(home: Path) -> None:
    stack = start_one_process(home)
    token = (home / "data" / "setup-token").read_text()
    stack.post("/auth/accept", json={"token": token, "name": "root", "password": PASSWORD})
    assert stack.stop() == [0]


def login(stack: Stack, **headers: str) -> int:
    body = {"name": "root", "password": PASSWORD}
    return stack.http.post("/auth/login", json=body, headers=headers).status_code


def addresses(stack: Stack) -> list[str]:
    found = stack.http.get("/admin/audit", params={"action": "login"})
    return [one["address"] for one in found.json()["entries"]]


def test_the_public_name_is_answered_and_the_real_address_kept(home: Path) -> None:
    claimed(home)
    stack = start_one_process(home, **BEHIND)
    assert login(stack, **FORWARDED) == 200
    assert addresses(stack)[0] == "203.0.113.9"  # what the proxy itself added, not its caller
    assert login(stack) == 200
    assert login(stack, Host="evil.example") == 403
    assert login(stack, **{**FORWARDED, "Origin": "https://evil.example"}) == 403
    assert stack.stop() == [0]


def test_without_a_trusted_proxy_nobody_chooses_an_address(home: Path) -> None:
    claimed(home)
    stack = start_one_process(home, OPENBELL_HTTP__NAMES=NAME)
    assert login(stack, **FORWARDED) == 200
    assert addresses(stack)[0] == "127.0.0.1"
    assert stack.stop() == [0]


def test_a_public_name_is_refused_until_somebody_can_sign_in(home: Path) -> None:
    with pytest.raises(AssertionError, match="did not come up"):
        start_one_process(home, **BEHIND)
    told = (home / "up.stderr").read_text()
    assert f"{NAME}, other.example is refused until somebody can sign in" in told


def test_behind_a_proxy_of_our_own_any_address_may_be_served_under_known_names(home: Path) -> None:
    environment = {
        "OPENBELL_HTTP__HOST": "0.0.0.0",
        "OPENBELL_HTTP__PRIVATE": "true",
        "OPENBELL_HTTP__PUBLIC_URL": "https://known.example",
    }
    stack = start_one_process(home, **environment)
    stack.http.base_url = stack.url.replace("0.0.0.0", "127.0.0.1")
    assert stack.http.get("/healthz").status_code == 200
    assert stack.http.get("/healthz", headers={"Host": "evil.example"}).status_code == 403
    assert stack.processes[0].stdout is not None
    link = next(line for line in stack.processes[0].stdout if "First start" in line)
    assert "https://known.example/join#setup_" in link
    assert stack.stop() == [0]
    with pytest.raises(AssertionError, match="did not come up"):
        start_one_process(home, **environment, OPENBELL_HTTP__NAMES=NAME)
    assert f"{NAME} is refused until somebody can sign in" in (home / "up.stderr").read_text()


@pytest.mark.parametrize("folder", ["", "data"])
def test_an_unmigrated_database_is_said_plainly(home: Path, folder: str) -> None:
    (home / folder).mkdir(parents=True)
    ended = subprocess.run(
        [OPENBELL, "run", "api", "--home", str(home)],
        env={**os.environ, "OPENBELL_HTTP__HOST": "0.0.0.0"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 1
    assert "run `openbell migrate`" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    "wrong",
    [
        {"names": "https://openbell.example"},
        {"names": "openbell.example:8443"},
        {"names": "a b"},
        {"trusted_proxies": "*"},
        {"trusted_proxies": "caddy"},
        {"trusted_proxies": "10.0.0.1/8"},
    ],
)
def test_what_is_no_name_and_no_address_is_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        HttpSettings.model_validate(wrong)


def test_names_are_separated_by_commas_and_have_no_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBELL_HTTP__NAMES", "Openbell.Example,other.example")
    monkeypatch.setenv("OPENBELL_HTTP__TRUSTED_PROXIES", "127.0.0.1, 10.0.0.0/8,::1")
    http = Settings().http
    assert http.names == {"openbell.example", "other.example"}
    assert [str(network) for network in http.trusted_proxies] == [
        "127.0.0.1/32",
        "10.0.0.0/8",
        "::1/128",
    ]
