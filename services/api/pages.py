"""The pages: the list of strategies that stays live, signing in, account, calendar, runners."""

from collections.abc import Iterable, MutableMapping
from pathlib import Path
from typing import Any

from openbell.front_door import Asgi, Incoming, Outgoing, Scope

PAGE = Path(__file__).with_name("page")
PAGES = {
    "/": "index.html",
    "/login": "login.html",
    "/join": "join.html",
    "/account": "account.html",
    "/markets": "markets.html",
}
NEGOTIATED = {"/python/", "/runners"}
"""Pages to browsers, data to everybody else."""
HEADERS = [
    (
        b"content-security-policy",
        b"default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none';"
        b" frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),  # `no-referrer` would turn a form's Origin into null
    (b"x-frame-options", b"DENY"),
    (b"cache-control", b"no-cache"),  # after an upgrade, no old script runs on a new page
    (b"vary", b"accept"),
]


PRIVATE = [
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),  # a log is text, whatever it looks like
]


def guarded(app: Asgi) -> Asgi:
    """The app, whose page loads and runs nothing but its own files, and is framed by nobody;
    whose other answers nobody keeps, since they are for one caller.
    """

    async def serve(scope: Scope, receive: Incoming, send: Outgoing) -> None:
        async def send_guarded(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                of_page = is_page or (negotiated and _is_html(message["headers"]))
                added = HEADERS if of_page else PRIVATE
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        path: str = scope["path"]
        is_page = path in PAGES or path.startswith("/page/")
        negotiated = path in NEGOTIATED
        await app(scope, receive, send_guarded)

    return serve


def _is_html(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    return any(n == b"content-type" and v.startswith(b"text/html") for n, v in headers)
