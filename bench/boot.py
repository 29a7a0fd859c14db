"""`openbell up` to its first answer, against the bare import of the same modules."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.figure import Figure, median
from tests.fixtures.stack import end_all, start_one_process

ROUNDS = 9
PROGRAM = """
import contextlib, importlib
for name in {names}:
    with contextlib.suppress(ImportError):  # tried by a package, and not there
        importlib.import_module(name)
"""


def measure() -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        try:
            _boot(home)  # makes the home: what is measured is every later day
            modules = _modules(home)
            booted: list[float] = []
            imported: list[float] = []
            for _ in range(ROUNDS):
                imported.append(_import(modules))
                booted.append(_boot(home))
        finally:
            end_all(home)
    print(f"     {len(modules)} modules")
    yield Figure("boot to first answer", median(booted) * 1e3, median(imported) * 1e3, "ms", 1.3)


def _modules(home: Path) -> list[str]:
    """What `openbell up` imports until it has answered, as the interpreter itself reports it."""
    stack = start_one_process(home, PYTHONPROFILEIMPORTTIME="1")
    stack.http.get("/python/").raise_for_status()
    said = (home / "up.stderr").read_text()
    stack.stop()
    lines = [line for line in said.splitlines() if line.startswith("import time:")]
    names = [line.rpartition("|")[2].strip() for line in lines[1:]]
    return [name for name in names if not name.startswith("_sitebuiltins")]


def _import(modules: list[str]) -> float:
    program = PROGRAM.format(names=modules)
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], check=True)
    return time.perf_counter() - began


def _boot(home: Path) -> float:
    began = time.perf_counter()
    stack = start_one_process(home)
    stack.http.get("/python/").raise_for_status()
    seconds = time.perf_counter() - began
    stack.stop()
    return seconds
