"""Checks what users upload, before anything is kept. Pure."""

import hashlib
import json
import re
import secrets
import string
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from openbell.contracts.errors import InvalidRequest, InvalidSource, TooLarge
from services.api.errors import shown

NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 ._-]{0,62}[A-Za-z0-9._-])?")
FILENAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9 ._-]{0,96}\.py")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
SECRET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
FIELDS = (
    *("file", "name", "exchange", "parameters", "secrets", "uses"),
    *("limits", "restart", "stop_grace_s", "requirements", "python"),
)
OURS = {"STRATEGY_ID", "STRATEGY_NAME", "OPENBELL_RUN_ID", "OPENBELL_HEARTBEAT"}
MOST_VARIABLES = 200
LONGEST_VALUE = 32_768
MOST_BYTES = 256 * 1024
TOO_MANY = f"at most {MOST_VARIABLES} of {MOST_BYTES} bytes in all are taken"
SUFFIX = string.ascii_lowercase + string.digits
LONGEST_SLUG = 40


@dataclass(frozen=True, slots=True)
class Source:
    """A script that compiles."""

    filename: str
    body: bytes

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.body).hexdigest()


@dataclass(frozen=True, slots=True)
class Given:
    """Variables that a user sets, and the names of those to remove."""

    parameters: dict[str, str] = field(default_factory=dict[str, str])
    secrets: dict[str, str] = field(default_factory=dict[str, str])
    uses: dict[str, str] = field(default_factory=dict[str, str])
    """By variable, the name of the owner's secret."""
    remove: tuple[str, ...] = ()


def check_fields(given: Iterable[str]) -> None:
    """A field that nobody reads is a mistake, not a detail. Raises InvalidRequest."""
    for name in given:
        if name not in FIELDS:
            raise InvalidRequest.of(
                shown(name), f"there is no such field; there are {', '.join(FIELDS)}"
            )


def check_source(filename: str | None, body: bytes, most_bytes: int) -> Source:
    """Raises InvalidRequest, InvalidSource, TooLarge."""
    if filename is None or not FILENAME.fullmatch(filename):
        raise InvalidRequest.of(
            "file",
            "name the file like my_strategy.py: letters, digits, space, dot, dash and underscore,"
            " at most 100, ending in .py, without a folder",
        )
    if len(body) > most_bytes:
        raise TooLarge(f"the file has {len(body)} bytes; at most {most_bytes} are taken")
    if not body.strip():
        raise InvalidSource("the file is empty", errors=[{"field": "file", "message": "empty"}])
    _compile(filename, _decode(body))
    return Source(filename, body)


def check_name(name: str | None, filename: str) -> str:
    """The strategy's name: as given, or from its file. Raises InvalidRequest."""
    chosen = filename.removesuffix(".py") if name is None or not name.strip() else name.strip()
    if not NAME.fullmatch(chosen):
        raise InvalidRequest.of(
            "name",
            "write 1 to 64 letters, digits, spaces, dots, dashes and underscores (ASCII),"
            " beginning with a letter or digit",
        )
    return chosen


def check_form(parameters: str | None, secrets: str | None, uses: str | None) -> Given:
    """The variables of a form, each field a JSON object. Raises InvalidRequest."""
    return check_variables(
        _object("parameters", parameters), _object("secrets", secrets), _object("uses", uses)
    )


def check_variables(
    parameters: Mapping[str, Any],
    secrets: Mapping[str, Any],
    uses: Mapping[str, Any],
    remove: Sequence[str] = (),
) -> Given:
    """What a strategy is to see. Raises InvalidRequest, which names the field, never a value."""
    given = Given(
        parameters=_values("parameters", VARIABLE, parameters),
        secrets=_values("secrets", VARIABLE, secrets),
        uses=_values("uses", VARIABLE, uses),
        remove=_removed(remove, VARIABLE),
    )
    for variable, secret in given.uses.items():
        if not SECRET.fullmatch(secret):
            raise InvalidRequest.of(f"uses.{variable}", "write the name of one of your secrets")
    return _distinct(given)


