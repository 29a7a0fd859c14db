"""What an installation of OpenAlgo hosts, and what of it can come here. Reads, and changes nothing.

Its files are somebody else's: whatever is in them, reading ends in a plan or in BadInstallation.
"""

import hashlib
import json
import re
import stat
import warnings
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path, PureWindowsPath
from typing import Any, cast

from pydantic import ValidationError

from openbell.contracts.schedules import (
    SCHEDULE,
    WEEKDAYS,
    Always,
    AnySchedule,
    Cron,
    Market,
    Weekday,
    exchange_of,
    show_market_time,
)

CONFIGS = "strategy_configs.json"
LOCAL_ZONE = "Asia/Kolkata"
DEFAULT_EXCHANGE = "NSE"
NEVER_CLOSED = "CRYPTO"
KEY = "OPENALGO_API_KEY"
"""Put there into each strategy's environment, from its user's account."""
OURS = frozenset(
    {"STRATEGY_ID", "STRATEGY_NAME", "OPENALGO_STRATEGY_EXCHANGE", "HOME", "PATH", "LANG"}
)
MOST_CONFIG_BYTES = 64 * 1024**2
MOST_SCRIPT_BYTES = 32 * 1024**2
"""More is not even read; the API takes far less."""
LONGEST_NAME, LONGEST_CODE = 64, 32
LONGEST_SHOWN = 100
MOST_NAMED = 5

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 ._-]{0,62}[A-Za-z0-9._-])?")
_FILENAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9 ._-]{0,96}\.py")
_TIME = re.compile(r"([0-9]{1,2}):([0-9]{1,2})")
_READ = re.compile(
    rb"""\b(?:getenv\s*\(|environ\s*\[|environ\s*\.\s*get\s*\()\s*["']([A-Za-z_][A-Za-z0-9_]*)["']"""
)
_SET = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=")
_SECRET = re.compile(r"KEY|SECRET|TOKEN|PASS|PIN\b|TOTP|PEPPER", re.IGNORECASE)


class BadInstallation(Exception):
    """There is nothing to import; the message is for its user."""


class _Unclear(Exception):
    """What a field says cannot be told; the message says what it holds."""


@dataclass(frozen=True, slots=True)
class Script:
    filename: str
    body: bytes = field(repr=False)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.body).hexdigest()


@dataclass(frozen=True, slots=True)
class Hosted:
    """A strategy there, as it would be here."""

    id: str
    name: str
    script: Script | None
    """None: it cannot be created, for the reason in `obstacle`."""
    obstacle: str = ""
    exchange: str | None = None
    schedule: AnySchedule | None = None
    unclear: str = ""
    """Why it has no schedule, although it has one there."""
    held: bool = False
    """Its user had stopped it: its schedule must not start it."""
    running: bool = False
    needs: tuple[str, ...] = ()
    """The variables that it reads, and was given there."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Installation:
    strategies: tuple[Hosted, ...]
    notes: tuple[str, ...]
    """What concerns none of them alone."""


class Deed(StrEnum):
    CREATE = "create"
    FINISH = "finish"
    """It was created before, and its schedule was not set."""
    SKIP = "skip"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Step:
    """What is to be done about one strategy, and why nothing."""

    hosted: Hosted
    deed: Deed
    reason: str = ""
    exchange: str | None = None
    schedule: AnySchedule | None = None
    withheld: str = ""
    """Why it gets no schedule, although it has one there."""
    strategy_id: str | None = None
    """Of the one that it is here already."""


@dataclass(frozen=True, slots=True)
class Here:
    """What there is here already."""

    strategies: Collection[Mapping[str, Any]]
    """Its user's, as the API shows them."""
    exchanges: Collection[str]
    """All names that the calendar knows."""


def read(path: Path) -> Installation:
    """`path` is the installation, or its folder `strategies`. Raises BadInstallation."""
    strategies, root = _folders(path)
    configs = _configs(strategies / CONFIGS)
    given = _env_names(root / ".env") if root else frozenset[str]()
    names = _names(configs)
    hosted = tuple(
        _hosted(strategies, key, names[key], entry, given) for key, entry in configs.items()
    )
    return Installation(hosted, tuple(_notes(strategies, root, configs, hosted)))


def steps(installation: Installation, here: Here, *, even_if_running: bool) -> list[Step]:
    mine = {one["name"].casefold(): one for one in here.strategies}
    exchanges = {name.casefold() for name in here.exchanges}
    found: list[Step] = []
    for hosted in installation.strategies:
        exchange = hosted.exchange
        known = exchange if exchange and exchange.casefold() in exchanges else None
        withheld = _withheld(hosted, known, even_if_running=even_if_running)
        step = Step(
            hosted,
            Deed.CREATE,
            exchange=known,
            schedule=None if withheld else hosted.schedule,
            withheld=withheld,
        )
        found.append(_beside(step, mine.get(hosted.name.casefold())))
    return found


