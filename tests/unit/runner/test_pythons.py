"""Which Pythons a host has: by what each says when it is run, never by its name."""

import asyncio
import json
import sys
from pathlib import Path

import pytest

from services.runner import pythons as module
from services.runner.pythons import NoSuchPython, Python, Pythons, find

if sys.platform == "win32":
    pytest.skip("its candidates are shell scripts", allow_module_level=True)

OWN = Path(module.base_interpreter()).resolve()


class Host:
    """A host whose every Python is a script that says what the test wants."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path, self.home, self.root = folder / "bin", folder / "home", folder / "pyenv"
        self.uv = folder / "uv"
        self.asked = folder / "asked"
        monkeypatch.setenv("PATH", f"{self.path}:{self.root / 'shims'}:/bin")
        monkeypatch.setenv("HOME", str(self.home))
        monkeypatch.setenv("PYENV_ROOT", str(self.root))
        monkeypatch.setenv("UV_PYTHON_INSTALL_DIR", str(self.uv))

    def script(self, path: Path, text: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\necho $0 >> {self.asked}\n{text}\n")
        path.chmod(0o755)
        return path

    def python(self, path: Path, version: str, *, released: bool = True) -> Path:
        told = [str(path), [int(part) for part in version.split(".")], released]
        return self.script(path, f"echo '{json.dumps(told)}'")

    def found(self) -> list[tuple[str, Path]]:
        return [(p.text, p.path) for p in asyncio.run(find()) if p.path.is_relative_to(self.folder)]

    @property
    def folder(self) -> Path:
        return self.path.parent


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path.resolve(), monkeypatch)


def test_they_are_found_wherever_they_are(host: Host) -> None:
    on_path = host.python(host.path / "python3.12", "3.12.4")
    named = host.python(host.root / "versions" / "3.13.1" / "bin" / "python3.13", "3.13.1")
    usual = host.python(host.home / ".pyenv/versions/3.10.2/bin/python3.10", "3.10.2")
    of_uv = host.python(host.uv / "cpython-3.14.0-linux" / "bin" / "python3.14", "3.14.0")
    assert host.found() == [
        ("3.14.0", of_uv),
        ("3.13.1", named),
        ("3.12.4", on_path),
        ("3.10.2", usual),
    ]


def test_each_is_asked_once_whatever_its_names(host: Host) -> None:
    real = host.python(host.folder / "opt" / "python3.12", "3.12.4")
    host.path.mkdir()
    for name in ("python", "python3", "python3.12"):
        (host.path / name).symlink_to(real)
    assert host.found() == [("3.12.4", real)]
    assert host.asked.read_text().split() == [str(real)]


def test_a_shim_stands_for_what_it_starts(host: Host) -> None:
    real = host.python(host.folder / "opt" / "python3.12", "3.12.4")
    host.script(host.path / "python3", f"exec {real}")
    assert host.found() == [("3.12.4", real)]


@pytest.mark.parametrize(
    "says",
    ["echo not found >&2; exit 127", "echo []", "echo hello", "echo '[\"/x\", [3], true]'", ""],
)
def test_what_does_not_work_is_passed_over(host: Host, says: str) -> None:
    host.script(host.path / "python3.12", says)
    assert host.found() == []


def test_what_does_not_answer_is_passed_over(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 1)
    host.script(host.path / "python3.12", "exec sleep 60")
    host.python(host.path / "python3.11", "3.11.9")
    assert [version for version, _ in host.found()] == ["3.11.9"]


def test_the_old_the_unreleased_and_other_programs_are_none(host: Host) -> None:
    host.python(host.path / "python3.8", "3.8.18")
    host.python(host.path / "python3.15", "3.15.0", released=False)
    other = host.python(host.path / "python3.12-config", "3.12.4")
    assert host.found() == []
    assert str(other) not in host.asked.read_text()


def test_the_shims_of_a_pyenv_root_are_not_even_asked(host: Host) -> None:
    shim = host.python(host.root / "shims" / "python3.12", "3.12.4")
    host.python(host.path / "python3.11", "3.11.9")
    assert [version for version, _ in host.found()] == ["3.11.9"]
    assert str(shim) not in host.asked.read_text()


def test_an_environment_of_ours_is_told_as_what_it_was_made_from(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    assert [python.path for python in asyncio.run(find())] == [OWN]


@pytest.mark.parametrize(
    ("wanted", "requires", "version"),
    [
        (None, None, "3.13.1"),
        ("3.12", None, "3.12.4"),
        ("3.12.2", None, "3.12.2"),
        (None, "<3.13", "3.12.4"),
        ("3.12", "!=3.12.4", "3.12.2"),
        ("3", ">=3.10", "3.13.1"),
    ],
)
def test_the_newest_that_will_do_is_picked(
    monkeypatch: pytest.MonkeyPatch, wanted: str | None, requires: str | None, version: str
) -> None:
    monkeypatch.setattr(module, "find", having("3.13.1", "3.12.4", "3.12.2", "3.1.9"))
    assert asyncio.run(Pythons().pick(wanted, requires)).text == version


def test_one_that_is_not_there_is_looked_for_again_then_refused_with_what_there_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario() -> None:
        pythons = Pythons()
        monkeypatch.setattr(module, "find", having("3.12.4"))
        await pythons.look()
        with pytest.raises(NoSuchPython, match=r"no Python 3\.14 here; there is 3\.12\.4"):
            await pythons.pick("3.14")
        with pytest.raises(NoSuchPython, match=r"no Python 3\.1 here"):
            await pythons.pick("3.1")
        monkeypatch.setattr(module, "find", having("3.14.0", "3.12.4"))
        assert (await pythons.pick("3.14")).text == "3.14.0"

    asyncio.run(scenario())


def having(*versions: str) -> object:
    async def find() -> tuple[Python, ...]:
        return tuple(
            Python((int(a), int(b), int(c)), Path(f"/opt/{a}.{b}.{c}"))
            for a, b, c in (version.split(".") for version in versions)
        )

    return find
