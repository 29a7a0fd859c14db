"""The zygotes of this host: started before they are needed, asked for cells, let go when idle."""

from __future__ import annotations

import fcntl
import gc
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from selectors import EVENT_READ, BaseSelector
from typing import NoReturn

assert sys.platform == "linux"  # before what other platforms do not have

from . import cell, rootfs, syscalls
from .host import Order
from .making import Making
from .posix import open_log

WARM_S = 20.0
"""How long its imports may take; then what waits for it starts without it."""
IDLE_S = 900.0
BUSY_S = 60.0
"""One that was asked for so lately is not let go to make room for another."""
ROOM = 100 << 20
"""Bytes that one takes, with what it has imported; all of them at most a quarter of the memory."""
LEAST, MOST = 4, 64
PACKAGE = "_openbell"
PARALLEL = ("OPENBLAS", "OMP", "MKL", "NUMEXPR", "NUMBA")
"""Libraries that are told how many threads to start."""
PARTS = (
    *("cell", "cgroup", "cgroup1", "cgroup2", "cgroup_files", "host", "keeper", "leaving"),
    *("posix", "procfs", "records", "rootfs", "syscalls", "tree", "zygote"),
)
"""What it needs of this package. It is told their source: where ours lies it may not look."""
EARLY = ("PYTHON", "LC_", "LANG", "LD_", "MALLOC_", "GLIBC_", "OPENSSL_", "SSL_", "TZ")
ENVIRONMENT = {"HOME": "/tmp", "PATH": "/usr/local/bin:/usr/bin:/bin"}  # noqa: S108 - its own
BOOT = """\
def start():
    import json, sys
    from importlib.machinery import ModuleSpec
    with open(3) as bundle:
        told = json.load(bundle)
    sources, package = told["sources"], told["package"]
    class Own:
        def find_spec(self, name, path=None, target=None):
            first, _, module = name.partition(".")
            if first == package and (not module or module in sources):
                return ModuleSpec(name, self, is_package=not module)
        def create_module(self, spec):
            return None
        def exec_module(self, module):
            name = module.__name__.partition(".")[2]
            exec(compile(sources.get(name, ""), f"<openbell {name}>", "exec"), module.__dict__)
    own = Own()
    sys.meta_path.insert(0, own)
    zygote = __import__(package + ".zygote", fromlist=["serve"])
    sys.meta_path.remove(own)
    return zygote.flush, zygote.end_with, zygote.serve(told["preload"])
flush, end_with, ready = start()
try:
    try:
        exec(*ready.pop())
    finally:
        flush()
except BaseException as error:
    end_with(error)
"""


@dataclass(frozen=True, slots=True)
class Kind:
    """Starts of one kind are forked from one zygote."""

    python: str
    preload: tuple[str, ...]
    uid: int | None
    folders: str
    """In which the owner's strategies have theirs."""
    readable: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    """The variables that an interpreter, or a library, reads when it comes up."""

    def serves(self, other: Kind) -> bool:
        """Whether what it has imported is all that the other would."""
        return replace(self, preload=other.preload) == other and {*other.preload} <= {*self.preload}


def kind_of(order: Order, preload: tuple[str, ...], uid: int | None) -> Kind:
    early = {
        name: value for name, value in order.env.items() if name.startswith((*EARLY, *PARALLEL))
    }
    folders = os.path.dirname(order.cwd)  # noqa: PTH120 - as it is written, not resolved
    return Kind(order.argv[0], preload, uid, folders, order.readable, tuple(sorted(early.items())))


@dataclass(slots=True)
class Zygote:
    kind: Kind
    pid: int
    channel: socket.socket
    until: float
    used: float
    warm: bool = False
    why_not: str | None = None
    """Why nothing can be forked from it."""

    @property
    def warming(self) -> bool:
        return not self.warm and self.why_not is None


