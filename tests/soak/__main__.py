"""`python -m tests.soak --minutes 10`: many strategies come and go; nothing grows, nothing stays.

Prints what Openbell's processes hold, every ten seconds. Fails if they hold more at the end, with
nothing running any more, than after the warm-up with nothing running; or if anything is left of
any run.
"""

import argparse
import contextlib
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx

from tests.fixtures.stack import Stack, end_all, eventually, processes_of, start_one_process
from tests.hostile.attacks import FLOOD
from tests.soak.counts import Counts, Look, Observer, heading
from tests.soak.scripts import SCRIPTS

STRATEGIES = 100
EVERY_S = 10
WARM_UP = 0.2
"""Of the whole time: caches are filled, pools are opened, modules imported."""
SETTLE_S = 5
"""After the last run was gone: connections that are kept for a while are closed."""
MORE = Counts(descriptors=4, sockets=4, threads=4, memory_mb=24.0, zombies=0)
"""What a process may hold beyond what it held after the warm-up: pools breathe, and interpreters
give memory back late."""


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--minutes", type=float, default=10)
    options.add_argument("--seed", type=int, default=random.randrange(10**6))
    given = options.parse_args()
    print(f"seed {given.seed}")
    with tempfile.TemporaryDirectory(prefix="openbell-soak-") as folder:
        home = Path(folder) / "home"
        try:
            stack = start_one_process(home)
            soak = Soak(stack, random.Random(given.seed))
            found = list(soak.run(given.minutes * 60))
            found += _after_its_end(stack)
        finally:
            end_all(home)
    for fault in found:
        print(f"FAIL {fault}")
    print("ok" if not found else f"{len(found)} faults")
    return 1 if found else 0


class Soak:
    def __init__(self, stack: Stack, chance: random.Random) -> None:
        self._stack = stack
        self._chance = chance
        self._observer = Observer(stack)
        self._began = time.monotonic()
        self._asked: Counter[str] = Counter()
        self._ids: list[str] = []

    def run(self, seconds: float) -> Iterator[str]:
        """What went wrong."""
        self._upload()
        print(heading())
        self._churn(seconds * WARM_UP)
        before = self._at_rest()
        self._churn(seconds * (1 - WARM_UP))
        after = self._at_rest()
        print(f"asked: {dict(self._asked)}")
        yield from self._reasons()
        yield from grown(before, after)
        yield from self._left()

    def _upload(self) -> None:
        names = list(SCRIPTS)
        for number in range(STRATEGIES):
            kind = names[number % len(names)]
            name = f"{kind} {number}"
            restart = "on-failure" if number % 3 else "never"
            made = self._stack.upload(SCRIPTS[kind], name, restart=restart, stop_grace_s="1")
            self._ids.append(made)
        flood = self._stack.upload(FLOOD, "floods", parameters={"MEGABYTES": "1000"})
        self._ids.append(flood)

    def _churn(self, seconds: float) -> None:
        """Somebody starts, stops and restarts whatever comes to hand."""
        until = time.monotonic() + seconds
        look_at = time.monotonic()
        while time.monotonic() < until:
            if time.monotonic() >= look_at:
                look_at += EVERY_S
                self._look()
            act = self._chance.choices(["start", "stop", "restart"], [6, 3, 1])[0]
            answer = self._post(f"/python/{act}/{self._chance.choice(self._ids)}")
            self._asked[f"{act} {answer.status_code}"] += 1
            time.sleep(self._chance.uniform(0, 0.15))

    def _post(self, path: str) -> httpx.Response:
        return self._stack.http.post(path, timeout=60)

    def _at_rest(self) -> Look:
        """Everything is stopped, and has been for a moment."""
        answer = self._stack.http.post("/python/stop-all", params={"wait": 60}, timeout=90).json()
        assert answer["all_gone"], answer
        time.sleep(SETTLE_S)
        return self._look("at rest")

    def _look(self, what: str = "") -> Look:
        look = self._observer.look(time.monotonic() - self._began)
        print(look.row(), what, flush=True)
        return look

    def _reasons(self) -> Iterator[str]:
        """How its runs have ended: each kind of script in its own ways alone."""
        ways: dict[str, Counter[str]] = {}
        for strategy in self._ids:
            kind = strategy.partition("-")[0]
            runs = self._stack.http.get(f"/python/runs/{strategy}").json()
            ways.setdefault(kind, Counter()).update(run["reason"] for run in runs)
        for kind, reasons in ways.items():
            print(f"{kind:8} {dict(reasons)}")
            for reason in set(reasons) - POSSIBLE[kind] - {"stopped_by_user"}:
                yield f"{reasons[reason]} runs of {kind} ended as {reason}"

    def _left(self) -> Iterator[str]:
        """Of any run, on the host, once there is none."""
        checks: dict[str, Callable[[], object]] = {
            "cells": self._observer.cells,
            "groups": self._observer.groups,
        }
        for name, check in checks.items():
            with contextlib.suppress(AssertionError):
                eventually(lambda check=check: not check() or None, lambda: "", timeout_s=10)
            if found := check():
                yield f"{name} are left: {found!r:.300}"


POSSIBLE = {
    "ends": {"completed"},
    "crashes": {"crashed"},
    "faults": {"crashed"},
    "deaf": set[str](),
    "forks": {"completed"},
    "holds": set[str](),
    "writes": set[str](),
    "floods": set[str](),
}
"""How a script ends by itself."""


def grown(before: Look, after: Look) -> Iterator[str]:
    for whose in ("product", "nats", "warden"):
        then, now = getattr(before, whose), getattr(after, whose)
        for what in Counts.__dataclass_fields__:
            was, is_now, more = (getattr(one, what) for one in (then, now, MORE))
            if was and is_now > was + more:
                yield f"{whose}: {what} grew from {was:.0f} to {is_now:.0f}"
        if now.zombies:
            yield f"{whose}: {now.zombies} zombies are left"
    if after.strangers:
        yield f"{after.strangers} processes of strategies are left"


def _after_its_end(stack: Stack) -> Iterator[str]:
    home = stack.home
    codes = stack.stop()
    if codes != [0]:
        yield f"the product ended with {codes}"
    if left := processes_of(home):
        yield f"processes are left: {left}"
    for log in (home / "up.stderr", home / "data" / "warden" / "warden.log"):
        if "Traceback" in (said := log.read_text()):
            yield f"{log.name} tells of a defect: {said[said.index('Traceback') :][:2000]}"


if __name__ == "__main__":
    sys.exit(main())
