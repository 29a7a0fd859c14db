"""Stops: one, several that ignore every signal, and 200 at once; beside bare signals."""

import asyncio
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from bench.figure import Figure, median, percentile
from bench.list import client
from bench.start import ENVIRONMENT
from tests.fixtures.default_environment import base_interpreter, default_environment
from tests.fixtures.processes import members
from tests.fixtures.stack import Stack, end_all, start_one_process

ROUNDS = 30
SEVERAL = 200
DEAF, GRACE_S = 5, 4
LISTS = 400
PERCENTILES: dict[str, Callable[[Sequence[float]], float]] = {
    "p50": median,
    "p95": partial(percentile, percent=95),
}
COOPERATIVE = """\
import time
try:
    print("ready", flush=True)
    while True:
        time.sleep(60)
except KeyboardInterrupt:
    pass
"""
IGNORES_ALL = """\
import signal, time
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
print("ready", flush=True)
while True:
    time.sleep(60)
"""


WITH_PANDAS = f"import numpy, pandas\n{COOPERATIVE}"


def measure() -> Iterator[Figure]:
    python = default_environment(base_interpreter())
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        try:
            stack = start_one_process(home, OPENBELL_RUNNER__PYTHON=str(python))
            yield from _one(stack, Path(folder), python, COOPERATIVE, "stop")
            yield from _one(stack, Path(folder), python, WITH_PANDAS, "stop with pandas")
            yield from _deaf(stack)
            yield from _at_once(stack, Path(folder), python)
            stack.stop()
        finally:
            end_all(home)


def _one(stack: Stack, folder: Path, python: Path, script: str, what: str) -> Iterator[Figure]:
    """From the request to the answer that nothing is left, against a bare SIGINT and wait."""
    strategy = stack.upload(script, what)
    hosted: list[float] = []
    bare: list[float] = []
    for _ in range(ROUNDS):
        bare.append(_bare(folder, 1, python, script))
        _start(stack, [strategy])
        hosted.append(_stop(stack, strategy))
    for name, of in PERCENTILES.items():
        yield Figure(f"{what}, {name}", of(hosted) * 1e3, of(bare) * 1e3, "ms", 2)


def _deaf(stack: Stack) -> Iterator[Figure]:
    """All of them within one grace, while the list is answered as ever."""
    ids = [stack.upload(IGNORES_ALL, f"deaf {n}", stop_grace_s=str(GRACE_S)) for n in range(DEAF)]
    _start(stack, ids)
    idle = percentile(_lists(stack), 99)
    runs = [stack.status(strategy)["run"]["id"] for strategy in ids]
    with ThreadPoolExecutor(DEAF) as pool:
        began = time.perf_counter()
        stops = [pool.submit(_stop, stack, strategy) for strategy in ids]
        busy = percentile(_lists(stack), 99)
        for stop in stops:
            stop.result()
        took = time.perf_counter() - began
    assert not any(members(run) for run in runs)
    print(f"     list p99 {idle * 1e3:.2f} ms before, {busy * 1e3:.2f} ms while they are stopped")
    yield Figure(f"stop of {DEAF} that ignore signals", took, GRACE_S + 1, "s", 1)
    yield Figure("list meanwhile, p99", busy * 1e3, 20, "ms", 1)


def _lists(stack: Stack) -> list[float]:
    port = urlsplit(stack.url).port or 0
    return asyncio.run(client(port, LISTS, stack.token))


def _at_once(stack: Stack, folder: Path, python: Path) -> Iterator[Figure]:
    """Each by a request of its own; then by one for all. None waits for one that hears nothing."""
    ids = [stack.upload(COOPERATIVE, f"of many {n}") for n in range(SEVERAL)]
    deaf = stack.upload(IGNORES_ALL, "deaf beside", stop_grace_s="20")
    bare = median([_bare(folder, SEVERAL, python) for _ in range(3)])
    _start(stack, [*ids, deaf])
    stack.http.post(f"/python/stop/{deaf}").raise_for_status()
    each = asyncio.run(_stop_each(stack, ids))
    confirmed = [took for took in each if took is not None]
    print(f"     of {SEVERAL} at once: first {min(confirmed):.2f} s, p50 {median(confirmed):.2f} s")
    unconfirmed = SEVERAL - len(confirmed)
    yield Figure(f"of {SEVERAL} stops at once, unconfirmed, + 1", unconfirmed + 1, 1, "", 1)
    yield Figure(f"slowest of {SEVERAL} stops at once", max(confirmed), bare, "s", 2)
    _start(stack, ids)
    began = time.perf_counter()
    stack.http.post("/python/stop-all", timeout=90, params={"wait": 0}).raise_for_status()
    for strategy in ids:
        stack.wait_status(strategy, "stopped")
    yield Figure(f"stop-all of {SEVERAL}", time.perf_counter() - began, bare, "s", 2)
    left = [strategy for strategy in ids if members(stack.status(strategy)["run"]["id"])]
    assert left == []


async def _stop_each(stack: Stack, ids: Sequence[str]) -> list[float | None]:
    """Seconds from the one moment at which all ask, over connections that are there by then, until
    each is answered; None where it was not told that nothing is left.
    """
    port = urlsplit(stack.url).port or 0
    connections = [await asyncio.open_connection("127.0.0.1", port) for _ in ids]
    began = time.perf_counter()

    async def stop(
        strategy: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> float | None:
        writer.write(
            f"POST /python/stop/{strategy}?wait=60 HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n"
            f"authorization: Bearer {stack.token}\r\nconnection: close\r\n\r\n".encode()
        )
        answer = await reader.read()
        took = time.perf_counter() - began
        writer.close()
        return took if b'"state":"exited"' in answer else None

    return await asyncio.gather(
        *(stop(id_, *connection) for id_, connection in zip(ids, connections, strict=True))
    )


def _start(stack: Stack, ids: Sequence[str]) -> None:
    """Once each has said that it is ready."""
    for strategy in ids:
        stack.post(f"/python/start/{strategy}")
    for strategy in ids:
        stack.wait_status(strategy, "running")
        stack.wait_log(strategy, "ready")


def _stop(stack: Stack, strategy: str) -> float:
    with stack.client(stack.token) as http:
        http.get("/healthz").raise_for_status()  # connected, as a browser is
        began = time.perf_counter()
        answer = http.post(f"/python/stop/{strategy}", params={"wait": 60}, timeout=90)
        took = time.perf_counter() - began
    answer.raise_for_status()
    assert answer.json()["strategy"]["run"]["state"] == "exited", answer.text
    return took


def _bare(folder: Path, several: int, python: Path, source: str = COOPERATIVE) -> float:
    """Seconds from the first signal until all have ended."""
    script = folder / "script.py"
    script.write_text(source)
    processes = [
        subprocess.Popen(
            [python, "script.py"],
            cwd=folder,
            stdout=subprocess.PIPE,
            env=ENVIRONMENT,
            start_new_session=True,
        )
        for _ in range(several)
    ]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    began = time.perf_counter()
    for process in processes:
        process.send_signal(signal.SIGINT)
    for process in processes:
        process.wait()
    took = time.perf_counter() - began
    for process in processes:
        process.communicate()
    return took
