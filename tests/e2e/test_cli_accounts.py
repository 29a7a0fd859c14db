"""The command line of several people: who each is, and what each may do."""

import json
import re
import signal
from collections.abc import Generator
from pathlib import Path

import pytest

from openbell.contracts.model import Scope
from tests.e2e.test_cli import FOREVER, openbell, ran
from tests.fixtures.people import PASSWORD, Person, join
from tests.fixtures.stack import Stack, start_one_process

REFUSED, MISUSED, SECRET = 1, 2, "s3cr3t-v4lue"


@pytest.fixture(scope="module")
def bob(stack: Stack) -> Generator[Person]:
    person = join(stack, "bob")
    yield person
    person.close()


@pytest.fixture
def shell(stack: Stack, bob: Person, tmp_path: Path) -> Path:
    """The folder of bob's shell, in which he has logged in."""
    folder = tmp_path / "bob"
    folder.mkdir()
    openbell(stack, "login", "--name", "bob", "--password-stdin", typed=PASSWORD, person=folder)
    return folder


@pytest.fixture
def script(tmp_path: Path) -> Path:
    file = tmp_path / "script.py"
    file.write_text(FOREVER)
    return file


def test_the_home_lets_its_owner_in_and_nobody_elsewhere(stack: Stack, tmp_path: Path) -> None:
    assert openbell(stack, "whoami").startswith("local, admin, ")
    told = openbell(stack, "whoami", person=tmp_path, code=REFUSED)
    assert "openbell login" in told
    assert "OPENBELL_HOME" in told
    assert stack.token not in told
    inside = ran(stack, "whoami", person=stack.home)
    assert inside.returncode == 0


def test_login_and_logout(stack: Stack, bob: Person, tmp_path: Path) -> None:
    login = ["login", "--name", "bob", "--password-stdin"]
    told = openbell(stack, *login, typed="wrong", person=tmp_path, code=REFUSED)
    assert "password is wrong" in told
    assert not list(tmp_path.rglob("credentials.json"))
    assert "bob, trader" in openbell(stack, *login, typed=f"{PASSWORD}\n", person=tmp_path)
    assert openbell(stack, "whoami", person=tmp_path).startswith("bob, trader, ")
    openbell(stack, *login, typed=PASSWORD, person=tmp_path)
    tokens = json.loads(openbell(stack, "token", "ls", "--json", person=tmp_path))["tokens"]
    ours = [token for token in tokens if token["name"].startswith("openbell on ")]
    assert len(ours) == 1, "the former one is revoked"
    assert bob.http.get("/auth/sessions").json()["sessions"][1:] == [], "and no session is left"
    (file,) = tmp_path.rglob("credentials.json")
    value = json.loads(file.read_text())[stack.url]["value"]
    assert "bob is signed out" in openbell(stack, "logout", person=tmp_path)
    assert json.loads(file.read_text()) == {}
    assert "stored nothing" in openbell(stack, "logout", person=tmp_path, code=REFUSED)
    again = ran(stack, "whoami", person=tmp_path, OPENBELL_TOKEN=value)
    assert (again.returncode, "OPENBELL_TOKEN was sent" in again.stderr) == (REFUSED, True)
    assert value not in again.stderr + again.stdout


def test_login_asks_nobody_who_is_not_there(stack: Stack, tmp_path: Path) -> None:
    for given in ([], ["--name", "bob"], ["--password-stdin"]):
        told = openbell(stack, "login", *given, person=tmp_path, typed=PASSWORD, code=MISUSED)
        assert "--name and --password-stdin" in told


def test_a_revoked_token_is_told_with_what_to_do(stack: Stack, bob: Person, shell: Path) -> None:
    tokens = bob.http.get("/auth/tokens").json()["tokens"]
    for token in tokens:
        if token["name"].startswith("openbell on "):
            assert bob.http.delete(f"/auth/tokens/{token['id']}").status_code == 200
    for command in (["ls"], ["events"], ["audit", "--jsonl"]):
        told = openbell(stack, *command, person=shell, code=REFUSED)
        assert "there is no such token" in told
        assert "openbell login" in told
    assert "signed out" in openbell(stack, "logout", person=shell), "it is revoked already"


def test_a_token_is_printed_once_alone(stack: Stack, shell: Path) -> None:
    made = ran(stack, "token", "new", "ci", "--scope", "read", "--days", "9", person=shell)
    value = made.stdout.removesuffix("\n")
    assert value.startswith("obt_")
    assert value not in made.stderr
    assert value not in openbell(stack, "token", "ls", person=shell)
    seen = ran(stack, "ls", person=shell, OPENBELL_TOKEN=value)
    assert seen.returncode == 0
    refused = ran(stack, "stop-all", person=shell, OPENBELL_TOKEN=value)
    assert (refused.returncode, "scope operate" in refused.stderr) == (REFUSED, True)
    (token_id,) = made.stderr.split(":")[:1]
    assert "revoked" in openbell(stack, "token", "revoke", token_id, person=shell)
    assert "no token" in openbell(stack, "token", "revoke", token_id, person=shell, code=REFUSED)
    wrong = openbell(stack, "token", "new", "x", "--scope", "all", person=shell, code=REFUSED)
    assert all(scope in wrong for scope in Scope)


