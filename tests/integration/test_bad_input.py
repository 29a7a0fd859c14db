"""Bad input gets a typed problem+json with a 4xx, and leaves nothing behind."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.fixtures.stack import Stack

GOOD = b"print('hi')\n"


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert (body["status"], body["code"]) == (status, code), body
    assert body["title"]
    return body


def upload(stack: Stack, filename: str = "s.py", body: bytes = GOOD, **form: str) -> httpx.Response:
    return stack.http.post("/python/upload", data=form, files={"file": (filename, body)})


@pytest.fixture(autouse=True)
def _leaves_nothing(stack: Stack) -> Any:
    yield
    kept = stack.http.get("/python/").json()["strategies"]
    for strategy in kept:
        stack.http.delete(f"/python/delete/{strategy['id']}", params={"stop": True})
    assert kept == []
    assert list((stack.home / "strategies").glob("*")) == []


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd", "/etc/passwd", "a\0b", "नमस्ते", "x" * 10_000, "a/b", "a\\b", "<b>", "\n"],
)
def test_names(stack: Stack, name: str) -> None:
    if not name.strip():
        return  # blank means: the file's own name
    body = problem(upload(stack, name=name), 422, "invalid_request")
    assert body["errors"][0]["field"] == "name"


@pytest.mark.parametrize(
    "filename", ["../s.py", "/tmp/s.py", "s.txt", "s", ".py", "é.py", "x" * 1000 + ".py"]
)
def test_file_names(stack: Stack, filename: str) -> None:
    problem(upload(stack, filename), 422, "invalid_request")


def test_a_file_name_longer_than_any_header(stack: Stack) -> None:
    problem(upload(stack, "x" * 10_000 + ".py"), 400, "request_refused")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 422, "invalid_source"),
        (b"\x7fELF" + bytes(1000), 422, "invalid_source"),
        (b"print('\xff')", 422, "invalid_source"),
        (b"#" * (1024**2 + 1), 413, "too_large"),
        (b"#" * 50_000_000, 413, "too_large"),
    ],
)
def test_files(stack: Stack, body: bytes, status: int, code: str) -> None:
    problem(upload(stack, body=body), status, code)


def test_a_syntax_error_has_its_line_and_column(stack: Stack) -> None:
    body = problem(upload(stack, body=b"x = 1\nfor\n"), 422, "invalid_source")
    assert body["errors"] == [
        {"field": "file", "line": 2, "column": 4, "message": "invalid syntax"}
    ]


@pytest.mark.parametrize(
    "form",
    [
        {"restart": "sometimes"},
        {"stop_grace_s": "-1"},
        {"stop_grace_s": "nan"},
        {"stop_grace_s": "1e9"},
        {"parameters": "SYMBOL=SBIN"},
        {"parameters": '{"PATH\\u0000": "x"}'},
        {"scheduel": "always"},
    ],
)
def test_wrong_form_fields(stack: Stack, form: dict[str, str]) -> None:
    answer = stack.http.post("/python/upload", data=form, files={"file": ("s.py", GOOD)})
    problem(answer, 422, "invalid_request")


def test_a_request_that_is_no_form(stack: Stack) -> None:
    problem(stack.http.post("/python/upload"), 422, "invalid_request")
    problem(stack.http.post("/python/upload", json={"file": "x"}), 422, "invalid_request")
    broken = {"content-type": "multipart/form-data; boundary=x"}
    problem(
        stack.http.post("/python/upload", content=b"--y\r\n", headers=broken),
        400,
        "request_refused",
    )
    problem(stack.http.post("/python/upload", data={"file": "text"}), 422, "invalid_request")


@pytest.mark.parametrize(
    "names",
    ['["\\ud800"]', f'["{"x" * 1_060_000}"]', json.dumps([f"N{n}" for n in range(201)]), "[1]"],
    ids=["half a pair", "large", "many", "a number"],
)
def test_variables_to_remove_that_can_be_none(stack: Stack, names: str) -> None:
    strategy = upload(stack).json()["strategy"]["id"]
    for path in (f"/python/env/{strategy}", "/auth/env"):
        answer = stack.http.post(
            path,
            content=f'{{"remove": {names}}}',
            headers={"content-type": "application/json"},
        )
        body = problem(answer, 422, "invalid_request")
        assert body["errors"][0]["field"].startswith("remove")
        assert len(answer.content) < 2_000
    stack.http.delete(f"/python/delete/{strategy}").raise_for_status()


def test_an_unknown_exchange(stack: Stack) -> None:
    body = problem(upload(stack, exchange="XYZ"), 422, "unknown_exchange")
    assert "NSE" in body["detail"]
    problem(upload(stack, exchange="N\0SE"), 422, "invalid_request")


@pytest.mark.parametrize(
    "schedule",
    [
        {"kind": "market", "exchange": "NSE", "start": "25:99"},
        {"kind": "market", "exchange": "NSE", "start": "9:15"},
        {"kind": "market", "exchange": "NSE", "start": 915},
        {"kind": "market", "exchange": "NSE", "start": "09:15", "stop": "09:15"},
        {"kind": "market", "exchange": "NSE", "start": "09:15", "weekdays": ["someday"]},
        {"kind": "market", "exchange": "NSE", "start": "09:15", "weekdays": []},
        {"kind": "market", "start": "09:15"},
        {"kind": "market", "exchange": "XYZ", "start": "09:15"},
        {"kind": "market", "exchange": "NSE", "start": "09:15", "stopp": "15:30"},
        {"kind": "weekly"},
        {},
        [],
        "always",
        None,
    ],
)
def test_a_bad_schedule_leaves_the_old_one(stack: Stack, schedule: Any) -> None:
    strategy = upload(stack, name="scheduled").json()["strategy"]["id"]
    stack.post(f"/python/stop/{strategy}")  # the market may be open just now
    good = {"kind": "market", "exchange": "NSE", "start": "09:15", "stop": "15:30"}
    kept = stack.post(f"/python/schedule/{strategy}", json=good)["strategy"]["schedule"]
    answer = stack.http.post(f"/python/schedule/{strategy}", json=schedule)
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"]
    assert stack.status(strategy)["schedule"] == kept
    stack.http.delete(f"/python/delete/{strategy}").raise_for_status()


@pytest.mark.parametrize("body", [b"{", b"\xff", b'{"kind": "\xff"}', b""], ids=ascii)
def test_a_body_that_is_no_json(stack: Stack, body: bytes) -> None:
    answer = stack.http.post(
        "/python/preview", content=body, headers={"content-type": "application/json"}
    )
    assert [one["field"] for one in problem(answer, 422, "invalid_request")["errors"]] == ["body"]


def test_control_characters_in_a_reason(stack: Stack) -> None:
    said = {"reason": "a\nb"}
    answer = stack.http.put("/calendar/overrides/NSE/2026-12-23", json=said)
    body = problem(answer, 422, "invalid_request")
    assert body["errors"] == [
        {"field": "reason", "message": "it may not contain control characters"}
    ]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/python/status/{}"),
        ("GET", "/python/logs/{}"),
        ("GET", "/python/runs/{}"),
        ("GET", "/python/preview/{}"),
        ("POST", "/python/start/{}"),
        ("POST", "/python/stop/{}"),
        ("POST", "/python/restart/{}"),
        ("POST", "/python/resume/{}"),
        ("DELETE", "/python/schedule/{}"),
        ("DELETE", "/python/delete/{}"),
    ],
)
@pytest.mark.parametrize(
    "strategy", ["nobody-123456", "..%2f..%2fetc", "%00", "%F0%9F%92%A5", "x" * 5000, "a b"]
)
def test_unknown_ids(stack: Stack, method: str, path: str, strategy: str) -> None:
    answer = stack.http.request(method, path.format(strategy))
    code = "no_such_page" if "%2f" in strategy or "%00" in strategy else "unknown_strategy"
    problem(answer, 404, code)


def test_unknown_pages_and_methods(stack: Stack) -> None:
    problem(stack.http.get("/nowhere"), 404, "no_such_page")
    problem(stack.http.get("/python/start/x"), 405, "method_not_allowed")
    problem(stack.http.post("/python/events"), 405, "method_not_allowed")


def test_numbers_out_of_range(stack: Stack) -> None:
    strategy = upload(stack, name="numbers").json()["strategy"]["id"]
    for query in ("limit=0", "limit=99999999", "offset=x", "wait=1e9", "limit=-1"):
        problem(stack.http.get(f"/python/logs/{strategy}?{query}"), 422, "invalid_request")
    problem(stack.http.post(f"/python/stop/{strategy}?wait=nan"), 422, "invalid_request")
    problem(stack.http.get(f"/python/logs/{strategy}"), 404, "unknown_run")
    problem(stack.http.get(f"/python/logs/{strategy}?run=../../x"), 404, "unknown_run")
    for offset in (-(2**70), 2**70):
        answer = stack.http.get(f"/python/logs/{strategy}?offset={offset}")
        assert answer.status_code in {404, 422}
    stack.http.delete(f"/python/delete/{strategy}").raise_for_status()


def test_two_uploads_of_one_name_at_once(stack: Stack) -> None:
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(upload, stack, name="Same name") for _ in range(8)]
        answers = [one.result() for one in waiting]
    made = [answer for answer in answers if answer.status_code == 201]
    assert len(made) == 1
    for answer in answers:
        if answer is not made[0]:
            problem(answer, 409, "name_taken")
    problem(upload(stack, name="SAME NAME"), 409, "name_taken")
    strategy = made[0].json()["strategy"]["id"]
    stack.http.delete(f"/python/delete/{strategy}").raise_for_status()
    again = upload(stack, name="Same name")
    assert again.status_code == 201
    stack.http.delete(f"/python/delete/{again.json()['strategy']['id']}").raise_for_status()


def test_deleting_what_runs_needs_a_word(stack: Stack) -> None:
    strategy = upload(stack, name="runs", body=b"import time\ntime.sleep(600)").json()["strategy"]
    path = f"/python/delete/{strategy['id']}"
    stack.post(f"/python/start/{strategy['id']}", params={"wait": 10})
    problem(stack.http.delete(path), 409, "strategy_is_running")
    assert stack.status(strategy["id"])["status"] == "running"
    assert "stopped first" in stack.http.delete(path, params={"stop": True}).json()["note"]
    problem(stack.http.post(f"/python/start/{strategy['id']}"), 404, "unknown_strategy")
    _forget_sources(stack, strategy["id"])


def _forget_sources(stack: Stack, strategy: str) -> None:
    """The folder stays with its owner's files; this module's promise is about refusals."""
    folder = stack.home / "strategies" / strategy
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()


def test_a_page_of_another_site_is_refused(stack: Stack) -> None:
    problem(stack.http.get("/python/", headers={"host": "evil.example"}), 403, "foreign_origin")
    for origin in ("http://evil.example", "null", "http://127.0.0.1:1"):
        answer = stack.http.post("/python/start/x", headers={"origin": origin})
        problem(answer, 403, "foreign_origin")


def test_a_slow_upload_holds_up_nobody(stack: Stack) -> None:
    """A client that dribbles its body has its own connection; others are answered meanwhile."""

    def dribble() -> Any:
        for _ in range(10):
            yield b"x"
            assert stack.http.get("/python/").status_code == 200

    began = time.monotonic()
    with stack.client(stack.token) as slow:
        answer = slow.post("/python/upload", content=dribble())
    assert answer.status_code == 422
    assert time.monotonic() - began < 15