def _withheld(hosted: Hosted, known: str | None, *, even_if_running: bool) -> str:
    if hosted.schedule is None:
        return hosted.unclear
    if exchange_of(hosted.schedule) is not None and known is None:
        return f"the calendar here does not know {hosted.exchange}"
    if hosted.running and not even_if_running:
        return "it runs there now, and two copies would trade"
    return ""


def _beside(step: Step, here: Mapping[str, Any] | None) -> Step:
    """The step, where `here` is the strategy that has its name already."""
    if step.hosted.script is None:
        return replace(step, deed=Deed.REFUSE, reason=step.hosted.obstacle)
    if here is None:
        return step
    strategy_id: str = here["id"]
    if here["version"]["sha256"] != step.hosted.script.sha256:
        reason = f"you have another script of this name here ({strategy_id}): rename one of them"
        return replace(step, deed=Deed.REFUSE, reason=reason)
    step = replace(step, deed=Deed.SKIP, reason="exists already", strategy_id=strategy_id)
    if here["schedule"] is not None or here["run"] is not None:
        return replace(step, withheld="")  # it has been used since
    if step.schedule is None:
        return step
    return replace(step, deed=Deed.FINISH, reason="exists already, without its schedule")


def show_schedule(schedule: AnySchedule) -> str:
    """In a few words, of the kinds that are made here."""
    match schedule:
        case Market():
            until = show_market_time(schedule.stop) if schedule.stop else ""
            days = [day for day in WEEKDAYS if day in schedule.weekdays]
            on = "" if len(days) == len(WEEKDAYS) else f", {' '.join(days)}"
            return f"{show_market_time(schedule.start)}-{until}{on}"
        case Cron():
            until = f" until {show_market_time(schedule.stop)}" if schedule.stop else ""
            return f"cron {schedule.cron}{until}"
        case _:
            return schedule.kind


def options_for(hosted: Hosted, given: Collection[str]) -> str:
    """With which `openbell env` sets what it reads and is not `given`."""
    missing = [name for name in hosted.needs if name not in given]
    return " ".join(
        f"--secret {name}" if _SECRET.search(name) else f"--set {name}=VALUE" for name in missing
    )


# ---- the installation


def _folders(path: Path) -> tuple[Path, Path | None]:
    """The folder that holds the configs, and the whole installation if that was named."""
    try:
        for folder, root in ((path / "strategies", path), (path, None)):
            if (folder / CONFIGS).is_file():
                return folder.resolve(), root
    except (OSError, ValueError, RuntimeError) as error:
        raise BadInstallation(f"{shown(str(path))} cannot be read: {error}") from None
    raise BadInstallation(
        f"{shown(str(path))} is no installation of OpenAlgo: it has no strategies/{CONFIGS}"
    )


