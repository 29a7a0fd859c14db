"""What packages and which Python a user wants for a script, as they wrote it. Pure.

Requirements are names and versions, never places: a path, a link or an option would have the
runner read its own files, or call whomever the user names.
"""

import contextlib
import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet

from openbell.contracts.errors import InvalidRequest
from services.api.errors import shown

PYTHON = re.compile(r"3\.\d{1,2}(\.\d{1,3})?")
MOST_BYTES = 64 * 1024
MOST = 500
OPENS, CLOSES = "# /// script", "# ///"
COMMENT = re.compile(r"(^|\s+)#.*$")
FILE, FORM = "file", "requirements"
"""The fields that may name packages."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """An environment that is not locked yet."""

    requirements: tuple[str, ...] | None = None
    """None: the default packages. None of them is another thing: no packages at all."""
    requires_python: str | None = None
    python: str | None = None
    field: str = FORM
    """The one that named the packages."""

    @property
    def is_default(self) -> bool:
        return self.requirements is None and self.requires_python is None and self.python is None


def check_environment(source: bytes, requirements: str | None, python: str | None) -> Wanted:
    """What the script says of itself (PEP 723), and what came with it. Raises InvalidRequest."""
    text = requirements if requirements and requirements.strip() else None
    said = _metadata(source.decode("utf-8-sig"))
    inside = _dependencies(said)
    if inside is not None and text is not None:
        raise InvalidRequest.of(
            FORM,
            "the script names its packages itself, in its block `# /// script`: name them once",
        )
    checked = None if inside is None else _checked(FILE, inside)
    if text is not None:
        checked = _checked(FORM, _lines(text))
    return Wanted(
        requirements=checked,
        requires_python=_requires_python(said),
        python=_python(python),
        field=FILE if text is None else FORM,
    )


def _metadata(text: str) -> dict[str, Any]:
    """The script's own block, as PEP 723 has it; one that is not closed is a comment."""
    blocks = list(_blocks(text.replace("\r\n", "\n").split("\n")))
    if len(blocks) > 1:
        raise InvalidRequest.of(FILE, "there are several blocks `# /// script`: write one")
    if not blocks:
        return {}
    try:
        return tomllib.loads(blocks[0])
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InvalidRequest.of(FILE, f"its block `# /// script` is not TOML: {error}") from None


def _blocks(lines: Sequence[str]) -> Iterator[str]:
    """Of each block the comment after its first line, up to the last line that closes one."""
    number = 0
    while number < len(lines):
        number += 1
        if lines[number - 1] != OPENS:
            continue
        end = number
        while end < len(lines) and (lines[end] == "#" or lines[end].startswith("# ")):
            end += 1
        closing = [at for at in range(number, end) if lines[at] == CLOSES]
        if closing:
            yield "\n".join(line[2:] for line in lines[number : closing[-1]])
            number = closing[-1] + 1


def _dependencies(said: dict[str, Any]) -> list[str] | None:
    found: Any = said.get("dependencies")
    if found is None:
        return None
    if not isinstance(found, list) or not all(
        isinstance(one, str) for one in cast("list[Any]", found)
    ):
        raise InvalidRequest.of(FILE, "`dependencies` of its block is a list of texts")
    return cast("list[str]", found)


def _requires_python(said: dict[str, Any]) -> str | None:
    found: Any = said.get("requires-python")
    if found is None:
        return None
    with contextlib.suppress(InvalidSpecifier):
        if isinstance(found, str):
            return str(SpecifierSet(found)) or None
    raise InvalidRequest.of(FILE, "`requires-python` of its block is a text like >=3.11")


def _python(given: str | None) -> str | None:
    wanted = (given or "").strip()
    if not wanted:
        return None
    if not PYTHON.fullmatch(wanted):
        raise InvalidRequest.of("python", "write a version like 3.12, or 3.12.4")
    return wanted


def _lines(text: str) -> list[str]:
    """Of a requirements.txt, without its comments; a line that ends in a backslash goes on."""
    if len(text.encode()) > MOST_BYTES:
        raise InvalidRequest.of(FORM, f"at most {MOST_BYTES} bytes are taken")
    whole = re.sub(r"\\\r?\n", " ", text)
    lines = [COMMENT.sub("", line).strip() for line in whole.splitlines()]
    return [line for line in lines if line]


def _checked(field: str, lines: Sequence[str]) -> tuple[str, ...]:
    """Each as PEP 508 has it. Raises InvalidRequest, which names the field and the line."""
    if len(lines) > MOST:
        raise InvalidRequest.of(field, f"at most {MOST} requirements are taken")
    return tuple(_requirement(field, line) for line in lines)


def _requirement(field: str, line: str) -> str:
    if line.startswith("-"):
        raise InvalidRequest.of(
            field, f"{shown(line)}: options are not taken; the runner's host names its indexes"
        )
    if " --" in line:
        raise InvalidRequest.of(
            field, f"{shown(line)}: leave hashes and other options out; the lock gets its own"
        )
    try:
        found = Requirement(line)
    except (InvalidRequirement, RecursionError) as error:
        reason = str(error).partition("\n")[0]
        raise InvalidRequest.of(field, f"{shown(line)}: {reason}") from None
    if found.url is not None:
        raise InvalidRequest.of(
            field, f"{shown(line)}: name a package and its versions, not where it is"
        )
    if "\0" in line:
        raise InvalidRequest.of(field, "a requirement holds no NUL")
    return str(found)
