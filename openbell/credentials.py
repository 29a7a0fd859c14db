"""Which token the command line sends to an Openbell.

The first that there is: `OPENBELL_TOKEN`; the one that `openbell login` stored for this address;
and for an Openbell on this machine, the one that it keeps in its home. That last one is never sent
anywhere else.
"""

import ipaddress
import json
import os
import stat
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import typer

TOKEN, HOME = "OPENBELL_TOKEN", "OPENBELL_HOME"
LOCAL_TOKEN = Path("data", "local-token")


class BadCredentials(Exception):
    """What should hold a token does not; the message tells what to do."""


class NoAddress(ValueError):
    """This is not where an Openbell could answer."""


@dataclass(frozen=True, slots=True)
class Credential:
    value: str
    """Empty for nobody's."""
    hint: str
    """What to do when it is refused."""

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.value}"} if self.value else {}


NOBODY = Credential("", "")


@dataclass(frozen=True, slots=True)
class Kept:
    """A token that `openbell login` made."""

    id: str
    user: str
    value: str


def address(url: str) -> str:
    """As it is written everywhere, however it was typed. Raises NoAddress."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        raise NoAddress(url) from None
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise NoAddress(url)
    if parsed.userinfo or parsed.query or parsed.fragment:
        raise NoAddress(url)
    return str(parsed).rstrip("/")


def _place(url: str) -> str:
    """What a token is kept under: this machine has several names. Raises NoAddress."""
    at = address(url)
    return str(httpx.URL(at).copy_with(host="127.0.0.1")).rstrip("/") if is_local(at) else at


def is_local(url: str) -> bool:
    """Whether what is sent there stays on this machine."""
    host = httpx.URL(url).host
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def find(url: str) -> Credential:
    """Raises BadCredentials."""
    given = os.environ.get(TOKEN, "").strip()
    if given:
        return Credential(_checked(given, TOKEN), f"{TOKEN} was sent")
    login = "openbell login" if is_local(url) else f"openbell login --url {address(url)}"
    kept = _read().get(_place(url))
    if kept is not None:
        return Credential(kept.value, f"the one of `openbell login` was sent; again: {login}")
    if not is_local(url):
        return Credential("", f"try: {login}")
    home = Path(os.environ.get(HOME) or Path())
    try:
        return of_home(home)
    except PermissionError:
        return Credential("", f"{home / LOCAL_TOKEN} is not yours to read; try: {login}")
    except OSError:
        return Credential("", f"try: {login}; or run this in its home, or set {HOME} to that")


def of_home(home: Path) -> Credential:
    """The one that the Openbell of this home keeps for its machine. Raises OSError."""
    file = (home / LOCAL_TOKEN).absolute()
    value = _checked(file.read_text("utf-8", "replace").strip(), str(file))
    return Credential(value, f"{file} was sent: is this its home? Set {HOME}, or: openbell login")


def kept(url: str) -> Kept | None:
    """What `openbell login` stored for this address. Raises BadCredentials."""
    return _read().get(_place(url))


def keep(url: str, token: Kept) -> None:
    """Raises BadCredentials."""
    _change(lambda tokens: tokens | {_place(url): token})


def forget(url: str) -> None:
    """Raises BadCredentials."""
    _change(lambda tokens: {at: kept for at, kept in tokens.items() if at != _place(url)})


def file() -> Path:
    return Path(typer.get_app_dir("openbell")) / "credentials.json"


def _checked(value: str, place: str) -> str:
    """Raises BadCredentials."""
    if not _is_sendable(value):
        raise BadCredentials(f"{place} holds no token")
    return value


def _is_sendable(value: str) -> bool:
    """Whether a header could carry it."""
    return bool(value) and all("!" <= character <= "~" for character in value)


def _read() -> dict[str, Kept]:
    path = file()
    try:
        mode = path.stat().st_mode
        if sys.platform != "win32" and stat.S_IMODE(mode) & 0o077:
            raise BadCredentials(f"{path} may be read by others; say: chmod 600 {path}")
        return _parsed(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise BadCredentials(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise BadCredentials(f"{path} is damaged: delete it, and `openbell login` again") from None


def _parsed(written: Any) -> dict[str, Kept]:
    """Raises TypeError, ValueError, AttributeError."""
    for fields in written.values():
        if not all(isinstance(value, str) for value in fields.values()):
            raise TypeError
    tokens = {_place(at): Kept(**fields) for at, fields in written.items()}
    if not all(_is_sendable(token.value) for token in tokens.values()):
        raise ValueError
    return tokens


def _change(change: Callable[[dict[str, Kept]], dict[str, Kept]]) -> None:
    """One at a time, and whole or not at all. Raises BadCredentials."""
    from openbell import private_files  # noqa: PLC0415 - slow to import, and seldom needed

    path = file()
    try:
        with private_files.locked(path):
            tokens = {at: asdict(token) for at, token in change(_read()).items()}
            private_files.write(path, json.dumps(tokens, indent=1))
    except OSError as error:
        raise BadCredentials(f"{path} cannot be written: {error.strerror}") from None