def _configs(file: Path) -> dict[str, Any]:
    body = _bytes(file, MOST_CONFIG_BYTES)
    if isinstance(body, str):
        raise BadInstallation(f"{file}: {body}")
    try:
        configs: Any = json.loads(body.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise BadInstallation(f"{file} is not JSON: {shown(str(error))}") from None
    if not isinstance(configs, dict):
        raise BadInstallation(f"{file} holds no strategies: it is not a JSON object")
    return cast("dict[str, Any]", configs)


def _bytes(file: Path, most: int) -> bytes | str:
    """What a file holds; or in words, why that is not read."""
    try:
        if not file.exists():
            return "the file is missing"
        found = file.stat()
        if not stat.S_ISREG(found.st_mode):
            return "it is no regular file"
        if found.st_size > most:
            return f"it has {found.st_size} bytes; at most {most} are read"
        return file.read_bytes()
    except (OSError, ValueError) as error:
        return f"it cannot be read: {shown(str(error))}"


def _env_names(file: Path) -> frozenset[str]:
    """The names that a .env sets. Its values are forgotten at once."""
    body = _bytes(file, MOST_CONFIG_BYTES)
    if isinstance(body, str):
        return frozenset()
    lines = body.decode(errors="replace").splitlines()
    return frozenset(found[1] for line in lines if (found := _SET.match(line)))


def _notes(
    strategies: Path, root: Path | None, configs: dict[str, Any], hosted: tuple[Hosted, ...]
) -> Iterator[str]:
    entries = [cast("dict[str, Any]", one) for one in configs.values() if isinstance(one, dict)]
    users = {shown(entry["user_id"]) for entry in entries if entry.get("user_id")}
    if len(users) > 1:
        yield f"they belong to {len(users)} users there; here all become yours"
    if root is not None and (logs := _files(root / "log" / "strategies", "*.log")):
        yield f"logs are not carried over: {len(logs)} in {shown(str(root / 'log' / 'strategies'))}"
    used = {one.script.filename for one in hosted if one.script}
    used |= {f"{key}.py" for key in configs}
    if orphans := [name for name in _files(strategies / "scripts", "*.py") if name not in used]:
        named = ", ".join(map(shown, orphans[:MOST_NAMED]))
        more = f" and {len(orphans) - MOST_NAMED} more" if len(orphans) > MOST_NAMED else ""
        yield f"of no strategy there, hence not carried over: {named}{more} in scripts/"


def _files(folder: Path, pattern: str) -> list[str]:
    try:
        return sorted(file.name for file in folder.glob(pattern))
    except (OSError, ValueError):
        return []


# ---- one strategy


def _hosted(strategies: Path, key: str, name: str, entry: Any, env: Collection[str]) -> Hosted:
    if not isinstance(entry, dict):
        return Hosted(key, name, None, f"its entry is {shown(entry)}, not an object")
    fields = cast("dict[str, Any]", entry)
    notes = [*_about_name(fields, name), *_about_end(fields)]
    script = _script(strategies, key, fields)
    if isinstance(script, str):
        return Hosted(key, name, None, script, notes=tuple(notes))
    exchange, schedule, unclear = _exchange(fields, notes), None, ""
    try:
        schedule = _schedule(fields, exchange, notes)
    except _Unclear as error:
        unclear = str(error)
    if flaw := _flaw(script):
        notes.append(f"it does not compile, and will be refused: {flaw}")
    given = {*env, KEY} - OURS
    needs = {word.decode() for word in _READ.findall(script.body)} & given
    running = bool(fields.get("is_running"))
    if running:
        pid = f" (pid {shown(fields['pid'])})" if fields.get("pid") else ""
        notes.append(f"it runs there now{pid}: stop it there first, or two copies trade")
    return Hosted(
        id=key,
        name=name,
        script=script,
        exchange=exchange,
        schedule=schedule,
        unclear=unclear,
        held=bool(fields.get("manually_stopped")),
        running=running,
        needs=tuple(sorted(needs)),
        notes=tuple(notes),
    )


def _about_name(fields: dict[str, Any], name: str) -> Iterator[str]:
    written = fields.get("name")
    if not isinstance(written, str) or not written.strip():
        yield "it has no name there: it is called after its file"
    elif written.strip() != name:
        yield f"it is called {shown(written)} there"


def _about_end(fields: dict[str, Any]) -> Iterator[str]:
    if fields.get("is_error"):
        yield f"it ended there with an error: {shown(fields.get('error_message') or 'not told')}"


def _script(strategies: Path, key: str, fields: dict[str, Any]) -> Script | str:
    """The script; or in words, why there is none."""
    place = _place(strategies, key, fields)
    if isinstance(place, str):
        return place
    body = _bytes(place, MOST_SCRIPT_BYTES)
    if isinstance(body, str):
        return f"its script {shown(place.name)}: {body}"
    return Script(place.name if _FILENAME.fullmatch(place.name) else "strategy.py", body)


def _place(strategies: Path, key: str, fields: dict[str, Any]) -> Path | str:
    """Where its script is. Its path is written from the installation's folder, wherever that was
    when it was written; whatever is not inside of `strategies` now is left alone.
    """
    written = fields.get("file_path") or f"strategies/scripts/{fields.get('file_name') or key}"
    if not isinstance(written, str):
        return f"its file_path is {shown(written)}, not a text"
    if not fields.get("file_path") and not written.endswith(".py"):
        written += ".py"
    parts = PureWindowsPath(written).parts  # both separators
    outside = f"its script {shown(written)} is outside of {strategies.name}/: it is left alone"
    if ".." in parts or "strategies" not in parts:
        return outside
    inside = parts[len(parts) - parts[::-1].index("strategies") :]
    try:
        found = strategies.joinpath(*inside).resolve()
    except (OSError, ValueError, RuntimeError):
        return f"its file_path {shown(written)} is no path"
    return found if found.is_relative_to(strategies) else outside


def _flaw(script: Script) -> str:
    """What this Python finds; the API's word is what counts."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(script.body, script.filename, "exec", dont_inherit=True)
    except SyntaxError as error:
        return shown(f"{error.msg} (line {error.lineno}, column {error.offset})")
    except (ValueError, RecursionError, MemoryError, OverflowError) as error:
        return shown(str(error) or "it is too deeply nested")
    return ""


def _exchange(fields: dict[str, Any], notes: list[str]) -> str | None:
    written = fields.get("exchange")
    if written is None or written == "":
        notes.append(f"it names no exchange: {DEFAULT_EXCHANGE}, as there")
        return DEFAULT_EXCHANGE
    code = written.strip().upper() if isinstance(written, str) else ""
    if code.isascii() and code.isprintable() and 0 < len(code) <= LONGEST_CODE:
        return code
    notes.append(f"its exchange {shown(written)} is not carried over: it is no code like NSE")
    return None


# ---- its schedule


def _schedule(fields: dict[str, Any], exchange: str | None, notes: list[str]) -> AnySchedule | None:
    """Raises _Unclear."""
    match fields.get("is_scheduled"):
        case None | False:
            return None
        case True:
            pass
        case other:
            raise _Unclear(f"is_scheduled is {shown(other)}, neither true nor false")
    if exchange is None:
        raise _Unclear("it has no exchange")
    start = _time(fields, "schedule_start")
    if start is None:
        raise _Unclear("it has no schedule_start")
    stop, days = _time(fields, "schedule_stop"), _days(fields, notes)
    if start == stop:
        raise _Unclear(f"schedule_start and schedule_stop are both {start}")
    if exchange == NEVER_CLOSED:
        return _around_the_clock(start, stop, days)
    spec = {"kind": "market", "exchange": exchange, "start": start, "stop": stop, "weekdays": days}
    return _checked(spec)


def _around_the_clock(start: str, stop: str | None, days: list[Weekday]) -> AnySchedule:
    """On a market that never closes, days are those of India, not those of its UTC sessions."""
    every_day = len(days) == len(WEEKDAYS)
    if every_day and (start, stop) == ("00:00", "23:59"):
        return Always(kind="always")
    hour, minute = start.split(":")
    on = "*" if every_day else ",".join(str((WEEKDAYS.index(day) + 1) % 7) for day in days)
    cron = f"{int(minute)} {int(hour)} * * {on}"
    return _checked({"kind": "cron", "cron": cron, "timezone": LOCAL_ZONE, "stop": stop})


def _checked(spec: dict[str, Any]) -> AnySchedule:
    try:
        return SCHEDULE.validate_python(spec)
    except ValidationError as error:
        raise _Unclear("; ".join(str(one["msg"]) for one in error.errors())) from None


def _time(fields: dict[str, Any], name: str) -> str | None:
    written = fields.get(name)
    if written is None or written == "":
        return None
    found = _TIME.fullmatch(written.strip()) if isinstance(written, str) else None
    if found is None or int(found[1]) > 23 or int(found[2]) > 59:
        raise _Unclear(f"{name} is {shown(written)}, no time of day")
    return f"{int(found[1]):02}:{int(found[2]):02}"


def _days(fields: dict[str, Any], notes: list[str]) -> list[Weekday]:
    written = fields.get("schedule_days")
    if written is None or written == []:
        notes.append("it names no weekdays: Monday to Friday, as there")
        return list(WEEKDAYS[:5])
    if not isinstance(written, list):
        raise _Unclear(f"schedule_days is {shown(written)}, not a list")
    words = [str(day).strip().lower() for day in cast("list[Any]", written)]
    if unknown := [word for word in words if word not in WEEKDAYS]:
        raise _Unclear(f"schedule_days names {shown(unknown[0])}")
    return [day for day in WEEKDAYS if day in words]


# ---- names


def _names(configs: dict[str, Any]) -> dict[str, str]:
    """A name that can be here for each, no two the same.

    Of several of one name the first keeps it, the others become `NAME-2`, `NAME-3`; never a name
    that another has already, so that a second import finds the same.
    """
    wanted = {key: _wanted(key, entry) for key, entry in configs.items()}
    reserved = {name.casefold() for name in wanted.values()}
    taken: set[str] = set()
    names: dict[str, str] = {}
    for key, name in wanted.items():
        chosen, number = name, 2
        while chosen.casefold() in taken or (chosen != name and chosen.casefold() in reserved):
            suffix = f"-{number}"
            chosen, number = name[: LONGEST_NAME - len(suffix)].rstrip() + suffix, number + 1
        taken.add(chosen.casefold())
        names[key] = chosen
    return names


def _wanted(key: str, entry: Any) -> str:
    fields = cast("dict[str, Any]", entry) if isinstance(entry, dict) else {}
    for written in (fields.get("name"), fields.get("file_name"), key):
        if isinstance(written, str) and (name := _as_name(written)):
            return name
    return "strategy"


def _as_name(written: str) -> str:
    """With what a name may hold here, as near as can be; empty if nothing is left."""
    text = written.strip().removesuffix(".py")
    if _NAME.fullmatch(text):
        return text
    kept = re.sub(r"[^A-Za-z0-9 ._-]+", "-", text[: 4 * LONGEST_NAME])
    return kept.lstrip(" ._-")[:LONGEST_NAME].rstrip(" -")


def shown(value: object) -> str:
    """Anything, so that it can be printed on one line."""
    text = value if isinstance(value, str) else _repr(value)
    cut = text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in cut)


def _repr(value: object) -> str:
    try:
        return json.dumps(value)
    except (ValueError, RecursionError):
        return "something else"
