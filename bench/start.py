"""POST start to the first usable line of user code, against a bare Popen of the same script."""

import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.figure import Figure, median, percentile
from tests.fixtures.default_environment import base_interpreter, default_environment
from tests.fixtures.stack import Stack, end_all, eventually, start_one_process

ROUNDS = 40
WARM_UP = 3
"""Starts before its interpreter is there from which it is forked."""
SCRIPT = "import time; print(repr(time.time()))\n"
WITH_PANDAS = f"import numpy, pandas\n{SCRIPT}"
ENVIRONMENT = {"PYTHONUNBUFFERED": "1", "LANG": "C.UTF-8", "PATH": "/usr/bin:/bin"}


def measure() -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        try:
            python = default_environment(base_interpreter())
            stack = start_one_process(home, OPENBELL_RUNNER__PYTHON=str(python))
            yield from starts(stack, Path(folder), "start", python, SCRIPT, 1.5)
            yield from starts(stack, Path(folder), "start with pandas", python, WITH_PANDAS, 0.1)
            stack.stop()
        finally:
            end_all(home)


def starts(
    stack: Stack, folder: Path, what: str, python: Path, script: str = SCRIPT, most: float = 2
) -> Iterator[Figure]:
    """Of one strategy, again and again, beside bare ones."""
    strategy = stack.upload(script, what, restart="never")
    hosted: list[float] = []
    bare: list[float] = []
    for epoch in range(1, ROUNDS + 1):
        bare.append(_bare(folder, python, script))
        asked = time.time()
        stack.post(f"/python/start/{strategy}")
        log = stack.home / "log" / "strategies" / strategy / f"{strategy}-{epoch}.log"
        hosted.append(_first_line(log) - asked)
        stack.wait_status(strategy, "stopped")
    name = f"{what} to first line"
    hosted, bare = hosted[WARM_UP:], bare[WARM_UP:]
    yield Figure(f"{name}, p50", median(hosted) * 1e3, median(bare) * 1e3, "ms", most)
    hosted_95, bare_95 = percentile(hosted, 95) * 1e3, percentile(bare, 95) * 1e3
    yield Figure(f"{name}, p95", hosted_95, bare_95, "ms", most)


def _bare(folder: Path, python: Path, source: str) -> float:
    script = folder / "script.py"
    script.write_text(source)
    log = folder / "bare.log"
    with log.open("w") as output:
        asked = time.time()
        command = [python, "script.py"]
        with subprocess.Popen(command, cwd=folder, stdout=output, env=ENVIRONMENT) as process:
            process.wait()
    return _first_line(log) - asked


def _first_line(log: Path) -> float:
    def read() -> float | None:
        text = log.read_text() if log.exists() else ""
        return float(text) if text.endswith("\n") else None

    return eventually(read, lambda: f"nothing in {log}")