def test_secrets_are_never_shown(stack: Stack, shell: Path, script: Path) -> None:
    def said(*arguments: str, typed: str = "") -> str:
        done = ran(stack, *arguments, typed=typed, person=shell)
        assert done.returncode == 0, done.stderr
        assert SECRET not in done.stdout + done.stderr
        return done.stdout

    said("env", "--mine", "--secret", f"broker={SECRET}", "--set", f"P={SECRET}")
    uploaded = ["upload", str(script), "--name", "keeper", "--secret", f"A={SECRET}"]
    said(*uploaded, "--use", "KEY=broker")
    kinds = said("env", "keeper", "--secret", "B", typed=f"{SECRET}\n")
    rows = [line.split()[:2] for line in kinds.splitlines()[1:]]
    assert rows == [["A", "secret"], ["B", "secret"], ["KEY", "use"]]
    listed = json.loads(said("env", "keeper", "--unset", "A", "--set", f"C={SECRET}", "--json"))
    assert [one["name"] for one in listed["variables"]] == ["B", "C", "KEY"]
    for command in (["env", "keeper"], ["env", "--mine"], ["ls", "--json"], ["audit", "--jsonl"]):
        said(*command)
    assert said("env", "keeper").split()[:4] == ["NAME", "KIND", "FROM", "SET"]
    used = openbell(stack, "env", "--mine", "--unset", "broker", person=shell, code=REFUSED)
    assert "keeper" in used
    said("delete", "keeper")


@pytest.mark.parametrize(
    "arguments",
    [
        *([], ["x", "--mine"], ["--mine", "--use", "A=b"]),
        *(["x", "--set", "A"], ["x", "--secret", "A"], ["x", "--secret", "A", "--secret", "B"]),
    ],
)
def test_env_is_told_what_it_needs(stack: Stack, arguments: list[str]) -> None:
    openbell(stack, "env", *arguments, code=MISUSED)


def test_sharing(stack: Stack, shell: Path, script: Path) -> None:
    openbell(stack, "upload", str(script), "--name", "common")
    assert "no strategy 'common'" in openbell(stack, "stop", "common", person=shell, code=REFUSED)
    assert "bob   viewer" in openbell(stack, "share", "common", "bob")
    assert "OWNER" in openbell(stack, "ls", person=shell)
    assert "OWNER" not in openbell(stack, "ls")
    refused = openbell(stack, "stop", "common", person=shell, code=REFUSED)
    assert "shared with you for less" in refused
    openbell(stack, "share", "common", "bob", "--operator")
    openbell(stack, "stop", "common", person=shell)
    assert "operator" in openbell(stack, "shares", "common")
    assert "no user" in openbell(stack, "share", "common", "eve", code=REFUSED)

    openbell(stack, "upload", str(script), "--name", "common", person=shell)
    openbell(stack, "delete", "common", person=shell)  # of two, the own one
    assert "nobody" in openbell(stack, "unshare", "common", "bob")
    assert "no strategy 'common'" in openbell(stack, "stop", "common", person=shell, code=REFUSED)
    openbell(stack, "delete", "common")


def test_everything_is_stopped_at_once(stack: Stack, shell: Path, script: Path) -> None:
    assert "nothing to stop" in openbell(stack, "stop-all")
    openbell(stack, "upload", str(script), "--name", "one", "--start")
    openbell(stack, "upload", str(script), "--name", "two", "--start", person=shell)
    openbell(stack, "upload", str(script), "--name", "later")
    openbell(stack, "schedule", "later", "--exchange", "NSE", "--start", "09:15")
    mine = json.loads(openbell(stack, "stop-all", "--no-hold", "--json", person=shell))
    assert mine["all_gone"]
    assert [one["name"] for one in mine["strategies"]] == ["two"]
    openbell(stack, "start", "two", person=shell)
    refused = openbell(stack, "stop-all", "--everybody", person=shell, code=REFUSED)
    assert "admin" in refused
    said = openbell(stack, "stop-all", "--everybody", "--yes")
    assert {line.split()[0] for line in said.splitlines()[1:-1]} == {"one", "two", "later"}
    assert said.endswith("All of them are gone.\n")
    for view in json.loads(openbell(stack, "ls", "--everybody", "--json")):
        openbell(stack, "delete", view["id"])  # as an admin, by its id


