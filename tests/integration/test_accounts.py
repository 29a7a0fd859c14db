"""Accounts: who gets in, with what, for how long; and what is told to who does not."""

import asyncio
import json
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError

from openbell.contracts.errors import NotSignedIn, TooManyTries, WrongPassword
from openbell.contracts.model import Role, Scope
from openbell.db.models import ApiToken, AuditEntry, LoginSession, User
from openbell.db.session import Database
from openbell.identity import Identities, csrf_of, digest
from services.api.auth.passwords import Passwords
from tests.fixtures import databases
from tests.fixtures.people import CSRF, PASSWORD, Person, join
from tests.fixtures.stack import Stack, start_one_process

WORKERS = 16
NOW = datetime(2026, 8, 3, 3, 45, tzinfo=UTC)


def code(answer: httpx.Response) -> str:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    return answer.json()["code"]


@pytest.fixture(scope="module")
def alice(stack: Stack) -> Generator[Person]:
    person = join(stack, "alice")
    yield person
    person.close()


def login(stack: Stack, name: str, password: str, **headers: str) -> httpx.Response:
    with stack.client() as browser:
        return browser.post(
            "/auth/login", json={"name": name, "password": password}, headers=headers
        )


# ---- the first start


def test_the_setup_link_makes_the_admin_once(home: Path) -> None:
    stack = start_one_process(home)
    file = home / "data" / "setup-token"
    token = file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    assert (home / "data" / "local-token").stat().st_mode & 0o777 == 0o600
    browser = stack.client()
    assert browser.post("/auth/link", json={"token": token}).json()["purpose"] == "setup"
    weak = browser.post("/auth/accept", json={"token": token, "name": "root", "password": "short"})
    assert (weak.status_code, weak.json()["errors"][0]["field"]) == (422, "password")
    body = {"token": token, "name": "root", "password": PASSWORD}
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(post, stack, body) for _ in range(4)]
    answers = [one.result() for one in asked]
    assert sorted(one.status_code for one in answers) == [200, 404, 404, 404]
    assert not file.exists()
    user = next(one.json()["user"] for one in answers if one.status_code == 200)
    assert user == {"id": "local", "name": "root", "role": "admin"}
    assert stack.http.get("/auth/me").json()["claimed"] is True
    assert login(stack, "ROOT", PASSWORD).status_code == 200
    browser.close()
    assert stack.stop() == [0]
    again = start_one_process(home)
    assert not file.exists()
    assert again.token == stack.token
    assert again.stop() == [0]


def post(stack: Stack, body: dict[str, str]) -> httpx.Response:
    with stack.client() as browser:
        return browser.post("/auth/accept", json=body)


def test_a_guest_who_comes_before_the_host_does_not_take_the_setup_link(home: Path) -> None:
    stack = start_one_process(home)
    file = home / "data" / "setup-token"
    token = file.read_text()
    guest = join(stack, "guest")
    assert file.read_text() == token
    body = {"token": token, "name": "host", "password": PASSWORD}
    assert post(stack, body).json()["user"]["id"] == "local"
    assert not file.exists()
    guest.close()
    assert stack.stop() == [0]


def test_nothing_but_this_machine_is_served_until_somebody_can_sign_in(home: Path) -> None:
    with pytest.raises(AssertionError, match="did not come up"):
        start_one_process(home, OPENBELL_HTTP__HOST="0.0.0.0")
    assert "until somebody can sign in" in (home / "up.stderr").read_text()


# ---- sessions


def test_a_session_signs_in_and_its_cookie_is_not_for_scripts(stack: Stack, alice: Person) -> None:
    answer = login(stack, "alice", PASSWORD)
    cookies = {c.split("=")[0]: c.lower() for c in answer.headers.get_list("set-cookie")}
    assert "httponly" in cookies["openbell_session"]
    assert "httponly" not in cookies["openbell_csrf"]
    assert all("samesite=lax" in cookie for cookie in cookies.values())
    assert "secure" not in cookies["openbell_session"]


def test_over_https_the_cookie_is_for_https(stack: Stack, alice: Person) -> None:
    host = stack.url.removeprefix("http://")
    answer = login(stack, "alice", PASSWORD, Origin=f"https://{host}")
    assert all("secure" in c.lower() for c in answer.headers.get_list("set-cookie"))


