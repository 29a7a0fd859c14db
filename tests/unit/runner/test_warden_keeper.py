"""The keeper tells everybody of its PID namespace to end: it must be sure that it has one."""

import os
import signal
import sys

import pytest

if sys.platform != "linux":
    pytest.skip("cells are Linux's", allow_module_level=True)
assert sys.platform == "linux"

from services.runner.warden import keeper  # noqa: E402 - Linux alone has it


def test_a_keeper_that_is_not_the_first_of_a_cell_signals_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Outside of a cell, everybody is every process of the host."""
    signalled: list[tuple[int, int]] = []
    handled: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: signalled.append((pid, number)))
    monkeypatch.setattr(os, "wait", lambda: (7, 0))
    monkeypatch.setattr(os, "_exit", lambda code: pytest.fail("it went on"))
    monkeypatch.setattr(signal, "signal", lambda number, handler: handled.append(number))
    with pytest.raises(OSError, match="no processes of its own"):
        keeper.keep(7, -1)
    for act in (keeper._pass_on, lambda *_: keeper._say_farewell()):  # pyright: ignore[reportPrivateUsage]
        with pytest.raises(OSError, match="no processes of its own"):
            act(signal.SIGTERM, None)
    assert (signalled, handled) == ([], [])


def test_the_first_of_a_cell_passes_signals_on(monkeypatch: pytest.MonkeyPatch) -> None:
    signalled: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: signalled.append((pid, number)))
    monkeypatch.setattr(os, "getpid", lambda: 1)
    keeper._pass_on(signal.SIGINT, None)  # pyright: ignore[reportPrivateUsage]
    assert signalled == [(-1, signal.SIGINT)]
