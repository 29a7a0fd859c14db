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

    def kill(pid: int, number: int) -> None:
        signalled.append((pid, number))

    def handle(number: int, _handler: object) -> None:
        handled.append(number)

    def end(_code: int) -> None:
        pytest.fail("it went on")

    monkeypatch.setattr(os, "kill", kill)
    monkeypatch.setattr(os, "wait", lambda: (7, 0))
    monkeypatch.setattr(os, "_exit", end)
    monkeypatch.setattr(signal, "signal", handle)
    with pytest.raises(OSError, match="no processes of its own"):
        keeper.keep(7, -1)
    with pytest.raises(OSError, match="no processes of its own"):
        keeper._pass_on(signal.SIGTERM, None)  # pyright: ignore[reportPrivateUsage]
    with pytest.raises(OSError, match="no processes of its own"):
        keeper._say_farewell()  # pyright: ignore[reportPrivateUsage]
    assert (signalled, handled) == ([], [])


def test_the_first_of_a_cell_passes_signals_on(monkeypatch: pytest.MonkeyPatch) -> None:
    signalled: list[tuple[int, int]] = []

    def kill(pid: int, number: int) -> None:
        signalled.append((pid, number))

    monkeypatch.setattr(os, "kill", kill)
    monkeypatch.setattr(os, "getpid", lambda: 1)
    keeper._pass_on(signal.SIGINT, None)  # pyright: ignore[reportPrivateUsage]
    assert signalled == [(-1, signal.SIGINT)]