def test_signing_in_again_ends_the_session_that_the_browser_had(
    stack: Stack, alice: Person
) -> None:
    with stack.client() as browser:
        body = {"name": "alice", "password": PASSWORD}
        browser.post("/auth/login", json=body).raise_for_status()
        old = browser.cookies["openbell_session"]
        browser.post("/auth/login", json=body).raise_for_status()
        assert browser.cookies["openbell_session"] != old
    with stack.client() as replaying:
        assert code(replaying.get("/auth/me", headers={"Cookie": f"openbell_session={old}"})) == (
            "not_signed_in"
        )


def test_a_signed_out_cookie_cannot_be_replayed(stack: Stack, alice: Person) -> None:
    with stack.client() as browser:
        browser.post("/auth/login", json={"name": "alice", "password": PASSWORD})
        value = browser.cookies["openbell_session"]
        browser.headers[CSRF] = browser.cookies["openbell_csrf"]
        assert browser.get("/auth/me").status_code == 200
        browser.post("/auth/logout").raise_for_status()
        assert "openbell_session" not in browser.cookies
        answer = browser.get("/auth/me", headers={"Cookie": f"openbell_session={value}"})
        assert code(answer) == "not_signed_in"


def test_what_a_browser_changes_must_prove_that_our_page_asks(stack: Stack, alice: Person) -> None:
    browser = alice.browser
    sent = browser.headers.pop(CSRF)
    try:
        for proof in ({}, {CSRF: ""}, {CSRF: "0" * 64}, {CSRF: csrf_of("planted")}):
            answer = browser.post("/python/stop-all", headers=proof)
            assert (answer.status_code, code(answer)) == (403, "forged_request")
        assert browser.get("/python/").status_code == 200
    finally:
        browser.headers[CSRF] = sent
    assert browser.post("/python/stop-all").status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer obt_forged"},
        {"Authorization": "Bearer"},
        {"Authorization": "Basic YWxpY2U6cHc="},
        {"Authorization": "Bearer " + "x" * 5000},
        {"Authorization": b"Bearer \xff\xfe"},
        {"Cookie": "openbell_session=forged"},
        {"Cookie": "openbell_session="},
        {"Cookie": "openbell_session=" + "x" * 5000},
        {"Cookie": 'openbell_session="\'; DROP TABLE user; --"'},
        {"Cookie": b"\xff\xfe; openbell_session=\xff"},
        {"Cookie": "=;=;,,openbell_session"},
    ],
)
def test_a_forged_credential_is_refused(stack: Stack, headers: dict[str, Any]) -> None:
    with stack.client() as client:
        for path in ("/python/", "/auth/me", "/python/events"):
            answer = client.get(path, headers=headers)
            assert (answer.status_code, code(answer)) == (401, "not_signed_in")


def test_a_bad_token_is_not_made_up_for_by_a_good_cookie(alice: Person) -> None:
    answer = alice.browser.get("/auth/me", headers={"Authorization": "Bearer obt_revoked"})
    assert code(answer) == "not_signed_in"


def test_the_list_of_sessions_is_revocable_and_ones_own(stack: Stack, alice: Person) -> None:
    bob = join(stack, "bob-of-sessions")
    answer = login(stack, "alice", PASSWORD, **{"User-Agent": "Old Phone" + "y" * 500})
    value = answer.cookies["openbell_session"]
    listed = alice.browser.get("/auth/sessions").json()["sessions"]
    phone = next(one for one in listed if one["agent"].startswith("Old Phone"))
    assert len(phone["agent"]) <= 200
    assert [one["current"] for one in listed].count(True) == 1
    assert code(bob.browser.delete(f"/auth/sessions/{phone['id']}")) == "unknown_credential"
    alice.browser.delete(f"/auth/sessions/{phone['id']}").raise_for_status()
    with stack.client() as thief:
        answer = thief.get("/python/", headers={"Cookie": f"openbell_session={value}"})
        assert code(answer) == "not_signed_in"
    bob.close()