def check_own(
    parameters: Mapping[str, Any], secrets: Mapping[str, Any], remove: Sequence[str] = ()
) -> Given:
    """What a user keeps for all of their strategies. Raises InvalidRequest."""
    given = Given(
        parameters=_values("parameters", VARIABLE, parameters),
        secrets=_values("secrets", SECRET, secrets),
        remove=_removed(remove, VARIABLE, SECRET),
    )
    return _distinct(given)


def _object(place: str, text: str | None) -> Mapping[str, Any]:
    if text is None or not text.strip():
        return {}
    try:
        values: Any = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidRequest.of(place, "this is not JSON") from None
    if not isinstance(values, dict):
        raise InvalidRequest.of(place, 'write a JSON object, like {"SYMBOL": "SBIN"}')
    return cast("dict[str, Any]", values)


def _values(place: str, names: re.Pattern[str], values: Mapping[str, Any]) -> dict[str, str]:
    checked = {name: _value(place, names, name, value) for name, value in values.items()}
    total = sum(len(name) + len(value.encode()) for name, value in checked.items())
    if len(checked) > MOST_VARIABLES or total > MOST_BYTES:
        raise InvalidRequest.of(place, TOO_MANY)
    return checked


def _value(place: str, names: re.Pattern[str], name: str, value: Any) -> str:
    if not names.fullmatch(name) or name in OURS:
        raise InvalidRequest.of(f"{place}.{shown(name)}", "this name cannot be set")
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise InvalidRequest.of(f"{place}.{name}", "write a text or a number")
    try:
        text = str(value)
    except ValueError:  # a number of thousands of digits
        raise InvalidRequest.of(f"{place}.{name}", "write a shorter number, or a text") from None
    if any(0xD800 <= ord(character) <= 0xDFFF for character in text):
        raise InvalidRequest.of(f"{place}.{name}", "half of a surrogate pair is no text")
    if len(text) > LONGEST_VALUE or "\0" in text:
        raise InvalidRequest.of(
            f"{place}.{name}", f"at most {LONGEST_VALUE} characters, and no NUL"
        )
    return text


def _removed(names: Sequence[str], *kinds: re.Pattern[str]) -> tuple[str, ...]:
    """Nothing else can be there; and each is told on, in the audit and in events."""
    for name in names:
        if not any(kind.fullmatch(name) for kind in kinds):
            raise InvalidRequest.of(f"remove.{shown(name)}", "there can be no such name")
    return tuple(names)


def _distinct(given: Given) -> Given:
    """Raises InvalidRequest when one name is given two meanings."""
    seen: set[str] = set()
    for place in ("parameters", "secrets", "uses", "remove"):
        for name in getattr(given, place):
            if name in seen:
                raise InvalidRequest.of(f"{place}.{shown(name)}", "this name is given twice")
            seen.add(name)
    return given


def new_id(name: str) -> str:
    """A safe id that tells the name: `ema-crossover-7f3k2a`."""
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:LONGEST_SLUG].strip("-")
    return f"{slug or 'strategy'}-{''.join(secrets.choice(SUFFIX) for _ in range(6))}"


def _decode(body: bytes) -> str:
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = body[: error.start].count(b"\n") + 1
        raise InvalidSource(
            "the file is not UTF-8 text",
            errors=[{"field": "file", "line": line, "message": "not UTF-8"}],
        ) from None
    if "\0" in text:
        raise InvalidSource(
            "the file is binary", errors=[{"field": "file", "message": "it holds NUL bytes"}]
        )
    return text


def _compile(filename: str, text: str) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(text, filename, "exec", dont_inherit=True)
    except SyntaxError as error:
        where = f"line {error.lineno}, column {error.offset}"
        raise InvalidSource(
            f"{error.msg} ({where})",
            errors=[
                {
                    "field": "file",
                    "line": error.lineno,
                    "column": error.offset,
                    "message": error.msg,
                }
            ],
        ) from None
    except (ValueError, RecursionError, MemoryError, OverflowError) as error:
        reason = str(error) or "it is too deeply nested"
        raise InvalidSource(
            f"the file cannot be compiled: {reason}",
            errors=[{"field": "file", "message": reason}],
        ) from None
