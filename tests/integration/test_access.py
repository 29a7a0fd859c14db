"""A user sees and touches only their own strategies: every route, every event, with two users.

Routes and events are found, not listed: a new one is covered without touching this file. One that
has a new kind of path parameter is told so by `test_every_path_parameter_is_known`.
"""

import re
import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, cast

import httpx
import pytest

from services.api.service import create_app
from tests.fixtures.people import Person, join
from tests.fixtures.stack import Stack, eventually

MARK = "canary7f3"
"""In everything that alice has: bob must never read it."""
SCRIPT = f"""
import os, time
print("{MARK} is what it says", flush=True)
while True:
    time.sleep(60)
"""
OPEN = {
    ("POST", "/auth/login"),
    ("POST", "/auth/link"),
    ("POST", "/auth/accept"),
    ("GET", "/healthz"),
}
"""What answers who is not signed in."""
EVERYBODYS = {"/calendar/{exchange}.ics", "/calendar/overrides/{exchange}/{day}"}
"""What is nobody's own: all may read it, and admins change it."""
SAME = re.compile(r"[a-z0-9-]*-[a-z0-9]{6}|[a-z][0-9a-f]{16}")


def routes() -> Iterator[tuple[str, str]]:
    for path, methods in create_app(cast("Any", None)).openapi()["paths"].items():
        for method in methods:
            yield method.upper(), path


ROUTES = sorted(routes())
ON_STRATEGY = [one for one in ROUTES if "{strategy_id}" in one[1]]
OTHERS = [one for one in ROUTES if one not in ON_STRATEGY]
NAMING = [one for one in OTHERS if one[0] == "GET" or "{" in one[1]]
"""Without those that act on the caller alone: nothing of another can be named to them."""
assert len(ON_STRATEGY) > 10


@dataclass
class World:
    stack: Stack
    alice: Person
    bob: Person
    strategy: str
    """Alice's, running."""

    def path(self, template: str) -> str:
        """With what is alice's in the place of every parameter."""
        return template.format_map(
            {
                "strategy_id": self.strategy,
                "run_id": f"{self.strategy}-1",
                "session_id": self.alice.browser.get("/auth/sessions").json()["sessions"][0]["id"],
                "token_id": self.alice.http.get("/auth/tokens").json()["tokens"][0]["id"],
                "user_id": self.alice.id,
                "invitation_id": self.invitation,
                "exchange": "NSE",
                "day": "2026-12-23",
            }
        )

    @property
    def invitation(self) -> str:
        return self.stack.post("/admin/invitations", json={"role": "viewer"})["id"]


@pytest.fixture(scope="module")
def world(stack: Stack) -> Generator[World]:
    alice, bob = join(stack, f"alice-{MARK}"), join(stack, "bob")
    answer = alice.http.post(
        "/python/upload",
        data={"name": f"Of Alice {MARK}", "parameters": f'{{"{MARK.upper()}": "1"}}'},
        files={"file": ("script.py", SCRIPT.encode())},
    )
    assert answer.status_code == 201, answer.text
    strategy = answer.json()["strategy"]["id"]
    alice.http.post(f"/python/start/{strategy}", params={"wait": 20}).raise_for_status()
    eventually(
        lambda: MARK in alice.http.get(f"/python/logs/{strategy}").text or None,
        lambda: "no log",
    )
    yield World(stack, alice, bob, strategy)
    alice.http.delete(f"/python/delete/{strategy}", params={"stop": True}).raise_for_status()
    alice.close()
    bob.close()


def test_every_path_parameter_is_known(world: World) -> None:
    for _, path in ROUTES:
        world.path(path)


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_who_is_not_signed_in_gets_nothing(world: World, method: str, path: str) -> None:
    with world.stack.client() as nobody:
        answer = nobody.request(method, world.path(path))
    if (method, path) in OPEN:
        assert answer.status_code in {200, 422}
    else:
        assert (answer.status_code, answer.json()["code"]) == (401, "not_signed_in")


@pytest.mark.parametrize(("method", "path"), ON_STRATEGY)
def test_a_strategy_of_another_is_unknown(world: World, method: str, path: str) -> None:
    """Just as one that does not exist, whatever is sent."""
    foreign = world.bob.http.request(method, world.path(path))
    missing = world.bob.http.request(
        method, path.format(strategy_id="no-such-abc123", run_id="no-such-abc123-1")
    )
    assert foreign.status_code == 404, foreign.text
    assert foreign.headers["content-type"] == "application/problem+json"
    assert SAME.sub("", foreign.text) == SAME.sub("", missing.text)
    assert MARK not in foreign.text.replace(world.strategy, "")