@pytest.mark.parametrize("kind", ["session", "token"])
def test_revoking_closes_open_streams(stack: Stack, alice: Person, kind: str) -> None:
    if kind == "session":
        value = login(stack, "alice", PASSWORD).cookies["openbell_session"]
        headers = {"Cookie": f"openbell_session={value}"}
        with stack.client() as other:
            listed = other.get("/auth/sessions", headers=headers).json()["sessions"]
            path = f"/auth/sessions/{next(one['id'] for one in listed if one['current'])}"
    else:
        made = alice.http.post("/auth/tokens", json={"name": "s", "scopes": ["read"]}).json()
        headers = {"Authorization": f"Bearer {made['value']}"}
        path = f"/auth/tokens/{made['token']['id']}"
    url = f"{stack.events_url}/python/events"
    with httpx.stream("GET", url, headers=headers, timeout=10) as stream:
        lines = stream.iter_lines()
        assert any(line == "event: hello" for line in lines)
        alice.http.delete(path).raise_for_status()
        rest = list(lines)  # until the server ends it
    assert "event: signed_out" in rest


def test_answers_for_one_caller_are_kept_by_nobody(alice: Person) -> None:
    for path in ("/python/", "/auth/me", "/auth/tokens", "/auth/audit"):
        answer = alice.http.get(path)
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"


# ---- guessing


def test_ten_thousand_guesses_cost_little_and_tell_nothing(home: Path) -> None:
    """A few are looked at; the others are refused without the costly hash; the rest goes on."""
    stack = start_one_process(home)
    alice = join(stack, "alice")

    async def worker(number: int) -> list[tuple[int, str]]:
        """Over one connection: ten thousand requests of a full client would take a minute."""
        host = stack.url.removeprefix("http://")
        reader, writer = await asyncio.open_connection(*host.split(":"))
        seen: list[tuple[int, str]] = []
        for n in range(10_000 // WORKERS):
            name = ("alice", "nobody", f"user{number}-{n}")[n % 3]
            body = json.dumps({"name": name, "password": f"guess {n}"}).encode()
            writer.write(
                f"POST /auth/login HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\n\r\n".encode()
                + body
            )
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            answer = json.loads(await reader.readexactly(length))
            seen.append((answer["status"], answer["code"]))
        writer.close()
        await writer.wait_closed()
        return seen

    async def guess() -> list[tuple[int, str]]:
        results = await asyncio.gather(*(worker(number) for number in range(WORKERS)))
        return [one for result in results for one in result]

    seen = asyncio.run(guess())
    assert {status for status, _ in seen} == {401, 429}
    looked_at = [one for one in seen if one[0] == 401]
    assert 0 < len(looked_at) < 60
    assert {error for _, error in seen} == {"wrong_password", "too_many_tries"}
    refused = login(stack, "alice", PASSWORD)
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) >= 1
    assert alice.browser.get("/python/").status_code == 200
    failures = stack.http.get(
        "/admin/audit", params={"action": "login", "outcome": "wrong_password"}
    )
    assert len(failures.json()["entries"]) == len(looked_at)
    alice.close()
    assert stack.stop() == [0]


def test_each_failure_doubles_the_wait_and_success_ends_it() -> None:
    async def scenario() -> None:
        now = [0.0]
        passwords = Passwords(monotonic=lambda: now[0])
        kept = await passwords.hash("right password")

        async def attempt(password: str) -> str:
            try:
                await passwords.verify("alice", "10.0.0.1", password, kept)
            except (TooManyTries, WrongPassword) as error:
                return error.code()
            return "in"

        assert [await attempt("wrong") for _ in range(6)] == ["wrong_password"] * 6
        assert await attempt("right password") == "too_many_tries"
        now[0] = 1.0
        assert await attempt("right password") == "in"
        assert await attempt("wrong") == "wrong_password"

    asyncio.run(scenario())


def test_many_at_once_are_counted_before_they_are_looked_at() -> None:
    async def scenario() -> None:
        passwords = Passwords(monotonic=lambda: 0.0)
        results = await asyncio.gather(
            *(passwords.verify("alice", "10.0.0.1", "wrong", None) for _ in range(200)),
            return_exceptions=True,
        )
        looked_at = [one for one in results if isinstance(one, WrongPassword)]
        assert len(looked_at) == 6

    asyncio.run(scenario())


