"""Which token goes where, and how it is kept."""

import json
import os
import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from openbell import client, credentials
from openbell.credentials import BadCredentials, Kept, NoAddress

LOCAL = "http://127.0.0.1:8000"
REMOTE = "https://bell.example"
KEPT = Kept("t1", "ada", "obt_kept")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where tokens are stored; the current folder is another."""
    for name in ("HOME", "XDG_CONFIG_HOME", "APPDATA"):
        monkeypatch.setenv(name, str(tmp_path / "person"))
    for name in (credentials.TOKEN, credentials.HOME):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "person"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    (home / "data").mkdir(parents=True)
    (home / "data" / "local-token").write_text("obt_local\n")
    return home


def test_there_may_be_none() -> None:
    for url in (LOCAL, REMOTE):
        found = credentials.find(url)
        assert found.value == ""
        assert found.headers == {}
        assert "openbell login" in found.hint


def test_the_homes_own_is_found_there_and_by_its_variable(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert credentials.find(LOCAL).value == ""
    monkeypatch.setenv(credentials.HOME, str(home))
    assert credentials.find(LOCAL).headers == {"Authorization": "Bearer obt_local"}
    monkeypatch.delenv(credentials.HOME)
    monkeypatch.chdir(home)
    assert credentials.find(LOCAL).value == "obt_local"


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://127.0.0.1:8000", True),
        ("http://127.8.9.10", True),
        ("http://localhost:8000", True),
        ("http://LOCALHOST:8000", True),
        ("https://[::1]:8000", True),
        ("http://127.0.0.1.evil.example", False),
        ("http://localhost.evil.example", False),
        ("http://0.0.0.0:8000", False),
        ("http://10.0.0.1:8000", False),
        ("https://bell.example", False),
        ("http://evil.example/127.0.0.1", False),
        ("http://evil.example:80/?localhost", False),
    ],
)
def test_the_homes_own_stays_on_this_machine(
    url: str, local: bool, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(credentials.HOME, str(home))
    assert credentials.is_local(url) is local
    if "?" not in url:
        assert (credentials.find(url).value == "obt_local") is local


def test_what_is_for_this_machine_passes_no_proxy(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(credentials.HOME, str(home))
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    with (
        client.connect("http://127.0.0.1:10") as openbell,
        pytest.raises(client.Unreachable, match=r"127\.0\.0\.1:10"),
    ):
        openbell.request("GET", "/")


def test_the_variable_goes_first_then_what_login_stored(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    credentials.keep(LOCAL, KEPT)
    assert credentials.find(LOCAL).value == "obt_kept"
    monkeypatch.setenv(credentials.TOKEN, " obt_given\n")
    assert credentials.find(LOCAL).value == "obt_given"
    assert credentials.find(REMOTE).value == "obt_given"


def test_each_address_has_its_own_however_it_is_written() -> None:
    credentials.keep(LOCAL, KEPT)
    credentials.keep("https://Bell.Example:443/", Kept("t2", "bob", "obt_other"))
    assert credentials.find("http://127.0.0.1:8000/").value == "obt_kept"
    assert credentials.find(REMOTE).value == "obt_other"
    assert credentials.find("http://bell.example").value == ""
    assert credentials.find("https://bell.example:8443").value == ""
    credentials.forget(REMOTE)
    assert credentials.kept(REMOTE) is None
    assert credentials.kept(LOCAL) == KEPT


def test_this_machine_has_several_names() -> None:
    credentials.keep("http://localhost:8000", KEPT)
    for url in (LOCAL, "http://LOCALHOST:8000/", "http://[::1]:8000"):
        assert credentials.find(url).value == "obt_kept"
    for url in ("http://localhost:8001", "https://localhost:8000", "http://localhost.example:8000"):
        assert credentials.kept(url) is None
    former = json.loads(credentials.file().read_text())[LOCAL]
    credentials.file().write_text(json.dumps({"http://localhost:8000": former}))
    assert credentials.kept(LOCAL) == KEPT, "as it was written before"
    credentials.forget("http://[::1]:8000")
    assert credentials.kept("http://localhost:8000") is None


@pytest.mark.parametrize(
    "url",
    [
        *("127.0.0.1:8000", "bell.example", "ftp://bell.example", "http://", "", "http://a:b@host"),
        *("http://host/?x=1", "http://host/#x", "http://host:port", "http://[::1"),
    ],
)
def test_what_is_no_address_is_told(url: str) -> None:
    with pytest.raises(NoAddress):
        credentials.address(url)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no modes")
def test_only_its_owner_may_read_it(folder: Path) -> None:
    old = os.umask(0)
    try:
        credentials.keep(LOCAL, KEPT)
    finally:
        os.umask(old)
    file = credentials.file()
    assert file.is_relative_to(folder)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    file.chmod(0o644)
    with pytest.raises(BadCredentials, match=r"may be read by others; say: chmod 600"):
        credentials.find(LOCAL)


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "null", "\x80", "[" * 100_000),
        *('{"http://127.0.0.1:8000": 1}', '{"http://x": {"value": "a"}}'),
        '{"http://x": {"id": "a", "user": "b", "value": 1}}',
        '{"http://x": {"id": "a", "user": "b", "value": "c\\r\\nX: y"}}',
    ],
)
def test_a_damaged_file_is_told_and_never_overwritten(text: str) -> None:
    credentials.keep(LOCAL, KEPT)
    credentials.file().write_text(text, "latin-1")
    for act in (credentials.find, credentials.kept, credentials.forget):
        with pytest.raises(BadCredentials, match="is damaged: delete it") as told:
            act(LOCAL)
        assert str(credentials.file()) in str(told.value)
    with pytest.raises(BadCredentials):
        credentials.keep(LOCAL, KEPT)
    assert credentials.file().read_text("latin-1") == text


def test_a_damaged_file_is_in_nobodys_way_who_needs_it_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    credentials.keep(LOCAL, KEPT)
    credentials.file().write_text("{")
    monkeypatch.setenv(credentials.TOKEN, "obt_given")
    assert credentials.find(LOCAL).value == "obt_given"


def test_a_folder_that_cannot_be_written_is_told(folder: Path) -> None:
    folder.write_text("a file")
    with pytest.raises(BadCredentials, match=r"cannot be (written|read)"):
        credentials.keep(LOCAL, KEPT)


@pytest.mark.parametrize("value", ["two words", "naïve", "a\tb", "a\nb"])
def test_what_no_header_can_carry_is_no_token(
    value: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "data" / "local-token").write_text(value, "utf-8")
    monkeypatch.chdir(home)
    with pytest.raises(BadCredentials, match="local-token holds no token"):
        credentials.find(LOCAL)
    monkeypatch.setenv(credentials.TOKEN, value)
    with pytest.raises(BadCredentials, match="OPENBELL_TOKEN holds no token"):
        credentials.find(LOCAL)


def test_logins_at_the_same_time_lose_nothing() -> None:
    urls = [f"http://127.0.0.1:{port}" for port in range(9000, 9020)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(credentials.keep, urls, [KEPT] * len(urls)))
    assert sorted(json.loads(credentials.file().read_text())) == urls