def test_people(stack: Stack, tmp_path: Path) -> None:
    made = ran(stack, "user", "invite", "--role", "viewer")
    link = made.stdout.removesuffix("\n")
    assert link.startswith(f"{stack.url}/join#join_")
    link_id = made.stderr.split(":")[0]
    links = openbell(stack, "user", "links")
    assert re.search(f"{link_id} +viewer +a new account", links)
    assert "setup of the first account" in links
    assert "withdrawn" in openbell(stack, "user", "withdraw", link_id)
    trusted = "trusted like the user that runs Openbell"
    assert trusted not in made.stderr, "a viewer uploads nothing"
    assert trusted in ran(stack, "user", "invite").stderr
    eve = join(stack, "eve")
    listed = {
        one["name"]: one for one in json.loads(openbell(stack, "user", "ls", "--json"))["users"]
    }
    assert listed["eve"]["role"] == "trader"
    assert openbell(stack, "user", "role", "EVE", "viewer") == "eve: viewer\n"
    assert "write admin, trader or viewer" in openbell(stack, "user", "role", "eve", "x", code=1)
    assert f"{stack.url}/join#" in openbell(stack, "user", "reset-password", "eve")
    assert "a password for eve" in openbell(stack, "user", "links")
    assert openbell(stack, "user", "disable", "eve") == "eve: disabled\n"
    told = ran(stack, "ls", person=tmp_path, OPENBELL_TOKEN=eve.token)
    assert (told.returncode, "disabled" in told.stderr) == (REFUSED, True)
    assert openbell(stack, "user", "enable", "eve") == "eve: enabled\n"
    assert "no user 'x'" in openbell(stack, "user", "disable", "x", code=REFUSED)
    eve.close()


def test_the_audit(stack: Stack, shell: Path, script: Path) -> None:
    openbell(stack, "upload", str(script), "--name", "watched", person=shell)
    strategy_id = json.loads(openbell(stack, "ls", "--json", person=shell))[0]["id"]
    openbell(stack, "delete", strategy_id)

    def lines(*arguments: str, person: Path | None = None) -> list[tuple[str, str, str]]:
        said = openbell(stack, "audit", "--jsonl", *arguments, person=person)
        entries = [json.loads(line) for line in said.splitlines()]
        return [(one["user"], one["action"], one["outcome"]) for one in entries]

    about = ["--strategy", strategy_id]
    expected = [("local", "delete", "done"), ("local", "delete", "requested")]
    assert lines(*about, person=shell)[:2] == expected
    assert ("bob", "upload", "done") in lines("--everybody", *about)
    assert lines("--everybody", *about, "--user", "bob") == [("bob", "upload", "done")]
    assert set(lines("--everybody", "--action", "login")) >= {("bob", "login", "done")}
    assert lines("--since", "2999-01-01") == []
    table = openbell(stack, "audit", *about, person=shell)
    assert re.search(r"local +127\.0\.0\.1 +delete +done", table)
    openbell(stack, "upload", str(script), "--name", "on", "--start")
    openbell(stack, "delete", "on", code=REFUSED)
    table = openbell(stack, "audit", "--action", "delete")
    assert re.search(r"strategy_is_running +on-\w+ +\w+", table), "why it was refused"
    openbell(stack, "delete", "on", "--stop")
    assert json.loads(openbell(stack, "audit", *about, "--json"))["entries"]
    openbell(stack, "audit", "--since", "yesterday", code=MISUSED)
    assert "admin" in openbell(stack, "audit", "--everybody", person=shell, code=REFUSED)


def test_the_key_is_rotated(stack: Stack, shell: Path) -> None:
    openbell(stack, "env", "--mine", "--secret", f"rotated={SECRET}", person=shell)
    assert "new key" in openbell(stack, "rotate-key")
    assert "admin" in openbell(stack, "rotate-key", person=shell, code=REFUSED)
    openbell(stack, "env", "--mine", "--unset", "rotated", person=shell)


def test_the_first_start_tells_a_link_until_it_is_used(home: Path) -> None:
    first = start_one_process(home)
    said = first.processes[0].stdout
    assert said is not None
    assert "Its home is" in said.readline()
    words, _, link = said.readline().rpartition(" ")
    assert words == "First start: make your account at"
    address, _, token = link.strip().partition("#")
    assert address == f"{first.url}/join"
    account = {"token": token, "name": "ada", "password": PASSWORD}
    first.post("/auth/accept", json=account)
    assert first.stop() == [0]

    second = start_one_process(home)
    assert openbell(second, "whoami").startswith("ada, admin, ")
    said = second.processes[0].stdout
    assert said is not None
    second.processes[0].send_signal(signal.SIGINT)
    assert "First start" not in said.read()
    assert second.stop() == [0]