@pytest.mark.parametrize(("method", "path"), NAMING)
def test_no_other_route_tells_or_touches_what_is_anothers(
    world: World, method: str, path: str
) -> None:
    answer = world.bob.http.request(method, world.path(path))
    assert MARK not in answer.text
    if path.startswith("/admin/") or (path in EVERYBODYS and method != "GET"):
        assert answer.json()["code"] == "not_allowed"
    elif path in EVERYBODYS:
        assert answer.status_code == 200, answer.text
    elif "{" in path:
        assert answer.status_code == 404, answer.text
    view = world.alice.http.get(f"/python/status/{world.strategy}").json()
    assert view["status"] == "running"


def needed_scope(method: str, path: str) -> str:
    """Reading reads; what an owner may hand to an operator operates; all else edits."""
    operating = ("start", "stop", "restart", "resume")
    if method == "GET":
        return "read"
    return "operate" if path.split("/")[2] in operating else "edit"


@pytest.mark.parametrize("scope", ["read", "operate", "edit", "admin"])
def test_a_token_does_what_its_scopes_say(world: World, scope: str) -> None:
    """A wrong body is refused after the scope was found to be enough."""
    made = world.alice.http.post("/auth/tokens", json={"name": scope, "scopes": [scope]}).json()
    with world.stack.client(made["value"]) as program:
        for method, path in ON_STRATEGY:
            if needed_scope(method, path) != scope:
                answer = program.request(method, world.path(path))
                assert answer.json()["code"] == "not_allowed", (method, path)
        if scope == "read":
            assert program.get(f"/python/status/{world.strategy}").status_code == 200
        reads = program.get("/python/"), program.get("/python/events") if scope != "read" else None
        for answer in filter(None, reads):
            assert (answer.status_code == 200) == (scope == "read")
        if scope != "admin":
            assert program.get("/auth/tokens").json()["code"] == "not_allowed"
            more = program.post("/auth/tokens", json={"name": "x", "scopes": ["edit"]})
            assert more.json()["code"] == "not_allowed"


def test_events_of_others_never_come(world: World) -> None:
    """What a restart and a schedule of alice's tell; bob, who listens, hears only his own."""
    stack, alice, bob = world.stack, world.alice, world.bob
    mine = bob.http.post(
        "/python/upload",
        data={"name": "Of Bob"},
        files={"file": ("script.py", SCRIPT.encode())},
    ).json()["strategy"]["id"]
    with stack.events(token=bob.token) as heard, stack.events(token=alice.token) as theirs:
        assert next(heard)[1] == next(theirs)[1] == "hello"
        alice.http.post(f"/python/restart/{world.strategy}", params={"wait": 20})
        alice.http.post(f"/python/schedule/{world.strategy}", json={"kind": "always"})
        alice.http.delete(f"/python/schedule/{world.strategy}")
        bob.http.delete(f"/python/delete/{mine}").raise_for_status()
        told: dict[str, Any] = {}
        for _, kind, data in theirs:
            told[kind] = data
            if kind == "schedule_removed":
                break
        assert {"run_started", "run_exited", "schedule_changed"} <= set(told)
        for _, kind, data in heard:
            assert data.get("owner", bob.id) == bob.id, kind
            if kind == "strategy_deleted":
                break


