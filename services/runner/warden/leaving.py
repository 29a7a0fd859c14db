"""How what was forked from a zygote ends: as `python script.py` does, but for what it shares.

An interpreter that ends takes all apart that was ever imported, which would be to write to all
that the zygote's strategies share: a copy of it for each, and tens of milliseconds of a processor,
when hundreds are stopped at one instant. What the script itself has made and imported is let go of
as ever, by the same rules and in the same order; then the process ends. Where that does not free
all that must be freed, the interpreter ends as it always does.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import os
import signal
import sys
import types
import weakref
from typing import Any

assert sys.platform == "linux"  # before what other platforms do not have

from .cell import SIGNALS

_FAILED = 255
_LAST = ("last_exc", "last_type", "last_value", "last_traceback")
_STREAMS = ("stdin", "stdout", "stderr")
_atexit: Any = atexit
_sys: Any = sys
_libc = ctypes.PyDLL(None)
"""Called without letting other threads go on: at the exit they would not, either."""


class Leaving:
    """Made before anything else asks to be called at the exit, and so called after all that."""

    def __init__(self) -> None:
        self.status: int | None = 0
        """With which it will end; None: by SIGINT."""
        self._shared = -1
        """So many modules it had when it was forked, which are the first of all."""
        atexit.register(self._leave)

    def begin(self) -> None:
        self._shared = len(sys.modules)

    def exits(self, error: SystemExit) -> None:
        """As sys.exit() has it."""
        code: Any = error.code
        if code is None:
            self.status = 0
        elif isinstance(code, int):
            small = -(2**63) <= code < 2**63
            self.status = code & 0xFF if small else _FAILED
        else:
            self.status = 1

    def _leave(self) -> None:
        if self._shared < 0 or len(_sys._current_frames()) > 1:
            return  # other threads would go on, and find what they use let go of
        try:
            _flush()
            self._let_go()
            _flush()
            if _is_anything_left():
                return  # only the interpreter finds all that may hold it
        except Exception:  # noqa: BLE001 - the interpreter meets it again, and says so as ever
            return
        if self.status is None:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        _libc.exit(128 + signal.SIGINT if self.status is None else self.status)

    def _let_go(self) -> None:
        """First of all it collects, with all still in its place, as the interpreter does: that
        puts a file before its buffer, so that the end of one loses nothing that is in the other.
        """
        _atexit._clear()
        _hear_no_signals()
        if gc.isenabled():
            gc.collect()
        for name in _LAST:
            if hasattr(sys, name):
                setattr(sys, name, None)
        for name in _STREAMS:
            setattr(sys, name, getattr(sys, f"__{name}__"))
        own = [name for name, _ in zip(reversed(sys.modules), range(self._added), strict=False)]
        left = [_forgotten(name) for name in ("__main__", *reversed(own))]
        gc.collect()
        for one in reversed(left):
            module = one and one()
            if module is not None:
                _empty(module.__dict__)

    @property
    def _added(self) -> int:
        return max(0, len(sys.modules) - self._shared)


def _forgotten(name: str) -> weakref.ref[types.ModuleType] | None:
    """None: it was something else by a module's name."""
    module: Any = sys.modules.pop(name)
    return weakref.ref(module) if isinstance(module, types.ModuleType) else None


def _hear_no_signals() -> None:
    """Handlers of the script's are let go of, too."""
    for number in SIGNALS:
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)


def _is_anything_left() -> bool:
    """Of what the script has made and would be told of its end, or has to write something yet: held
    by a thread that goes on, or by something that is shared.
    """
    kinds: set[type[Any]] = {*map(type, gc.get_objects())}
    return any(hasattr(kind, "__del__") for kind in kinds)


def _empty(names: dict[str, Any]) -> None:
    """As the interpreter does: what has one underscore first, and nothing is taken out."""
    for private in (True, False):
        for name in [*names]:
            is_private = name.startswith("_") and not name.startswith("__")
            if name != "__builtins__" and (is_private or not private):
                names[name] = None


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and not stream.closed:
            stream.flush()
