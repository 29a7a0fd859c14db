"""What a script of the default environment prints is written at the end of each line."""

import subprocess
from pathlib import Path

import pytest

from openbell.contracts.commands import StartRun
from services.runner import environments, variables
from tests.fixtures.default_environment import base_interpreter

PRINTS = (
    "import os\nprint('one')\nos.write(1, b'two\\n')\nprint('three', end='')\nos.write(1, b'4')"
)
CHILD = "import subprocess, sys\nsubprocess.run([sys.executable, 'prints.py'], check=True)"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("environment")
    command = [base_interpreter(), "-m", "venv", "--without-pip", "--symlinks", folder]
    subprocess.run(command, check=True)
    made = folder / "bin" / "python"
    assert not environments.writes_by_lines(made)
    environments.write_by_lines(folder)
    return made


def built(python: Path) -> dict[str, str]:
    start = StartRun(
        run_id="s-1",
        strategy_id="s",
        strategy_name="s",
        owner="local",
        epoch=1,
        sha256="",
        filename="s.py",
        exchange=None,
        ladder=(),
    )
    return variables.build(start, Path(), python, host={}, own={})


@pytest.mark.parametrize("script", ["prints.py", "child.py"])
def test_each_line_is_written_when_it_ends(python: Path, tmp_path: Path, script: str) -> None:
    (tmp_path / "prints.py").write_text(PRINTS)
    (tmp_path / "child.py").write_text(CHILD)
    environment = built(python)
    assert "PYTHONUNBUFFERED" not in environment
    done = subprocess.run(
        [python, script], cwd=tmp_path, env=environment, capture_output=True, check=True
    )
    assert done.stdout == b"one\ntwo\n4three"


def test_a_script_that_has_no_output_starts_all_the_same(python: Path) -> None:
    done = subprocess.run(
        f"exec {python} -c 'pass' >&-",
        shell=True,
        env=built(python),
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_another_interpreter_is_told_by_its_environment() -> None:
    assert built(base_interpreter())["PYTHONUNBUFFERED"] == "1"