def test_what_is_shared_is_seen_and_no_more(world: World) -> None:
    stack, alice, bob = world.stack, world.alice, world.bob
    share = f"/python/share/{world.strategy}"
    alice.http.post(share, json={"user": "bob", "permission": "viewer"}).raise_for_status()
    listed = bob.http.get("/python/").json()["strategies"]
    assert [(one["id"], one["access"]) for one in listed] == [(world.strategy, "viewer")]
    assert MARK in bob.http.get(f"/python/logs/{world.strategy}").text
    stop = bob.http.post(f"/python/stop/{world.strategy}")
    assert (stop.status_code, stop.json()["code"]) == (403, "not_allowed")
    with stack.events(token=bob.token) as heard:
        assert next(heard)[1] == "hello"
        alice.http.post(share, json={"user": "bob", "permission": "operator"}).raise_for_status()
        bob.http.post(f"/python/restart/{world.strategy}", params={"wait": 20}).raise_for_status()
        for _, kind, data in heard:
            if kind == "run_started":
                assert data["strategy_id"] == world.strategy
                break
        edit = bob.http.delete(f"/python/delete/{world.strategy}", params={"stop": True})
        assert edit.json()["code"] == "not_allowed"
        alice.http.delete(share, params={"user": "bob"}).raise_for_status()
        assert bob.http.get(f"/python/status/{world.strategy}").status_code == 404
        assert bob.http.get("/python/").json()["strategies"] == []
        alice.http.post(f"/python/restart/{world.strategy}", params={"wait": 20}).raise_for_status()
        bob.http.post("/auth/tokens", json={"name": "last", "scopes": ["read"]}).raise_for_status()
        token = bob.http.get("/auth/tokens").json()["tokens"][-1]["id"]
        bob.http.delete(f"/auth/tokens/{token}").raise_for_status()
        kinds: list[str] = []
        for _, kind, _ in heard:
            kinds.append(kind)
            if kinds.count("access_changed") == 2:  # the share that ended, and the token's end
                break
        assert "run_started" not in kinds


def test_a_log_is_followed_no_longer_than_it_may_be_read(world: World) -> None:
    """Though the request was let in while it was shared."""
    alice, bob = world.alice, world.bob
    share, log = f"/python/share/{world.strategy}", f"/python/logs/{world.strategy}"
    alice.http.post(share, json={"user": "bob", "permission": "viewer"}).raise_for_status()
    end = bob.http.get(log).json()["next_offset"]
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(bob.http.get, log, params={"offset": end, "wait": 20})
        time.sleep(0.5)
        alice.http.delete(share, params={"user": "bob"}).raise_for_status()
        answer = following.result(5)
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_strategy")


def test_an_admin_sees_all_and_the_owner_can_tell(world: World) -> None:
    stack, alice = world.stack, world.alice
    assert MARK not in stack.http.get("/python/").text
    everything = stack.http.get("/python/", params={"everybody": True}).json()["strategies"]
    assert (world.strategy, "admin") in [(one["id"], one["access"]) for one in everything]
    assert MARK in stack.http.get(f"/python/logs/{world.strategy}").text
    entries = alice.http.get("/auth/audit", params={"strategy": world.strategy}).json()["entries"]
    looks = [one for one in entries if one["user"] == "local"]
    assert "logs" in {one["action"] for one in looks}


def test_an_admin_scope_alone_reads_and_stops_nothing(stack: Stack) -> None:
    made = stack.post("/auth/tokens", json={"name": "a", "scopes": ["admin"]})
    with stack.client(made["value"]) as program:
        for method, path in (
            ("GET", "/python/?everybody=true"),
            ("GET", "/python/events?everybody=true"),
            ("GET", "/admin/audit"),
            ("POST", "/admin/stop-all"),
        ):
            assert program.request(method, path).json()["code"] == "not_allowed", path
        assert program.get("/admin/users").status_code == 200


def test_a_share_with_who_was_disabled_can_be_ended(world: World) -> None:
    stack, alice = world.stack, world.alice
    nina = join(stack, "nina")
    share = f"/python/share/{world.strategy}"
    alice.http.post(share, json={"user": "nina"}).raise_for_status()
    stack.post(f"/admin/disable/{nina.id}")
    assert alice.http.delete(share, params={"user": "nina"}).json() == {"shares": []}
    nina.close()


def test_a_viewer_owns_nothing(stack: Stack) -> None:
    viewer = join(stack, "vera", "viewer")
    answer = viewer.http.post("/python/upload", files={"file": ("s.py", b"print(1)")})
    assert (answer.status_code, answer.json()["code"]) == (403, "not_allowed")
    assert "role trader" in answer.json()["detail"]
    viewer.close()


def test_watching_everybody_is_for_admins_and_audited(world: World) -> None:
    url = f"{world.stack.events_url}/python/events?everybody=true"
    bearer = {"Authorization": f"Bearer {world.bob.token}"}
    assert httpx.get(url, headers=bearer).json()["code"] == "not_allowed"
    bearer = {"Authorization": f"Bearer {world.stack.token}"}
    with httpx.stream("GET", url, headers=bearer, timeout=20) as answer:
        assert answer.status_code == 200
    entries = world.stack.http.get("/admin/audit", params={"action": "events"}).json()["entries"]
    assert entries[0]["user"] == "local"
