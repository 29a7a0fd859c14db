"""The same Openbell on PostgreSQL, where transactions are truly at once, and types are strict."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import asyncpg
import httpx
import pytest

from tests.fixtures.people import PASSWORD, Person, join
from tests.fixtures.postgres import connect
from tests.fixtures.stack import Stack, end_all, processes_of, start_one_process

pytestmark = [pytest.mark.docker]

SCRIPT = """
import hashlib, os, time
print("NUMBER", os.environ.get("NUMBER"), flush=True)
print("PIN", hashlib.sha256(os.environ["PIN"].encode()).hexdigest()[:8], flush=True)
time.sleep(600)
"""
PIN, PIN_HASH = "87654321", "e24df920"


@pytest.fixture(scope="module")
def address(new_database: Callable[[str], str]) -> str:
    return new_database("openbell")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, address: str) -> Generator[Stack]:
    home = tmp_path_factory.mktemp("postgres") / "home"
    try:
        running = start_one_process(home, OPENBELL_DATABASE__URL=address)
        yield running
        assert running.stop() == [0]
        assert processes_of(home) == []
        assert not (home / "data" / "openbell.db").exists()
        assert "Traceback" not in (home / "up.stderr").read_text()
    finally:
        end_all(home)


@pytest.fixture(scope="module")
def alice(stack: Stack) -> Generator[Person]:
    person = join(stack, "alice")
    yield person
    person.close()


@pytest.fixture(scope="module")
def strategy(stack: Stack) -> str:
    return stack.upload(SCRIPT, "on postgres", parameters={"NUMBER": "0"}, secrets={"PIN": PIN})


def at_once(*asked: Callable[[], httpx.Response]) -> list[httpx.Response]:
    with ThreadPoolExecutor(len(asked)) as pool:
        waiting = [pool.submit(ask) for ask in asked]
        return [one.result() for one in waiting]


def codes(answers: list[httpx.Response]) -> Counter[str]:
    return Counter("done" if one.is_success else one.json()["code"] for one in answers)


def test_the_whole_path(stack: Stack, strategy: str) -> None:
    stack.post(f"/python/start/{strategy}", params={"wait": 20})
    stack.wait_log(strategy, f"PIN {PIN_HASH}")
    stopped = stack.post(f"/python/stop/{strategy}", params={"wait": 20})["strategy"]
    assert stopped["status"] == "stopped"
    search = {"strategy": strategy, "format": "jsonl"}
    lines = stack.http.get("/auth/audit", params=search).text.splitlines()
    told = [(one["action"], one["outcome"]) for one in map(json.loads, lines)]
    assert told == [
        ("stop", "done"),
        ("stop", "requested"),
        ("start", "done"),
        ("start", "requested"),
        ("upload", "done"),
    ]


def test_a_link_that_many_open_at_once_makes_one_account(stack: Stack, address: str) -> None:
    path = stack.post("/admin/invitations", json={"role": "trader"})["path"]
    token = path.partition("#")[2]

    def accept(number: int) -> httpx.Response:
        body = {"token": token, "name": f"guest-{number}", "password": PASSWORD}
        with stack.client() as browser:
            return browser.post("/auth/accept", json=body)

    asked = [partial(accept, number) for number in range(3)]
    answers = asyncio.run(racing(address, "SELECT * FROM invitation FOR UPDATE", asked))
    assert codes(answers) == {"done": 1, "unknown_credential": 2}
    names = [user["name"] for user in stack.http.get("/admin/users").json()["users"]]
    assert len([name for name in names if name.startswith("guest-")]) == 1


async def racing(
    address: str, lock: str, asked: Sequence[Callable[[], httpx.Response]]
) -> list[httpx.Response]:
    """Hold up all who ask at the same place, then let them go."""
    connection = await connect(address)
    try:
        async with asyncio.timeout(20), connection.transaction():
            await connection.execute(lock)
            waiting = [asyncio.ensure_future(asyncio.to_thread(ask)) for ask in asked]
            held_up = "SELECT count(*) FROM pg_locks WHERE NOT granted"
            while await connection.fetchval(held_up) < len(asked):
                await asyncio.sleep(0.02)
        return await asyncio.gather(*waiting)
    finally:
        await connection.close()


def test_two_admins_who_each_end_the_other_leave_the_machines_own(stack: Stack) -> None:
    ann = join(stack, "ann", "admin")
    told = codes(
        at_once(
            lambda: stack.http.post(f"/admin/role/{ann.id}", json={"role": "trader"}),
            lambda: ann.http.post("/admin/disable/local"),
        )
    )
    assert told["done"] == 1
    assert set(told) <= {"done", "last_admin", "not_allowed"}
    roles = {one["id"]: one["role"] for one in stack.http.get("/admin/users").json()["users"]}
    assert (roles["local"], roles[ann.id]) == ("admin", "trader")
    ann.close()


def test_one_variable_that_many_set_at_once_has_one_value(stack: Stack, strategy: str) -> None:
    def setting(number: int) -> httpx.Response:
        with stack.client(stack.token) as client:
            body = {"parameters": {"NUMBER": str(number)}}
            return client.post(f"/python/env/{strategy}", json=body)

    assert codes(at_once(*(partial(setting, number) for number in range(1, 13)))) == {"done": 12}
    listed = stack.http.get(f"/python/env/{strategy}").json()["variables"]
    assert sorted(one["name"] for one in listed) == ["NUMBER", "PIN"]


def test_a_strategy_sees_what_it_saw_after_the_key_was_changed(stack: Stack, strategy: str) -> None:
    done = stack.post("/admin/rotate-key")
    assert done["broken"] == 0
    assert done["resealed"] >= 2
    stack.post(f"/python/start/{strategy}", params={"wait": 20})
    log = stack.wait_log(strategy, f"PIN {PIN_HASH}")
    assert log.splitlines()[0].removeprefix("NUMBER ") in map(str, range(1, 13))
    stack.post(f"/python/stop/{strategy}", params={"wait": 20})


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_entry SET user_name = 'x'",
        "DELETE FROM audit_entry",
        "TRUNCATE audit_entry",
        "UPDATE audit_entry SET user_name = 'x' WHERE false",
    ],
)
def test_the_database_itself_refuses_to_change_the_audit(
    stack: Stack, address: str, statement: str
) -> None:
    async def scenario() -> None:
        connection = await connect(address)
        with pytest.raises(asyncpg.RaiseError, match="never changed"):
            await connection.execute(statement)
        await connection.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("place", ["/auth/audit", "/admin/audit"])
@pytest.mark.parametrize(
    "query",
    [
        f"before={2**31}",
        f"before={2**40}",
        f"before={10**30}",
        "since=0001-01-01T00:00:00%2B14:00",
        "until=9999-12-31T23:59:59-14:00",
        "user=%00",
        "action=a%00b",
        "outcome=%00",
        "strategy=%00",
    ],
)
def test_a_search_that_means_nothing_is_refused(stack: Stack, place: str, query: str) -> None:
    answer = stack.http.get(f"{place}?{query}")
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


def test_a_search_at_the_ends_of_time_finds_all_or_nothing(stack: Stack) -> None:
    for since, found in (("0001-01-01T00:00:00Z", True), ("9999-12-31T23:59:59.999999Z", False)):
        answer = stack.http.get("/auth/audit", params={"since": since, "before": 2**31 - 1})
        assert bool(answer.json()["entries"]) is found


@pytest.mark.parametrize("bad", ["\0", "a\0b", "\ud800", "a\udfff"], ids=ascii)
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/auth/login", {"name": "BAD", "password": PASSWORD}),
        ("/auth/login", {"name": "alice", "password": "BAD"}),
        ("/auth/link", {"token": "BAD"}),
        ("/auth/accept", {"token": "BAD", "name": "x", "password": PASSWORD}),
        ("/auth/tokens", {"name": "BAD", "scopes": ["read"]}),
        ("/auth/env", {"parameters": {"BAD": "x"}}),
        ("/auth/env", {"parameters": {"X": "BAD"}}),
        ("/auth/env", {"secrets": {"x": "BAD"}}),
        ("/auth/env", {"remove": ["BAD"]}),
        ("/python/share/STRATEGY", {"user": "BAD"}),
        ("/python/env/STRATEGY", {"uses": {"X": "BAD"}}),
        ("/python/env/STRATEGY", {"remove": ["BAD"]}),
        ("/python/schedule/STRATEGY", {"kind": "market", "exchange": "BAD", "start": "09:15"}),
    ],
)
def test_what_is_no_text_is_refused(
    stack: Stack, strategy: str, path: str, body: Any, bad: str
) -> None:
    sent = json.dumps(body).replace('"BAD"', json.dumps(bad))
    answer = stack.http.post(
        path.replace("STRATEGY", strategy),
        content=sent,
        headers={"content-type": "application/json"},
    )
    assert answer.status_code in {401, 404, 422, 429}, answer.text


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/python/logs/STRATEGY?run=%00"),
        ("DELETE", "/python/share/STRATEGY?user=%00"),
        ("POST", "/admin/role/%00"),
        ("POST", "/admin/disable/a%00"),
        ("POST", "/admin/reset/%00"),
        ("DELETE", "/admin/invitations/%00"),
        ("DELETE", "/auth/sessions/%00"),
        ("DELETE", "/auth/tokens/%00"),
        ("POST", "/python/start/%00"),
        ("GET", "/python/status/%F0%9F%92%A5%ff"),
    ],
)
def test_an_address_that_means_nothing_is_refused(
    stack: Stack, strategy: str, method: str, path: str
) -> None:
    answer = stack.http.request(method, path.replace("STRATEGY", strategy), json={"role": "admin"})
    assert answer.status_code in {404, 422}, answer.text