# ---- bad input


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/auth/login", {}),
        ("/auth/login", {"name": "a" * 100_000, "password": "x"}),
        ("/auth/login", {"name": "alice", "password": "x" * 100_000}),
        ("/auth/login", {"name": ["alice"], "password": {"$ne": ""}}),
        ("/auth/login", {"name": "alice", "password": "x", "role": "admin"}),
        ("/auth/accept", {"token": "x" * 1000, "name": "x", "password": PASSWORD}),
        ("/auth/tokens", {"name": "x\r\nSet-Cookie: a=b", "scopes": ["read"]}),
        ("/auth/tokens", {"name": "", "scopes": ["read"]}),
        ("/auth/tokens", {"name": "x", "scopes": []}),
        ("/auth/tokens", {"name": "x", "scopes": ["root"]}),
        ("/auth/tokens", {"name": "x", "scopes": ["read"], "expires_days": 0}),
        ("/auth/tokens", {"name": "x", "scopes": ["read"], "expires_days": 10**9}),
        ("/auth/password", {"current": PASSWORD, "new": "short"}),
        ("/admin/invitations", {"role": "owner"}),
    ],
)
def test_bad_input_is_a_typed_error(stack: Stack, path: str, body: dict[str, Any]) -> None:
    carol = join(stack, f"carol-{abs(hash((path, str(body)))) % 10**8}")
    client = stack.http if path.startswith("/admin") else carol.http
    answer = client.post(path, json=body)
    assert (answer.status_code, code(answer)) == (422, "invalid_request"), answer.text
    assert PASSWORD not in answer.text
    assert len(carol.http.get("/auth/tokens").json()["tokens"]) == 1
    carol.close()


@pytest.mark.parametrize("name", ["", "../x", "a b", "ä", "x\r\ny", "x\0y", "-x", "a" * 65, None])
def test_names_of_accounts_are_plain(stack: Stack, name: str | None) -> None:
    token = stack.post("/admin/invitations", json={"role": "trader"})["path"].partition("#")[2]
    with stack.client() as browser:
        body = {"token": token, "name": name, "password": PASSWORD}
        answer = browser.post("/auth/accept", json=body)
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "name")
        assert browser.post("/auth/link", json={"token": token}).status_code == 200


def test_a_name_is_one_persons_whatever_its_case(stack: Stack, alice: Person) -> None:
    token = stack.post("/admin/invitations", json={"role": "trader"})["path"].partition("#")[2]
    answer = post(stack, {"token": token, "name": "ALICE", "password": PASSWORD})
    assert (answer.status_code, code(answer)) == (409, "user_name_taken")


def test_nobody_takes_the_name_under_which_the_machine_is_audited(stack: Stack) -> None:
    token = stack.post("/admin/invitations", json={"role": "trader"})["path"].partition("#")[2]
    answer = post(stack, {"token": token, "name": "Local", "password": PASSWORD})
    assert (answer.status_code, code(answer)) == (409, "user_name_taken")


def test_a_token_is_not_signed_out(alice: Person) -> None:
    assert code(alice.http.post("/auth/logout")) == "not_allowed"
    assert alice.http.get("/auth/me").status_code == 200


def test_headers_of_callers_do_not_reach_ours(stack: Stack, alice: Person) -> None:
    """Neither what a browser calls itself, nor a cookie, is sent back."""
    answer = login(stack, "alice", "wrong \r\nX-Injected: 1", **{"User-Agent": "a X-Injected: 1"})
    assert "x-injected" not in answer.headers


# ---- administration


def test_roles_change_at_once_and_an_admin_remains(stack: Stack) -> None:
    dora = join(stack, "dora")
    assert dora.http.get("/admin/users").status_code == 403
    stack.post(f"/admin/role/{dora.id}", json={"role": "admin"})
    assert dora.browser.get("/admin/users").status_code == 200
    stack.post(f"/admin/role/{dora.id}", json={"role": "viewer"})
    assert code(dora.browser.get("/admin/users")) == "not_allowed"
    answer = stack.http.post("/admin/role/local", json={"role": "trader"})
    assert (answer.status_code, code(answer)) == (409, "last_admin")
    assert code(stack.http.post("/admin/disable/local")) == "last_admin"
    assert stack.http.get("/admin/users").status_code == 200
    assert code(stack.http.post("/admin/disable/nobody")) == "unknown_user"
    dora.close()


