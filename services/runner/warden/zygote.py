"""An interpreter that has imported what scripts need, and forks itself into strategies.

It runs in the strategies' own interpreter, as their owner's user, in a file system of what they
may see; it is told of a start by a message, and its fork enters a cell as one of the warden's
would. What comes out of it behaves as `python script.py` does: `__main__`, tracebacks, exit codes
and what happens at the exit are the interpreter's own.

    warden ─ zygote ─fork─ doorway ─fork─ keeper ─fork─ the strategy
                           └ ends at once: the keeper is the warden's child, as a subreaper's
"""

from __future__ import annotations

import builtins
import gc
import importlib
import json
import os
import signal
import socket
import sys
import threading
import time
import types
from collections.abc import Sequence
from contextlib import suppress
from importlib.machinery import SourceFileLoader
from typing import Any, NoReturn

assert sys.platform == "linux"  # before what other platforms do not have

from . import syscalls
from .cell import SIGNALS, Door, Plan, enter, execute
from .host import MARK, Bounds, Order
from .leaving import Leaving

CHANNEL = 4
"""The descriptor on which it is told of starts: with each message come the order, in a file, and
the descriptors of the cell's door.
"""
ROOM = "/cell"
"""The empty folder over which each cell has its file system."""
WARM = b"warm\n"
MOST_WAYS = 16
OURS: list[str] = []
"""Our modules by name, found once: whoever goes through all modules writes to a page of each."""

Ready = tuple[types.CodeType, dict[str, Any]]
leaving = Leaving()


