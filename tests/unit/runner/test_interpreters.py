"""What an interpreter consists of is asked of it, once."""

import asyncio
import sys
from pathlib import Path

import pytest

from services.runner import interpreters
from services.runner.interpreters import BrokenInterpreter, Interpreters

if sys.platform != "linux":
    pytest.skip("elsewhere strategies see the host's file system", allow_module_level=True)


def test_five_hundred_starts_at_a_bell_ask_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[Path] = []

    async def ask(python: Path) -> list[Path]:
        asked.append(python)
        await asyncio.sleep(0)
        return [tmp_path]

    async def scenario() -> None:
        known = Interpreters(tmp_path / "home")
        python = Path(sys.executable)
        answers = await asyncio.gather(*(known.readable(python) for _ in range(500)))
        assert len(set(answers)) == 1
        assert asked == [python]

    monkeypatch.setattr(interpreters, "_ask", ask)
    asyncio.run(scenario())


def test_its_environment_and_what_that_was_made_from_are_told(tmp_path: Path) -> None:
    async def scenario() -> None:
        folders = await Interpreters(tmp_path).readable(Path(sys.executable))
        assert Path(sys.prefix) in folders
        assert Path(sys.base_prefix) in folders

    asyncio.run(scenario())


def test_no_code_of_its_packages_runs_and_nothing_of_ours_is_told(tmp_path: Path) -> None:
    """A package's `.pth` is executed by whatever starts the interpreter with its `site`."""
    python = tmp_path / "python"
    python.write_text(
        f'#!/bin/sh\necho "$@" > {tmp_path}/asked\nenv >> {tmp_path}/asked\necho []\n'
    )
    python.chmod(0o755)

    async def scenario() -> None:
        await Interpreters(tmp_path / "home").readable(python)

    asyncio.run(scenario())
    words, *variables = (tmp_path / "asked").read_text().splitlines()
    assert {"-I", "-S"} <= set(words.split())
    assert not [line for line in variables if line.startswith(("OPENBELL", "HOME", "PATH=/root"))]


@pytest.mark.parametrize(
    ("script", "told"),
    [("#!/bin/sh\nexit 3\n", "python"), ("#!/bin/sh\necho hello\n", "does not say where")],
)
def test_one_that_does_not_answer_is_asked_again_later(
    tmp_path: Path, script: str, told: str
) -> None:
    python = tmp_path / "python"
    python.write_text(script)
    python.chmod(0o755)

    async def scenario() -> None:
        known = Interpreters(tmp_path / "home")
        with pytest.raises(BrokenInterpreter, match=told):
            await known.readable(python)
        library = tmp_path / "lib"
        library.mkdir()
        python.write_text(f"#!/bin/sh\necho '[\"{library}\"]'\n")
        assert library in await known.readable(python)

    asyncio.run(scenario())