def test_a_disabled_account_is_out_at_once_and_can_come_back(stack: Stack) -> None:
    evan = join(stack, "evan")
    stack.post(f"/admin/disable/{evan.id}")
    assert code(evan.http.get("/python/")) == "not_signed_in"
    assert code(evan.browser.get("/python/")) == "not_signed_in"
    assert code(login(stack, "evan", PASSWORD)) == "wrong_password"
    stack.post(f"/admin/enable/{evan.id}")
    assert evan.http.get("/python/").status_code == 200
    evan.close()


def test_a_lost_password_is_replaced_by_a_link_and_ends_sessions(stack: Stack) -> None:
    fay = join(stack, "fay")
    link = stack.post(f"/admin/reset/{fay.id}")["path"].partition("#")[2]
    with stack.client() as browser:
        told = browser.post("/auth/link", json={"token": link}).json()
        assert (told["purpose"], told["name"]) == ("password", "fay")
    body = {"token": link, "name": "ignored", "password": "another long password"}
    assert post(stack, body).json()["user"]["name"] == "fay"
    assert code(post(stack, body)) == "unknown_credential"
    assert code(fay.browser.get("/python/")) == "not_signed_in"
    assert fay.http.get("/python/").status_code == 200  # tokens are revoked by themselves
    assert code(login(stack, "fay", PASSWORD)) == "wrong_password"
    assert login(stack, "fay", "another long password").status_code == 200
    fay.close()


def test_changing_the_password_takes_the_old_one(stack: Stack) -> None:
    gus = join(stack, "gus")
    wrong = gus.browser.post("/auth/password", json={"current": "no", "new": "a new password"})
    assert code(wrong) == "wrong_password"
    other = login(stack, "gus", PASSWORD).cookies["openbell_session"]
    body = {"current": PASSWORD, "new": "a new password"}
    gus.browser.post("/auth/password", json=body).raise_for_status()
    assert gus.browser.get("/auth/me").status_code == 200
    with stack.client() as elsewhere:
        answer = elsewhere.get("/auth/me", headers={"Cookie": f"openbell_session={other}"})
        assert code(answer) == "not_signed_in"
    gus.close()


def test_no_token_makes_a_stronger_one(stack: Stack, alice: Person) -> None:
    made = alice.http.post("/auth/tokens", json={"name": "a", "scopes": ["admin", "read"]}).json()
    assert made["value"].startswith("obt_")
    with stack.client(made["value"]) as program:
        answer = program.post("/auth/tokens", json={"name": "b", "scopes": ["edit"]})
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "scopes")
        listed = program.get("/auth/tokens").text
    assert made["value"] not in listed


def test_what_a_token_makes_does_not_outlive_it(stack: Stack, alice: Person) -> None:
    body = {"name": "short", "scopes": ["admin", "read"], "expires_days": 1}
    made = alice.http.post("/auth/tokens", json=body).json()
    with stack.client(made["value"]) as program:
        child = program.post("/auth/tokens", json={"name": "child", "scopes": ["read"]}).json()
    assert child["token"]["expires_at"] == made["token"]["expires_at"]


def test_cookies_of_other_programs_of_this_host_do_no_harm(stack: Stack, alice: Person) -> None:
    value = login(stack, "alice", PASSWORD).cookies["openbell_session"]
    for others in ('prefs={"a": 1}; ', "a=b c; ", '="; ', "x; "):
        with stack.client() as browser:
            headers = {"Cookie": f"{others}openbell_session={value}"}
            assert browser.get("/auth/me", headers=headers).status_code == 200, others


def test_a_proof_that_is_no_text_is_refused(stack: Stack, alice: Person) -> None:
    kept = alice.browser.headers.pop(CSRF)
    try:
        answer = alice.browser.post("/auth/logout", headers={CSRF: b"\xff\xfe"})  # type: ignore[dict-item]
        assert (answer.status_code, code(answer)) == (403, "forged_request")
    finally:
        alice.browser.headers[CSRF] = kept


# ---- links


