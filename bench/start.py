"""POST start to the first line of user code, against a bare Popen of the same script."""

import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.figure import Figure, median, percentile
from tests.fixtures.default_environment import base_interpreter
from tests.fixtures.stack import Stack, end_all, eventually, start_one_process

ROUNDS = 40
SCRIPT = "import time; print(repr(time.time()))\n"
ENVIRONMENT = {"PYTHONUNBUFFERED": "1", "LANG": "C.UTF-8", "PATH": "/usr/bin:/bin"}


def measure() -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        try:
            stack = start_one_process(home)
            yield from starts(stack, Path(folder), "start")
            stack.stop()
        finally:
            end_all(home)


def starts(stack: Stack, folder: Path, what: str) -> Iterator[Figure]:
    """Of one strategy, again and again, beside bare ones."""
    strategy = stack.upload(SCRIPT, "bench", restart="never")
    hosted: list[float] = []
    bare: list[float] = []
    for epoch in range(1, ROUNDS + 1):
        bare.append(_bare(folder))
        asked = time.time()
        stack.post(f"/python/start/{strategy}")
        log = stack.home / "log" / "strategies" / strategy / f"{strategy}-{epoch}.log"
        hosted.append(_first_line(log) - asked)
        stack.wait_status(strategy, "stopped")
    name = f"{what} to first line"
    yield Figure(f"{name}, p50", median(hosted) * 1e3, median(bare) * 1e3, "ms", 2)
    hosted_95, bare_95 = percentile(hosted, 95) * 1e3, percentile(bare, 95) * 1e3
    yield Figure(f"{name}, p95", hosted_95, bare_95, "ms", 2)


def _bare(folder: Path) -> float:
    script = folder / "script.py"
    script.write_text(SCRIPT)
    log = folder / "bare.log"
    with log.open("w") as output:
        asked = time.time()
        command = [base_interpreter(), "script.py"]
        with subprocess.Popen(command, cwd=folder, stdout=output, env=ENVIRONMENT) as process:
            process.wait()
    return _first_line(log) - asked


def _first_line(log: Path) -> float:
    def read() -> float | None:
        text = log.read_text() if log.exists() else ""
        return float(text) if text.endswith("\n") else None

    return eventually(read, lambda: f"nothing in {log}")
