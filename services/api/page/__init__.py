"""The first page: a list of strategies that stays live."""

from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

from openbell.front_door import Asgi, Incoming, Outgoing, Scope

PAGE = Path(__file__).parent
PAGES = {
    "/": "index.html",
    "/login": "login.html",
    "/join": "join.html",
    "/account": "account.html",
}
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


def guarded(app: Asgi) -> Asgi:
    """The app, whose page loads and runs nothing but its own files, and is framed by nobody."""

    async def serve(scope: Scope, receive: Incoming, send: Outgoing) -> None:
        async def send_guarded(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *HEADERS]}
            await send(message)

        path: str = scope["path"]
        of_page = path in {*PAGES, "/python/"} or path.startswith("/page/")
        await app(scope, receive, send_guarded if of_page else send)

    return serve