def made_by(person: Person, role: str = "trader") -> str:
    answer = person.http.post("/admin/invitations", json={"role": role})
    return answer.raise_for_status().json()["path"].partition("#")[2]


def test_a_link_is_as_good_as_who_made_it(stack: Stack) -> None:
    kim = join(stack, "kim", "admin")
    before = made_by(kim, "admin")
    stack.post(f"/admin/role/{kim.id}", json={"role": "trader"})
    answer = post(stack, {"token": before, "name": "late", "password": PASSWORD})
    assert (answer.status_code, code(answer)) == (404, "unknown_credential")
    kim.close()


def test_once_a_password_is_set_every_other_link_to_it_is_void(stack: Stack) -> None:
    lee = join(stack, "lee")
    first, second = (
        stack.post(f"/admin/reset/{lee.id}")["path"].partition("#")[2] for _ in range(2)
    )
    assert post(stack, {"token": first, "password": "the first password"}).status_code == 200
    taken = post(stack, {"token": second, "password": "the second password"})
    assert code(taken) == "unknown_credential"
    third = stack.post(f"/admin/reset/{lee.id}")["path"].partition("#")[2]
    stack.post(f"/admin/disable/{lee.id}")
    stack.post(f"/admin/enable/{lee.id}")
    assert code(post(stack, {"token": third, "password": PASSWORD})) == "unknown_credential"
    lee.close()


def test_a_link_lets_no_disabled_account_in(stack: Stack) -> None:
    mia = join(stack, "mia")
    stack.post(f"/admin/disable/{mia.id}")
    link = stack.post(f"/admin/reset/{mia.id}")["path"].partition("#")[2]
    assert code(post(stack, {"token": link, "password": PASSWORD})) == "unknown_credential"
    mia.close()


def test_an_older_setup_link_is_void(home: Path) -> None:
    stack = start_one_process(home)
    file = home / "data" / "setup-token"
    older = file.read_text()
    file.unlink()
    assert stack.stop() == [0]
    stack = start_one_process(home)
    newer = file.read_text()
    body = {"name": "root", "password": PASSWORD}
    assert code(post(stack, {**body, "token": older})) == "unknown_credential"
    assert post(stack, {**body, "token": newer}).status_code == 200
    assert stack.stop() == [0]


def test_a_deleted_local_token_is_void(home: Path) -> None:
    stack = start_one_process(home)
    lost = stack.token
    (home / "data" / "local-token").unlink()
    assert stack.stop() == [0]
    stack = start_one_process(home)
    assert stack.token != lost
    with stack.client(lost) as thief:
        assert code(thief.get("/python/")) == "not_signed_in"
    assert stack.stop() == [0]


# ---- time


def test_credentials_expire_by_the_clock(tmp_path: Path) -> None:
    async def scenario() -> None:
        database = Database(databases.migrated(tmp_path / "x.db"))
        now, mono = [NOW], [0.0]
        identities = Identities(database, clock=lambda: now[0], monotonic=lambda: mono[0])
        until = NOW + timedelta(days=1)
        async with database.write() as session:
            session.add(User(id="u1", name="u", name_key="u", role=Role.TRADER, created_at=NOW))
            session.add(
                ApiToken(
                    id="t1",
                    user_id="u1",
                    name="t",
                    token_hash=digest("obt_x"),
                    scopes=[Scope.READ],
                    created_at=NOW,
                    expires_at=until,
                )
            )
            session.add(
                LoginSession(
                    id="s1",
                    user_id="u1",
                    token_hash=digest("obs_x"),
                    address="",
                    agent="",
                    created_at=NOW,
                    seen_at=NOW,
                    expires_at=until,
                )
            )
        token = {b"authorization": b"Bearer obt_x"}
        cookie = {b"cookie": b"openbell_session=obs_x"}
        assert (await identities.caller(token)).scopes == {Scope.READ}
        assert (await identities.caller(cookie)).csrf == csrf_of("obs_x")
        now[0] = until
        for headers in (token, cookie):
            with pytest.raises(NotSignedIn, match="expired"):
                await identities.caller(headers)  # though it is remembered
        await database.close()

    asyncio.run(scenario())


# ---- the audit


