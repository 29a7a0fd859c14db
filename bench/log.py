"""100 MB printed by a script of ours, against `python -u` of the same script into a file.

The script runs as a run does: in a session of its own, appending to its log, with the variables
of a run, in an environment that writes by lines.
"""

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.figure import Figure
from openbell.contracts.commands import StartRun
from services.runner import environments, variables
from tests.fixtures.default_environment import base_interpreter

SIZE = 100 * 10**6
LINE = "2026-08-03 09:15:00 order placed for NIFTY at 22000 " + "x" * 47
SCRIPT = f"line = {LINE!r}\nfor _ in range({SIZE // (len(LINE) + 1)}):\n    print(line)\n"
ROUNDS = 5
START = StartRun(
    run_id="bench-1",
    strategy_id="bench",
    strategy_name="bench",
    owner="local",
    epoch=1,
    sha256="",
    filename="script.py",
    exchange=None,
    ladder=(),
)


def measure() -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "script.py").write_text(SCRIPT)
        python = _environment(folder / "environment")
        hosted: list[float] = []
        unbuffered: list[float] = []
        for _ in range(ROUNDS):
            unbuffered.append(_unbuffered(python, folder))
            hosted.append(_hosted(python, folder))
    # the best of each: seconds of one processor, into which any other work of the host falls
    yield Figure("100 MB printed, against python -u", min(hosted), min(unbuffered), "s", 0.95)


def _environment(folder: Path) -> Path:
    """An empty one, finished as the default environment is."""
    command = [base_interpreter(), "-m", "venv", "--without-pip", "--symlinks", folder]
    subprocess.run(command, check=True)
    environments.write_by_lines(folder)
    return folder / "bin" / "python"


def _hosted(python: Path, folder: Path) -> float:
    environment = variables.build(START, folder, python, host={}, own={})
    assert "PYTHONUNBUFFERED" not in environment
    log = os.open(folder / "hosted.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        return _timed([python, "script.py"], folder, log, environment, folder / "hosted.log")
    finally:
        os.close(log)
        (folder / "hosted.log").unlink()


def _unbuffered(python: Path, folder: Path) -> float:
    with (folder / "bare.log").open("wb") as log:
        command = [python, "-u", "script.py"]
        return _timed(command, folder, log.fileno(), {"LANG": "C.UTF-8"}, folder / "bare.log")


def _timed(
    command: list[Path | str], folder: Path, log: int, environment: dict[str, str], file: Path
) -> float:
    begun = time.perf_counter()
    subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
        close_fds=False,
        check=True,
    )
    took = time.perf_counter() - begun
    assert file.stat().st_size >= SIZE * 0.99, file.stat().st_size
    return took
