"""One mapping from domain errors, and from the framework's, to problem+json (RFC 9457)."""

import math
from collections.abc import Mapping
from typing import Any, get_args

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from openbell.contracts.errors import (
    InvalidRequest,
    MethodNotAllowed,
    NoSuchPage,
    OpenbellError,
    RequestRefused,
    TooManyTries,
)
from openbell.contracts.schedules import AnySchedule

MEDIA_TYPE = "application/problem+json"
KINDS = [get_args(kind.model_fields["kind"].annotation)[0] for kind in get_args(AnySchedule)]
"""Of schedules: the validator names them before the field, the user did not."""
MOST = 50
"""Fields that are told to be wrong at once."""
LONGEST = 300
"""Characters of a field's name or of what is wrong with it: both may hold what was sent."""
NAMED = {"literal_error", "enum"}
PLAINLY = {
    **dict.fromkeys(("list_type", "tuple_type", "set_type", "frozen_set_type"), "write a list"),
    **dict.fromkeys(("int_type", "int_from_float", "int_parsing"), "write a whole number"),
    "model_attributes_type": "write a JSON object",
}
DATES = {"skip_dates", "open_dates"}
PATTERNS = {
    r"^[^\x00-\x1f\x7f]*$": "it may not contain control characters",
    r"^[^\x00]*$": "it may not contain a NUL",
    r"^[\x20-\x7e]+$": "it may contain only printable ASCII characters",
}
PLAIN = {404: NoSuchPage, 405: MethodNotAllowed}

log = structlog.get_logger()


def install(app: FastAPI) -> None:
    @app.exception_handler(OpenbellError)
    async def domain(_request: Request, error: OpenbellError) -> JSONResponse:  # pyright: ignore[reportUnusedFunction]
        return _answer(error)

    @app.exception_handler(RequestValidationError)
    async def validation(_request: Request, error: RequestValidationError) -> JSONResponse:  # pyright: ignore[reportUnusedFunction]
        errors = [_field(item) for item in error.errors()[:MOST]]
        detail = "; ".join(f"{item['field']}: {item['message']}" for item in errors)
        return _answer(InvalidRequest(detail[:1000], errors=errors))

    @app.exception_handler(HTTPException)
    async def plain(request: Request, error: HTTPException) -> JSONResponse:  # pyright: ignore[reportUnusedFunction]
        if isinstance(error.__cause__, UnicodeDecodeError):
            return _answer(InvalidRequest.of("body", "it is not written in UTF-8"))
        kind = PLAIN.get(error.status_code, RequestRefused)
        detail = request.url.path[:200] if kind is NoSuchPage else str(error.detail)
        return _answer(kind(detail), dict(error.headers or {}))

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> JSONResponse:  # pyright: ignore[reportUnusedFunction]
        log.error("a request failed", path=request.url.path, exc_info=error)
        return _answer(OpenbellError("this is a defect of Openbell; its log has the details"))


def _answer(error: OpenbellError, headers: dict[str, str] | None = None) -> JSONResponse:
    if isinstance(error, TooManyTries):
        headers = {"retry-after": str(math.ceil(error.retry_after_s)), **(headers or {})}
    problem = error.problem()
    body = problem.model_dump(exclude_none=True)
    return JSONResponse(body, problem.status, headers=headers, media_type=MEDIA_TYPE)


def _field(error: dict[str, Any]) -> dict[str, str]:
    """Named as the user did: without the part of the request, or the kind of schedule."""
    place, *parts = (str(part) for part in error["loc"])
    if len(parts) > 1 and parts[0] in KINDS:
        parts = parts[1:]
    if error["type"].startswith("union_tag"):
        parts = [*parts, "kind"]
    if error["type"] == "json_invalid":  # its parts are where in the body
        parts = []
    return {"field": (".".join(parts) or place)[:LONGEST], "message": message(error)[:LONGEST]}


def shown(name: str) -> str:
    """A name that was sent, as an answer may hold it: half of a surrogate pair has no UTF-8."""
    return ascii(name[:64])[1:-1]


def message(error: Mapping[str, Any]) -> str:
    """What is wrong, in words for who wrote it, and not for who wrote its validator."""
    kind, loc = error["type"], error["loc"]
    context: Mapping[str, Any] = error.get("ctx", {})
    said = str(error["msg"]).removeprefix("Value error, ")
    if kind.startswith("union_tag"):
        return f"say which kind: {', '.join(KINDS[:-1])} or {KINDS[-1]}"
    if kind in NAMED:
        return "write " + context["expected"].replace("'", "")
    if kind in PLAINLY:
        return PLAINLY[kind]
    if kind == "greater_than_equal":
        return f"at least {context['ge']:.12g}"
    if kind == "less_than_equal":
        return f"at most {context['le']:.12g}"
    if kind == "too_long":
        return f"at most {context['max_length']} {'dates' if loc[-1] in DATES else 'of them'}"
    if kind.startswith("date_"):
        return "write a date like 2026-12-01"
    if kind == "string_pattern_mismatch":
        return PATTERNS.get(context["pattern"], said)
    if kind == "json_invalid":
        return f"it is no JSON: {context.get('error', said)}"
    return said
