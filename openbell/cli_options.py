"""What the commands have in common: options, exit codes, and how they ask."""

import sys
from typing import Annotated

import typer

from openbell import credentials

FAILED, UNREACHABLE = 1, 3
HERE = "http://127.0.0.1:8000"


def _address(url: str) -> str:
    try:
        return credentials.address(url)
    except credentials.NoAddress:
        raise typer.BadParameter(f"{url!r}: write it like {HERE}") from None


Name = Annotated[str, typer.Argument(help="A strategy's name or id.", metavar="STRATEGY")]
Json = Annotated[bool, typer.Option("--json", help="Print the API's answer as it is.")]
Url = Annotated[
    str,
    typer.Option("--url", envvar="OPENBELL_URL", help="Where Openbell answers.", callback=_address),
]
Values = Annotated[
    list[str] | None, typer.Option("--set", help="A variable for it.", metavar="KEY=VALUE")
]
Secrets = Annotated[
    list[str] | None,
    typer.Option(
        "--secret",
        help="A variable that is never shown; without its value, which others on this machine"
        " could see, it is asked for, or read from the standard input.",
        metavar="KEY[=VALUE]",
    ),
]
Uses = Annotated[
    list[str] | None,
    typer.Option("--use", help="Hand it one of your own secrets.", metavar="KEY=SECRET"),
]
Limits = Annotated[
    str | None,
    typer.Option(
        "--limits",
        help='What its runs may use: {"limits": {"memory_mb": 512}, "watchdogs": {"quiet_s": 600}}',
        metavar="JSON",
    ),
]


def pairs(given: list[str] | None) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in given or []:
        name, equals, value = pair.partition("=")
        if not equals:
            raise typer.BadParameter(f"{pair!r}: write KEY=VALUE")
        found[name] = value
    return found


def secrets(given: list[str] | None) -> dict[str, str]:
    bare = [name for name in given or [] if "=" not in name]
    if len(bare) > 1 and not sys.stdin.isatty():
        raise typer.BadParameter("one value can be read from the standard input, not several")
    written = pairs([pair for pair in given or [] if "=" in pair])
    return written | {name: hidden(name) for name in bare}


def hidden(name: str) -> str:
    """Typed unseen, or what the standard input holds."""
    if sys.stdin.isatty():
        return typer.prompt(name, hide_input=True, err=True)
    value = sys.stdin.read().removesuffix("\n").removesuffix("\r")
    if not value:
        raise typer.BadParameter(f"the standard input holds no value for {name}")
    return value


def confirm(question: str, *, yes: bool) -> None:
    """A person is asked; a script has decided already."""
    if not yes and sys.stdin.isatty():
        typer.confirm(question, abort=True, err=True)