class Zygotes:
    """`changed` is called when one has become warm, or will not."""

    def __init__(self, folder: Path, selector: BaseSelector, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._log = folder / "zygotes.log"
        self._root = folder / "root"
        self._selector = selector
        self._sources = {
            name: (Path(__file__).with_name(f"{name}.py")).read_text() for name in PARTS
        }
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        self._most = max(LEAST, min(MOST, memory // 4 // ROOM))
        self._all: dict[Kind, Zygote] = {}

    @property
    def pids(self) -> set[int]:
        return {zygote.pid for zygote in self._all.values()}

    @property
    def warming(self) -> bool:
        return any(zygote.warming for zygote in self._all.values())

    def of(self, kind: Kind) -> Zygote:
        """Started when there is none. OSError, also when there are as many as there may be."""
        now = time.monotonic()
        zygote = self._all.get(kind) or self._serving(kind)
        if zygote is None:
            self._make_room(now)
            zygote = self._all[kind] = self._start(kind, now)
        zygote.used = now
        return zygote

    def forks(self, zygote: Zygote) -> Callable[[Order, int | None, cell.Door, Making], None]:
        """What has it fork itself into a cell. OSError."""

        def fork(order: Order, _uid: int | None, door: cell.Door, _making: Making) -> None:
            told = asdict(order)
            with ExitStack() as stack:
                file = _written(stack, json.dumps(told).encode())
                sent = [file, door.report, door.go, door.record, door.log, *door.ways]
                socket.send_fds(zygote.channel, [b"start"], sent)

        return fork

    def tend(self) -> None:
        """Gives up what takes too long, and lets go what nobody has asked for lately."""
        now = time.monotonic()
        for zygote in [*self._all.values()]:
            if zygote.warming and now >= zygote.until:
                self._refuse(zygote, "its imports took too long")
            elif zygote.warm and now >= zygote.used + IDLE_S:
                self._let_go(zygote)

    def close(self) -> None:
        for zygote in [*self._all.values()]:
            self._let_go(zygote)

    def _start(self, kind: Kind, now: float) -> Zygote:
        with ExitStack() as ours, ExitStack() as theirs:
            channel, end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            ours.enter_context(channel)
            theirs.enter_context(end)
            log = open_log(self._log)
            theirs.callback(os.close, log)
            told = {"sources": self._sources, "package": PACKAGE, "preload": kind.preload}
            bundle = _written(theirs, json.dumps(told).encode())
            pid = os.fork()
            if pid == 0:
                _become(kind, str(self._root), end.fileno(), bundle, log)
            ours.pop_all()
        channel.settimeout(0)
        zygote = Zygote(kind, pid, channel, now + WARM_S, now)
        self._selector.register(channel, EVENT_READ, lambda: self._hear(zygote))
        return zygote

    def _make_room(self, now: float) -> None:
        if len(self._all) >= self._most:
            idlest = min(self._all.values(), key=lambda one: one.used)
            if idlest.warming or now < idlest.used + BUSY_S:
                raise OSError("there are as many zygotes as there may be")
            self._let_go(idlest)

    def _serving(self, kind: Kind) -> Zygote | None:
        """The one that has imported least of those that have imported enough."""
        warm = (one for one in self._all.values() if one.warm and one.kind.serves(kind))
        return min(warm, key=lambda one: len(one.kind.preload), default=None)

    def _hear(self, zygote: Zygote) -> None:
        said = b""
        with suppress(OSError):
            said = zygote.channel.recv(1 << 13)
        if said.startswith(b"error "):
            self._refuse(zygote, said.decode(errors="replace").strip().removeprefix("error "))
        elif said:
            zygote.warm = True
            self._changed()
        elif zygote.warming:
            self._refuse(zygote, "it ended while it was made ready")
        else:
            self._let_go(zygote)

    def _refuse(self, zygote: Zygote, why: str) -> None:
        """It stays known, so that it is not tried at each start; for as long as one is kept."""
        zygote.why_not = why
        self._hang_up(zygote)
        self._changed()

    def _let_go(self, zygote: Zygote) -> None:
        self._all.pop(zygote.kind, None)
        if zygote.why_not is None:
            zygote.why_not = "it has ended"
            self._hang_up(zygote)

    def _hang_up(self, zygote: Zygote) -> None:
        """The end of its channel ends it."""
        self._selector.unregister(zygote.channel)
        zygote.channel.close()


def _written(stack: ExitStack, data: bytes) -> int:
    """A file of no folder."""
    file = os.memfd_create(PACKAGE)
    stack.callback(os.close, file)
    with os.fdopen(file, "wb", closefd=False) as writer:
        writer.write(data)
    os.lseek(file, 0, os.SEEK_SET)
    return file


def _become(kind: Kind, root: str, channel: int, bundle: int, log: int) -> NoReturn:
    """In a fork of the warden."""
    try:
        gc.disable()
        signal.set_wakeup_fd(-1)
        signal.pthread_sigmask(signal.SIG_BLOCK, cell.SIGNALS)
        cell.hold_nothing_but((channel, bundle, log))
        os.umask(cell.UMASK)
        cell.forget_keys(kind.uid)
        os.setsid()
        os.dup2(log, 1)
        os.dup2(log, 2)
        cell.leave_the_host(kind.uid)
        rootfs.build(root, kind.folders, kind.readable, rooms=("cell",))
        rootfs.enter(root, own_processes=False)
        if kind.uid is not None:
            cell.be_user(kind.uid)
        syscalls.drop_capabilities()
        syscalls.gain_no_privileges()
        _placed(bundle, channel)
        cell.be_as_started_by_hand()
        os.execve(kind.python, [kind.python, "-c", BOOT], {**ENVIRONMENT, **dict(kind.environment)})  # noqa: S606
    except BaseException as error:  # noqa: BLE001 - a fork never goes on as the warden
        with suppress(OSError):
            os.write(channel, f"error {error}\n".encode()[:4096])
    finally:
        os._exit(1)


def _placed(bundle: int, channel: int) -> None:
    """Where BOOT and what it starts look for them, past the exec."""
    high = [fcntl.fcntl(each, fcntl.F_DUPFD, 10) for each in (bundle, channel)]
    for number, each in enumerate(high, 3):
        os.dup2(each, number)
        os.close(each)
