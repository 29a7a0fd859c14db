"""The environment of a run: built from nothing, so that no variable of the host leaks in."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from openbell.contracts.commands import StartRun
from services.runner.environments import writes_by_lines
from services.runner.notes import heartbeat

USER = "openbell"
"""What it is told to be called: its user has a number alone."""
SYSTEM_PATH = ("/usr/local/bin", "/usr/bin", "/bin")
NEEDED_BY_WINDOWS = ("SYSTEMROOT", "SYSTEMDRIVE", "COMSPEC", "PATHEXT", "TEMP", "TMP")
ONE_THREAD = ("OPENBLAS", "OMP", "MKL", "NUMEXPR", "NUMBA")


def build(
    start: StartRun,
    folder: Path,
    python: Path,
    *,
    host: Mapping[str, str],
    own: Mapping[str, str],
) -> dict[str, str]:
    """All variables that the strategy of `start` sees.

    `host` holds what this host gives to every strategy, `own` what the owner set for this one;
    the owner's win. OPENALGO_HOST and HOST_SERVER name one thing: each stands in for the other.
    """
    variables = {
        "HOME": str(folder),
        "USER": USER,
        "LOGNAME": USER,
        "LANG": "C.UTF-8",
        "PATH": os.pathsep.join((str(python.parent), *_system_path())),
        **({} if writes_by_lines(python) else {"PYTHONUNBUFFERED": "1"}),
        **{f"{library}_NUM_THREADS": "1" for library in ONE_THREAD},
        **_windows(),
        **host,
        **own,
        "STRATEGY_ID": start.strategy_id,
        "STRATEGY_NAME": start.strategy_name,
        "OPENBELL_HEARTBEAT": str(heartbeat(folder)),
    }
    if start.exchange:
        variables.setdefault("OPENALGO_STRATEGY_EXCHANGE", start.exchange)
    server = variables.get("HOST_SERVER") or variables.get("OPENALGO_HOST")
    if server:
        variables.setdefault("HOST_SERVER", server)
        variables.setdefault("OPENALGO_HOST", server)
    return variables


def _system_path() -> tuple[str, ...]:
    if sys.platform == "win32":
        return (str(Path(os.environ["SYSTEMROOT"]) / "System32"),)
    return SYSTEM_PATH


def _windows() -> dict[str, str]:
    if sys.platform == "win32":
        return {name: os.environ[name] for name in NEEDED_BY_WINDOWS if name in os.environ}
    return {}