def serve(preload: Sequence[str]) -> list[Ready]:
    """Returns in each strategy, once it may go: what is to be executed, and in which module.

    It is to be taken out of the list: what a module holds is let go at the exit only if nobody
    else holds it.
    """
    channel = socket.socket(fileno=CHANNEL)
    channel.set_inheritable(False)
    try:
        _warm_up(preload)
    except BaseException as error:  # noqa: BLE001 - a library's own exit among them
        channel.send(f"error {_said(error)}\n".encode()[:4096])
        os._exit(1)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # doorways are reaped by the kernel
    syscalls.be_called("openbell-zygote")
    channel.send(WARM)
    while True:
        message, descriptors, _, _ = socket.recv_fds(channel, 16, 5 + MOST_WAYS)
        if not message:
            os._exit(0)
        if syscalls.fork() == 0:
            return _be_strategy(*descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _warm_up(preload: Sequence[str]) -> None:
    """What cannot be shared is refused: threads do not survive a fork, and what an import prints,
    each script has to print.
    """
    before = _printed()
    for name in preload:
        importlib.import_module(name)
    sys.stdout.flush()
    sys.stderr.flush()
    if _printed() != before:
        raise ImportError(f"one of {', '.join(preload)} prints when it is imported")
    if len(os.listdir("/proc/self/task")) != 1:  # noqa: PTH208
        raise ImportError(f"one of {', '.join(preload)} starts threads when it is imported")
    OURS[:] = [name for name in sys.modules if name.partition(".")[0] == __package__]
    gc.disable()
    gc.collect()
    gc.freeze()


def _printed() -> tuple[int, int]:
    return os.fstat(1).st_size, os.fstat(2).st_size


def _be_strategy(file: int, report: int, go: int, record: int, log: int, *ways: int) -> list[Ready]:
    door = Door(report, go, record, log, ways, file)
    plan = Plan(lambda: _order(file), None, ROOM, whole=True)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    found: list[Ready] = []
    order = enter(plan, door, lambda order: found.extend(_made_ready(order, door)))
    if not found:
        execute(order, door)
    for descriptor in (door.record, door.go, door.log):
        os.close(descriptor)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    return found


def _order(file: int) -> Order:
    with os.fdopen(file) as reader:
        told = json.load(reader)
    told["bounds"] = Bounds(**told["bounds"])
    told["argv"], told["readable"] = tuple(told["argv"]), tuple(told["readable"])
    return Order(**told)


def _made_ready(order: Order, door: Door) -> list[Ready]:
    """All of a start that can be done before its instant."""
    syscalls.forked()
    syscalls.be_called(os.path.basename(order.argv[0]))  # noqa: PTH119
    syscalls.be_readable(yes=True)  # as after an exec
    syscalls.be_described(order.argv, {**order.env, MARK: order.run})
    _answer_signals_as_python_does()
    os.environ.clear()
    os.environ.update({**order.env, MARK: order.run})
    time.tzset()
    _forget_whom_we_come_from()
    script = os.path.join(order.cwd, order.argv[1])  # noqa: PTH118
    code = _compiled(script, door)
    if code is None:
        return []
    sys.argv = list(order.argv[1:])
    sys.orig_argv = list(order.argv)
    sys.path[0] = os.path.dirname(script)  # noqa: PTH120
    for name in OURS:
        del sys.modules[name]
    leaving.begin()
    gc.enable()
    return [(code, _main_module(script))]


def _answer_signals_as_python_does() -> None:
    ignored = {signal.SIGPIPE, signal.SIGXFSZ}
    for number in SIGNALS:
        with suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _forget_whom_we_come_from() -> None:
    """What libraries have drawn or noted once, each process has to have of its own."""
    random: Any = sys.modules.get("numpy.random")
    if random is not None:
        random.seed()
    process: Any = sys.modules.get("multiprocessing.process")
    if process is not None:
        key = process.AuthenticationString(os.urandom(32))
        process.current_process()._config["authkey"] = key
        process.ORIGINAL_DIR = os.getcwd()  # noqa: PTH109
    main: Any = threading.main_thread()
    main._set_native_id()


def _main_module(script: str) -> dict[str, Any]:
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    names = module.__dict__
    names.update(__builtins__=builtins, __file__=script, __cached__=None)
    names["__loader__"] = SourceFileLoader("__main__", script)
    if sys.version_info < (3, 14):
        names["__annotations__"] = {}
    return names


def _compiled(script: str, door: Door) -> types.CodeType | None:
    """What cannot be compiled is told now, while there is time. None: it is to be executed when it
    may go, and fails as it would by hand.
    """
    with open(script, "rb") as file:  # noqa: PTH123
        source = file.read()
    try:
        return compile(source, script, "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        os.write(door.report, f"note {_said(error)}\n".encode())
        return None


def _said(error: BaseException) -> str:
    words = f"{type(error).__name__}: {error}"
    return " ".join(words.split())[:1000]


def flush() -> None:
    """As the interpreter does behind a script, before all that is done at the exit."""
    for stream in (sys.stderr, sys.stdout):
        with suppress(Exception):
            stream.flush()


def end_with(error: BaseException) -> NoReturn:
    """Ends as the interpreter does with what a script has raised, less the frame that called it."""
    if isinstance(error, SystemExit):
        leaving.exits(error)
        raise error
    leaving.status = None if isinstance(error, KeyboardInterrupt) else 1
    traceback = error.__traceback__.tb_next if error.__traceback__ else None
    error.__traceback__ = traceback
    sys.last_type, sys.last_value, sys.last_traceback = type(error), error, traceback
    if sys.version_info >= (3, 12):
        sys.last_exc = error
    _show(error)
    if isinstance(error, KeyboardInterrupt):
        sys.excepthook = _say_nothing
        raise KeyboardInterrupt
    raise SystemExit(1)


def _show(error: BaseException) -> None:
    """By the script's own hook; as the interpreter does where that is broken."""
    try:
        sys.excepthook(type(error), error, error.__traceback__)
    except SystemExit as leave:
        leaving.exits(leave)
        raise
    except BaseException as broken:  # noqa: BLE001 - whatever it raises
        broken.__context__ = None
        broken.__traceback__ = broken.__traceback__.tb_next if broken.__traceback__ else None
        sys.stderr.write("Error in sys.excepthook:\n")
        sys.__excepthook__(type(broken), broken, broken.__traceback__)
        sys.stderr.write("\nOriginal exception was:\n")
        sys.__excepthook__(type(error), error, error.__traceback__)


def _say_nothing(*_: object) -> None:
    """It has been said."""
