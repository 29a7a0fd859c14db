"""The tail of a log of 1 GB as its runner reads it, masked, against a bare seek and read."""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

from bench.figure import Figure, median
from openbell.contracts.logs import ReadLog
from openbell.redaction import Mask
from services.runner.logs.reading import Reader
from services.runner.logs.runlog import LogBook
from services.runner.logs.secrets import Hidden, Secrets

SIZE = 10**9
TAIL = 65_536
ROUNDS = 300
BUDGET_MS, BUDGET_MB = 5, 10
STRATEGY, RUN = "bench-1a2b3c", "bench-1a2b3c-1"
HIDDEN = Hidden(Mask([f"kite-token-{n:04}" for n in range(20)]), "v1")


def measure() -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / STRATEGY / f"{RUN}.log"
        file.parent.mkdir()
        _write(file)
        reader = Reader(LogBook(Path(folder)), cast("Secrets", None))
        command = ReadLog(strategy_id=STRATEGY, run_id=RUN, offset=-TAIL, limit=TAIL, live=True)

        def bare() -> bytes:
            with file.open("rb") as log:
                log.seek(-TAIL, os.SEEK_END)
                return log.read()

        def masked() -> bytes:
            return reader.read_now(command, HIDDEN).data

        before = _peak_mb(anew=True)
        value = _median_ms(masked)
        more = _peak_mb() - before
        reference = _median_ms(bare)
        assert masked() == bare()
    print(f"     seek and read {reference:.3f} ms, masked {value:.3f} ms")
    yield Figure("tail of a 1 GB log, p50", value, BUDGET_MS, "ms", 1)
    yield Figure("its memory beyond the idle process", more, BUDGET_MB, "MB", 1)


def _write(file: Path) -> None:
    block = b"".join(b"2026-08-03 09:15:00 order %07d placed\n" % n for n in range(25_000))
    with file.open("wb") as log:
        for _ in range(SIZE // len(block)):
            log.write(block)


def _median_ms(work: Callable[[], object]) -> float:
    times: list[float] = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return median(times) * 1e3


def _peak_mb(*, anew: bool = False) -> float:
    """The most memory that this process has held; since now. Linux alone tells."""
    if anew:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if "VmHWM" in line) / 1024
