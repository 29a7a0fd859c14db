"""Checks what users upload, before anything is kept. Pure."""

import hashlib
import json
import re
import secrets
import string
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from openbell.contracts.errors import InvalidRequest, InvalidSource, TooLarge

NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 ._-]{0,62}[A-Za-z0-9._-])?")
FILENAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9 ._-]{0,96}\.py")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
FIELDS = ("file", "name", "exchange", "parameters", "restart", "stop_grace_s")
OURS = {"STRATEGY_ID", "STRATEGY_NAME", "OPENBELL_RUN_ID"}
MOST_VARIABLES = 200
LONGEST_VALUE = 32_768
MOST_BYTES = 256 * 1024
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


def check_fields(given: Iterable[str]) -> None:
    """A field that nobody reads is a mistake, not a detail. Raises InvalidRequest."""
    for field in given:
        if field not in FIELDS:
            raise _invalid(field[:64], f"there is no such field; there are {', '.join(FIELDS)}")


def check_source(filename: str | None, body: bytes, most_bytes: int) -> Source:
    """Raises InvalidRequest, InvalidSource, TooLarge."""
    if filename is None or not FILENAME.fullmatch(filename):
        raise _invalid(
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
        raise _invalid(
            "name",
            "write 1 to 64 letters, digits, spaces, dots, dashes and underscores (ASCII),"
            " beginning with a letter or digit",
        )
    return chosen


def check_parameters(text: str | None) -> dict[str, str]:
    """A JSON object of names and texts. Raises InvalidRequest."""
    if text is None or not text.strip():
        return {}
    try:
        values: Any = json.loads(text)
    except (ValueError, RecursionError):
        raise _invalid("parameters", "this is not JSON") from None
    if not isinstance(values, dict):
        raise _invalid("parameters", 'write a JSON object, like {"SYMBOL": "SBIN"}')
    parameters: dict[str, str] = {}
    for name, value in values.items():  # pyright: ignore[reportUnknownVariableType]
        parameters[str(name)] = _parameter(str(name), value)  # pyright: ignore[reportUnknownArgumentType]
    total = sum(len(name) + len(value.encode()) for name, value in parameters.items())
    if len(parameters) > MOST_VARIABLES or total > MOST_BYTES:
        most = f"at most {MOST_VARIABLES} of {MOST_BYTES} bytes in all are taken"
        raise _invalid("parameters", most)
    return parameters


def _parameter(name: str, value: Any) -> str:
    if not VARIABLE.fullmatch(name) or name in OURS:
        raise _invalid(f"parameters.{name[:64]}", "this name cannot be set")
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise _invalid(f"parameters.{name}", "write a text or a number")
    text = str(value)
    if any(0xD800 <= ord(character) <= 0xDFFF for character in text):
        raise _invalid(f"parameters.{name}", "half of a surrogate pair is no text")
    if len(text) > LONGEST_VALUE or "\0" in text:
        raise _invalid(f"parameters.{name}", f"at most {LONGEST_VALUE} characters, and no NUL")
    return text


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


def _invalid(field: str, message: str) -> InvalidRequest:
    return InvalidRequest(f"{field}: {message}", errors=[{"field": field, "message": message}])
