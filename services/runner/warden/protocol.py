"""What a runner and its warden say to each other: one JSON object a line.

A request `{"id": n, "op": "start", …}` is answered by `{"id": n, "ok": {…}}` or
`{"id": n, "error": {"code": …, "detail": …}}`. Between answers, a subscriber is
pushed journal entries: `{"entry": {…}}`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from math import isfinite
from typing import Any, cast

from .host import Bounds, Order

VERSION = 1
LINE_LIMIT = 4 << 20
LONGEST_WAIT = 7 * 86400.0
RUN = re.compile(r"[a-z0-9-]{1,100}")
"""A run's name: it is the name of a file and of a control group, too."""
SIGNALS = frozenset({"SIGHUP", "SIGINT", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGTERM", "SIGKILL"})

Json = dict[str, object]
Steps = tuple[tuple[str, float], ...]
Paths = tuple[str, ...]
Names = tuple[str, ...] | None


class RefusedError(Exception):
    """The warden understood, and will not."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Hello:
    pass


@dataclass(frozen=True, slots=True)
class Start:
    run: str
    strategy: str
    epoch: int
    argv: tuple[str, ...]
    cwd: str
    env: Mapping[str, str]
    log: str
    ladder: Steps
    """How this run wants to be stopped; kept for whoever stops it without knowing it."""
    at: float | None = None
    """The moment, in Unix seconds, until which it is held; one in the past: until it is prepared,
    beside others, and in its turn. None: it is prepared and started while all else waits.
    """
    owner: str = "nobody"
    """Whose it is: runs of different owners have different users, where there are any."""
    readable: Paths = ()
    """What it may read besides the system and its own folder, which is `cwd`."""
    lifetime: float | None = None
    """Seconds after its start at which it is stopped, by its ladder."""
    note: str | None = None
    """The runner's own, given back by `list`: it may be another runner's by then."""
    memory: int | None = None
    processes: int | None = None
    cpu_weight: int | None = None
    cpus: float | None = None
    open_files: int | None = None
    preload: Names = None
    """What the script imports that it may share with others, as an order's."""

    @property
    def order(self) -> Order:
        bounds = Bounds(self.memory, self.processes, self.cpu_weight, self.cpus, self.open_files)
        return Order(
            self.run,
            self.owner,
            self.argv,
            self.cwd,
            self.env,
            self.log,
            self.readable,
            bounds,
            self.preload,
        )


@dataclass(frozen=True, slots=True)
class Stop:
    run: str
    reason: str
    ladder: Steps
    detail: str | None = None
    """Why, for people; of a run that had not been asked before."""


@dataclass(frozen=True, slots=True)
class ListRuns:
    pass


@dataclass(frozen=True, slots=True)
class Subscribe:
    after: int


@dataclass(frozen=True, slots=True)
class Ack:
    seq: int


@dataclass(frozen=True, slots=True)
class Shutdown:
    pass


@dataclass(frozen=True, slots=True)
class Upgrade:
    """Become another release of yourself, keeping pid, children and what is held.

    `program` is what the interpreter `python` is told so that it knows the `main` of that release.
    """

    python: str
    program: str


Request = Hello | Start | Stop | ListRuns | Subscribe | Ack | Shutdown | Upgrade

REQUESTS: dict[str, type[Request]] = {
    "hello": Hello,
    "start": Start,
    "stop": Stop,
    "list": ListRuns,
    "subscribe": Subscribe,
    "ack": Ack,
    "shutdown": Shutdown,
    "upgrade": Upgrade,
}
OPS = {request: op for op, request in REQUESTS.items()}


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened: `starting`, or `preparing` and `parked`; `started`, `stopping`,
    `exited`.
    """

    seq: int
    at: float
    kind: str
    run: str
    strategy: str
    epoch: int
    boot_id: str | None = None
    pid: int | None = None
    start_ticks: int | None = None
    reason: str | None = None
    ladder: Steps | None = None
    exit_code: int | None = None
    signal: str | None = None
    detail: str | None = None
    start_at: float | None = None
    """Of what is `preparing`: when it starts."""
    lifetime: float | None = None
    note: str | None = None
    peak_memory: int | None = None
    cpu_s: float | None = None
    refused: int | None = None
    out_of_memory: int | None = None
    keeper: bool | None = None
    """Whether `pid` is a keeper, and none of the strategy's processes."""

    def to_json(self) -> Json:
        always = ENDING if self.kind == "exited" else frozenset[str]()
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: v for name, v in values.items() if v is not None or name in always}

    @classmethod
    def from_json(cls, message: Json) -> Entry:
        return cls(**_read_fields(cls, message))


ENDING = frozenset({"exit_code", "signal", "reason", "detail"})


def encode(message: Json) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> Json:
    try:
        message: object = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RefusedError("bad_request", f"not JSON: {error}") from None
    if not isinstance(message, dict):
        raise RefusedError("bad_request", "not a JSON object")
    return cast("Json", message)


def request_to_json(request: Request) -> Json:
    values = {field.name: getattr(request, field.name) for field in fields(request)}
    return {"op": OPS[type(request)], **values}


def request_from_json(message: Json) -> Request:
    op = message.get("op")
    kind = REQUESTS.get(op) if isinstance(op, str) else None
    if kind is None:
        raise RefusedError("bad_request", f"no such op: {op!r:.80}")
    return kind(**_read_fields(kind, message))


class Lines:
    """Cuts what arrives into lines, and refuses a line that does not end."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LINE_LIMIT:
            raise RefusedError("bad_request", "the line is too long")
        return lines


def _read_fields(kind: type[Request | Entry], message: Json) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field in fields(kind):
        read, optional = READERS[str(field.type)]
        value = message.get(field.name)
        if optional and value is None:
            continue
        try:
            found[field.name] = read(value)
        except (TypeError, ValueError):
            raise RefusedError("bad_request", f"{field.name}: {value!r:.80}") from None
    return found


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError
    return value


def _any_text(value: object) -> str:
    return "" if value == "" else _text(value)


def _whole(value: object) -> int:
    if type(value) is not int or value < 0:
        raise TypeError
    return value


def _truth(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _number(value: object) -> float:
    if type(value) not in {int, float}:
        raise TypeError
    return float(cast("float", value))


def _moment(value: object) -> float:
    moment = _number(value)
    if not isfinite(moment):
        raise ValueError
    return moment


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise TypeError
    return tuple(_any_text(item) for item in cast("list[object]", value))


def _paths(value: object) -> Paths:
    paths = _texts(value) if value else ()
    if not all(path.startswith("/") for path in paths):
        raise ValueError
    return paths


def _names(value: object) -> Names:
    names = _texts(value) if value else ()
    if not all(part.isidentifier() for name in names for part in name.split(".")):
        raise ValueError
    return names


def _environment(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise TypeError
    pairs = cast("dict[object, object]", value)
    return {_text(name): _any_text(text) for name, text in pairs.items()}


def _steps(value: object) -> Steps:
    if not isinstance(value, list) or not value:
        raise TypeError
    return tuple(_step(item) for item in cast("list[object]", value))


def _step(value: object) -> tuple[str, float]:
    name, wait = cast("tuple[object, object]", value)
    seconds = _number(wait)
    if name not in SIGNALS or not 0 <= seconds <= LONGEST_WAIT:
        raise ValueError
    return cast("str", name), seconds


READERS: dict[str, tuple[Callable[[object], object], bool]] = {
    "str": (_text, False),
    "str | None": (_any_text, True),
    "int": (_whole, False),
    "int | None": (_whole, True),
    "float": (_number, False),
    "float | None": (_moment, True),
    "bool | None": (_truth, True),
    "tuple[str, ...]": (_texts, False),
    "Mapping[str, str]": (_environment, False),
    "Paths": (_paths, True),
    "Names": (_names, True),
    "Steps": (_steps, False),
    "Steps | None": (_steps, True),
}