REPLACED = (
    "INSERT INTO audit_entry SELECT * FROM audit_entry"
    " ON CONFLICT (id) DO UPDATE SET user_name = 'x'"
    if databases.ON_POSTGRES
    else "INSERT OR REPLACE INTO audit_entry SELECT * FROM audit_entry"
)


def test_the_database_itself_refuses_to_change_the_audit(tmp_path: Path) -> None:
    async def scenario() -> None:
        database = Database(databases.migrated(tmp_path / "x.db"))
        async with database.write() as session:
            session.add(
                AuditEntry(
                    at=NOW,
                    request="r",
                    user_id="u",
                    user_name="u",
                    credential="t",
                    address="",
                    action="stop",
                    outcome="done",
                )
            )
        for statement in (
            "UPDATE audit_entry SET user_name = 'x'",
            "DELETE FROM audit_entry",
            REPLACED,
        ):
            with pytest.raises((IntegrityError, DBAPIError), match="never changed"):
                async with database.write() as session:
                    await session.exec(text(statement))  # type: ignore[call-overload]
        await database.close()

    asyncio.run(scenario())


def test_every_change_is_audited_with_before_and_after(stack: Stack) -> None:
    hal, ivy = join(stack, "hal"), join(stack, "ivy")
    upload = hal.http.post(
        "/python/upload", data={"name": "A"}, files={"file": ("a.py", b"print(1)")}
    )
    strategy = upload.json()["strategy"]["id"]
    hal.http.post(f"/python/schedule/{strategy}", json={"kind": "always"}).raise_for_status()
    hal.http.delete(f"/python/schedule/{strategy}").raise_for_status()
    share = {"user": "ivy", "permission": "operator"}
    hal.http.post(f"/python/share/{strategy}", json=share).raise_for_status()
    ivy.http.post(f"/python/stop/{strategy}", params={"wait": 20}).raise_for_status()
    hal.http.delete(f"/python/delete/{strategy}", params={"stop": True}).raise_for_status()
    found = hal.http.get("/auth/audit", params={"strategy": strategy, "format": "jsonl"})
    entries = [json.loads(line) for line in found.text.splitlines()][::-1]
    told = [(one["user"], one["action"], one["outcome"]) for one in entries]
    assert told == [
        ("hal", "upload", "done"),
        ("hal", "set_schedule", "done"),
        ("hal", "remove_schedule", "done"),
        ("hal", "share", "done"),
        ("ivy", "stop", "requested"),
        ("ivy", "stop", "done"),
        ("hal", "delete", "requested"),
        ("hal", "delete", "done"),
    ]
    assert entries[1]["before"] is None
    assert entries[1]["after"]["kind"] == entries[2]["before"]["kind"] == "always"
    assert entries[3]["after"] == share
    assert {one["address"] for one in entries} == {"127.0.0.1"}
    assert len({one["request"] for one in entries}) == 6
    page = hal.http.get("/auth/audit", params={"strategy": strategy, "limit": 3}).json()
    older = hal.http.get(
        "/auth/audit", params={"strategy": strategy, "before": page["next_before"], "limit": 3}
    ).json()
    assert [one["action"] for one in page["entries"]] == ["delete", "delete", "stop"]
    assert [one["action"] for one in older["entries"]] == ["stop", "share", "remove_schedule"]
    assert ivy.http.get("/auth/audit", params={"user": "hal"}).json()["entries"] == []
    hal.close()
    ivy.close()


def test_what_was_refused_is_audited_with_its_reason(stack: Stack) -> None:
    jon = join(stack, "jon")
    source = b"import time\ntime.sleep(600)"
    upload = jon.http.post("/python/upload", files={"file": ("b.py", source)})
    strategy = upload.json()["strategy"]["id"]
    jon.http.post(f"/python/start/{strategy}", params={"wait": 20}).raise_for_status()
    assert code(jon.http.post(f"/python/start/{strategy}")) == "strategy_is_running"
    found = jon.http.get("/auth/audit", params={"strategy": strategy}).json()["entries"]
    assert found[0]["outcome"] == "strategy_is_running"
    stopped = jon.http.post("/python/stop-all").json()
    assert stopped["all_gone"] is True
    assert [(one["id"], one["gone"], one["was_running"]) for one in stopped["strategies"]] == [
        (strategy, True, True)
    ]
    jon.close()
