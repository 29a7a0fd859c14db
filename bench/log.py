"""100 MB printed by a script of ours, against `python -u` of the same script into a file.

The script runs as a run does: started by a warden in its cell, with the variables of a run, in an
environment that writes by lines.
"""

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.figure import Figure
from openbell.contracts.commands import StartRun
from services.runner import environments, variables
from services.runner.backends.warden_client import WardenClient
from services.runner.warden.protocol import Entry, Start
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
        work = folder / "work"
        work.mkdir()
        (work / "script.py").write_text(SCRIPT)
        python = _environment(folder / "environment")
        hosted: list[float] = []
        unbuffered: list[float] = []
        for number in range(ROUNDS):
            unbuffered.append(_unbuffered(python, work))
            hosted.append(asyncio.run(_hosted(python, folder, f"bench-{number}")))
    # the best of each: seconds of one processor, into which any other work of the host falls
    yield Figure("100 MB printed, against python -u", min(hosted), min(unbuffered), "s", 0.95)


def _environment(folder: Path) -> Path:
    """An empty one, finished as the default environment is."""
    command = [base_interpreter(), "-m", "venv", "--without-pip", "--symlinks", folder]
    subprocess.run(command, check=True)
    environments.write_by_lines(folder)
    return folder / "bin" / "python"


async def _hosted(python: Path, folder: Path, run: str) -> float:
    """From the request until its end is told, all of it included."""
    work, log = folder / "work", folder / f"{run}.log"
    environment = variables.build(START, work, python, host={}, own={})
    assert "PYTHONUNBUFFERED" not in environment
    start = Start(
        run,
        run,
        1,
        (str(python), "script.py"),
        str(work),
        environment,
        str(log),
        (("SIGKILL", 0.0),),
        readable=(str(folder / "environment"), sys.base_prefix),
        memory=1 << 30,
        processes=256,
    )
    client = await WardenClient.connect(folder / "warden")
    try:
        begun = time.perf_counter()
        await client.start(start)
        end = await _end_of(client, run)
        took = time.perf_counter() - begun
        if run.endswith(str(ROUNDS - 1)):
            await client.shutdown()
    finally:
        await client.close()
    assert (end.exit_code, log.stat().st_size >= SIZE * 0.99) == (0, True), end
    log.unlink()
    return took


async def _end_of(client: WardenClient, run: str) -> Entry:
    async for entries in client.entries(0):
        for entry in entries:
            if (entry.run, entry.kind) == (run, "exited"):
                return entry
    raise AssertionError


def _unbuffered(python: Path, work: Path) -> float:
    file = work.with_name("bare.log")
    with file.open("wb") as log:
        begun = time.perf_counter()
        subprocess.run(
            [python, "-u", "script.py"],
            cwd=work,
            env={"LANG": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            check=True,
        )
        took = time.perf_counter() - begun
    assert file.stat().st_size >= SIZE * 0.99, file.stat().st_size
    return took
