"""GET /python/ ahead of the framework: what every open page asks for most.

The framework's own share of a request is several times the rest of this one. The route in
`routes/strategies.py` documents it, and serves the page to browsers.
"""

from openbell.contracts import model
from openbell.contracts.errors import OpenbellError
from openbell.front_door import Asgi, Incoming, Outgoing, Scope, send_problem
from openbell.identity import Identities, require
from services.api.auth.sessions import Sessions
from services.api.board import Board
from services.api.pages import PRIVATE

PATH = "/python/"


def listed(app: Asgi, board: Board, identities: Identities, sessions: Sessions) -> Asgi:
    """The app, with its list answered from the board."""

    async def serve(scope: Scope, receive: Incoming, send: Outgoing) -> None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        plain = scope["path"] == PATH and scope["method"] == "GET" and not scope["query_string"]
        if not plain or b"text/html" in headers.get(b"accept", b""):
            await app(scope, receive, send)
            return
        try:
            caller = await identities.caller(headers)
            require(caller, model.Scope.READ)
            await sessions.seen(caller)
            body = b'{"strategies":' + await board.list(caller) + b"}"
        except OpenbellError as error:
            await send_problem(send, error)
            return
        head = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            *PRIVATE,
            (b"vary", b"accept"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": body})

    return serve
