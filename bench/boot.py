"""`openbell up` to its first answer, against the bare import of the same modules; then with many
strategies, of which some are to run, until those do.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from bench.figure import Figure, median
from bench.population import always, populate, token_of
from tests.fixtures.default_environment import base_interpreter, default_environment
from tests.fixtures.stack import end_all, start_one_process

ROUNDS = 9
CROWD, TO_RUN, CROWDED_ROUNDS = 1000, 200, 3
ALL_RUN_S = 10
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
    reference = median(imported) * 1e3
    yield Figure("boot to first answer", median(booted) * 1e3, reference, "ms", 1.3)
    yield from _crowded(modules, "plain", b"import time\ntime.sleep(3600)\n")
    yield from _crowded(modules, "pandas", b"import pandas, time\ntime.sleep(3600)\n")


def _crowded(modules: list[str], what: str, source: bytes) -> Iterator[Figure]:
    """As the machine comes up in the morning, with what ran the day before."""
    python = default_environment(base_interpreter())
    booted: list[float] = []
    imported: list[float] = []
    running: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        try:
            populate(home, users=1, strategies=CROWD, source=source)
            always(home, TO_RUN)
            for _ in range(CROWDED_ROUNDS):
                imported.append(_import(modules))
                began = time.perf_counter()
                stack = start_one_process(home, OPENBELL_RUNNER__PYTHON=str(python))
                with stack.client(token_of(0)) as http:
                    http.get("/python/").raise_for_status()
                    booted.append(time.perf_counter() - began)
                    while _running(http) < TO_RUN:
                        assert time.perf_counter() < began + 6 * ALL_RUN_S
                        time.sleep(0.2)
                    running.append(time.perf_counter() - began)
                stack.stop()
        finally:
            end_all(home)
    boot = f"boot with {CROWD} {what}"
    yield Figure(f"{boot}: first answer", median(booted) * 1e3, median(imported) * 1e3, "ms", 1.3)
    yield Figure(f"{boot}: {TO_RUN} of them run", median(running), ALL_RUN_S, "s", 1)


def _running(http: httpx.Client) -> int:
    strategies = http.get("/python/").raise_for_status().json()["strategies"]
    return sum(one["status"] == "running" for one in strategies)


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
