"""Logs through the whole product: followed, resumed, searched, downloaded, cleared, capped."""

import contextlib
import gzip
import json
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fixtures.logs import disk_bytes
from tests.fixtures.people import join
from tests.fixtures.stack import PATIENCE_S, Stack, end_all, eventually, start_one_process

KEY = "kite-live-0a1b2c3d"
TALKER = """
import os, pathlib, time
done = 0
print("up", flush=True)
while True:
    orders = sorted(pathlib.Path("orders").glob("*")) if os.path.isdir("orders") else []
    for order in orders[done:]:
        exec(order.read_text())
        done += 1
    time.sleep(0.01)
"""
CAP = 65_536
Event = tuple[str, str, Any]


class Talker:
    """A strategy that does what it is told, line by line."""

    def __init__(self, stack: Stack, name: str, **form: Any) -> None:
        self.stack = stack
        self.id = stack.upload(TALKER, name, restart="never", **form)
        stack.post(f"/python/start/{self.id}", params={"wait": 20})
        self.run = f"{self.id}-1"
        self._orders = stack.home / "strategies" / self.id / "orders"
        self._count = 0
        stack.wait_log(self.id, "up\n")

    def does(self, code: str) -> None:
        draft = self._orders.with_name("draft")
        self._orders.mkdir(exist_ok=True)
        draft.write_text(code)
        draft.rename(self._orders / f"{self._count:06}")
        self._count += 1

    def says(self, text: str) -> None:
        self.does(f"print({text!r}, flush=True)")

    def ends(self) -> None:
        self.does("raise SystemExit")
        self.stack.wait_status(self.id, "stopped")

    def get(self, what: str = "", **params: Any) -> httpx.Response:
        return self.stack.http.get(f"/python/logs/{self.id}{what}", params=params)

    @property
    def file(self) -> Path:
        return self.stack.home / "log" / "strategies" / self.id / f"{self.run}.log"

    @contextlib.contextmanager
    def stream(
        self, last_id: str = "", token: str | None = None, **params: Any
    ) -> Generator[Iterator[Event]]:
        headers = {"Authorization": f"Bearer {token or self.stack.token}"}
        headers |= {"Last-Event-ID": last_id} if last_id else {}
        url = f"{self.stack.url}/python/logs/{self.id}/stream"
        with httpx.stream(
            "GET", url, headers=headers, params=params, timeout=PATIENCE_S
        ) as response:
            assert response.status_code == 200
            yield _events(response.iter_lines())


def _events(lines: Iterator[str]) -> Iterator[Event]:
    event: dict[str, str] = {}
    for line in lines:
        if line.startswith(":"):
            continue
        if line:
            name, _, value = line.partition(": ")
            event[name] = value
        elif event:
            yield event.get("id", ""), event["event"], json.loads(event["data"])
            event = {}


def until(events: Iterator[Event], text: str) -> tuple[str, str]:
    """What is told up to this text, and where to go on."""
    told = ""
    for last_id, kind, data in events:
        assert kind == "lines", (kind, data)
        assert data["next_offset"] - data["offset"] == len(data["content"].encode())
        told += data["content"]
        if text in told:
            return told, last_id
    raise AssertionError(told)


@pytest.fixture(scope="module")
def capped(tmp_path_factory: pytest.TempPathFactory) -> Generator[Stack]:
    folder = tmp_path_factory.mktemp("logs") / "home"
    try:
        stack = start_one_process(folder, OPENBELL_LOG__CAP_BYTES=str(CAP))
        yield stack
        assert stack.stop() == [0]
    finally:
        end_all(folder)


def test_a_log_is_followed_resumed_and_ends_with_its_run(capped: Stack) -> None:
    talker = Talker(capped, "Followed", secrets={"K": KEY})
    with talker.stream() as events, talker.stream() as others:
        assert until(events, "up\n")[0] == until(others, "up\n")[0] == "up\n"
        talker.says(f"one {KEY} ₹")
        told, resume_at = until(events, "₹\n")
        assert told == f"one {'*' * len(KEY)} ₹\n" == until(others, "₹\n")[0]
        talker.says("two")
        assert until(others, "two\n")[0] == "two\n"
    with talker.stream(resume_at) as events:
        assert until(events, "two\n")[0] == "two\n"
        talker.does("import sys; sys.stdout.write('half ' + 'kite-live-'); sys.stdout.flush()")
        assert until(events, "half ")[0] == "half "
        talker.says("0a1b2c3d whole")
        assert until(events, "whole\n")[0] == f"{'*' * len(KEY)} whole\n"
        talker.ends()
        assert next(events)[1] == "ended"
        assert list(events) == []
    with talker.stream(offset=0) as events:
        told, _ = until(events, "whole\n")
        assert told.startswith("up\none ")
        assert next(events)[1] == "ended"


def test_a_secret_that_is_set_while_a_log_is_followed_is_masked_from_then_on(
    capped: Stack,
) -> None:
    talker = Talker(capped, "Changing")
    with talker.stream() as events:
        until(events, "up\n")
        capped.post(f"/python/env/{talker.id}", json={"secrets": {"NEW": "new-secret-1"}})
        talker.says("is new-secret-1 seen")
        assert until(events, "seen\n")[0] == f"is {'*' * 12} seen\n"
    capped.post(f"/python/stop/{talker.id}", params={"wait": 20})


def test_a_stream_ends_when_its_reader_may_read_no_longer(capped: Stack) -> None:
    talker, bob = Talker(capped, "Shared"), join(capped, "bob")
    share = f"/python/share/{talker.id}"
    capped.post(share, json={"user": "bob", "permission": "viewer"})
    with talker.stream(token=bob.token) as events:
        until(events, "up\n")
        capped.http.delete(share, params={"user": "bob"}).raise_for_status()
        talker.says("not for bob")
        kinds = [kind for _, kind, _ in events]
        assert kinds == ["closed"]
    refused = bob.http.get(f"/python/logs/{talker.id}/stream")
    assert refused.json()["code"] == "unknown_strategy"
    token = capped.post("/auth/tokens", json={"name": "t", "scopes": ["read"]})
    with talker.stream(token=token["value"]) as events:
        until(events, "not for bob\n")
        made = capped.http.get("/auth/tokens").json()["tokens"]
        (number,) = [one["id"] for one in made if one["name"] == "t"]
        capped.http.delete(f"/auth/tokens/{number}").raise_for_status()
        assert [kind for _, kind, _ in events] == ["closed"]
    bob.close()
    capped.post(f"/python/stop/{talker.id}", params={"wait": 20})


def test_a_script_that_cuts_its_log_resets_who_reads_it(capped: Stack) -> None:
    talker = Talker(capped, "Cutting")
    talker.says("before")
    with talker.stream() as events:
        _, last_id = until(events, "before\n")
        talker.does("import os; os.ftruncate(1, 0); print('anew', flush=True)")
        _, kind, _ = next(events)
        assert kind == "reset"
        assert until(events, "anew\n")[0] == "anew\n"
    with talker.stream(last_id) as events:
        assert next(events)[1] == "reset"
        assert until(events, "anew\n")[0] == "anew\n"
    view = talker.get(offset=6, generation=0).json()
    assert (view["reset"], view["generation"], view["content"]) == (True, 1, "anew\n")
    capped.post(f"/python/stop/{talker.id}", params={"wait": 20})


@pytest.mark.skipif(sys.platform != "linux", reason="holes are Linux's")
def test_a_capped_log_is_read_searched_downloaded_and_cleared(capped: Stack) -> None:
    talker = Talker(capped, "Long", secrets={"K": KEY})
    talker.does(f"for n in range(20000): print('line', n, {KEY!r})")
    talker.says("through")
    capped.wait_log(talker.id, "through\n")
    wanted = "up\n" + "".join(f"line {n} {'*' * len(KEY)}\n" for n in range(20_000)) + "through\n"
    eventually(
        lambda: disk_bytes(talker.file) <= 3 * CAP or None,
        lambda: f"{disk_bytes(talker.file)} bytes are held",
    )
    body = talker.get("/download").content
    assert gzip.decompress(body).decode() == wanted
    at = wanted.index("line 17 ")
    assert talker.get(offset=at, limit=12).json()["content"] == wanted[at : at + 12]
    found = talker.get("/search", text="line 17 ").json()
    assert found["hits"] == [{"offset": at, "line": f"line 17 {'*' * len(KEY)}"}]
    assert talker.get("/search", text=KEY[:9]).json()["hits"] == []
    newest = talker.get("/search", text=r"^LINE \d+5 ", regex=True, ignore_case=True, limit=2)
    assert [hit["line"].split()[1] for hit in newest.json()["hits"]] == ["19995", "19985"]
    refused = talker.get("/search", text="(", regex=True)
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "text")

    cleared = capped.http.delete(f"/python/logs/{talker.id}", params={"run": talker.run})
    assert "goes on" in cleared.json()["note"]
    view = talker.get(offset=0).json()
    assert (view["content"], view["first"], view["offset"]) == ("", len(wanted), len(wanted))
    assert KEY.encode() not in talker.file.read_bytes()
    with talker.stream() as events:
        where = next(events)[2]
        assert where["content"] == ""
        assert where["first"] == where["offset"] == where["next_offset"] == len(wanted)
        talker.says("after")
        assert until(events, "after\n")[0] == "after\n"
    assert until_text(talker, "after\n") == "after\n"
    talker.ends()
    (run,) = capped.http.get(f"/python/runs/{talker.id}").json()
    assert (run["log_size"], run["log_first"]) == (len(wanted) + 6, len(wanted))
    capped.http.delete(f"/python/logs/{talker.id}", params={"run": talker.run}).raise_for_status()
    assert talker.get().json()["code"] == "log_gone"
    assert list(talker.file.parent.iterdir()) == []
    audit = capped.http.get("/auth/audit", params={"action": "clear_log"}).json()["entries"]
    assert [one["outcome"] for one in audit] == ["done", "requested"] * 2


def until_text(talker: Talker, text: str) -> str:
    return eventually(
        lambda: content if text in (content := talker.get(offset=0).json()["content"]) else None,
        lambda: talker.get(offset=0).text,
    )


@pytest.mark.skipif(sys.platform != "linux", reason="holes are Linux's")
def test_after_a_kill_live_logs_are_found_again_and_their_caps_hold(home: Path) -> None:
    settings = {
        "OPENBELL_LOG__CAP_BYTES": str(CAP),
        "OPENBELL_RUNNER__STOP_STRATEGIES_ON_EXIT": "true",
    }
    stack = start_one_process(home, **settings)
    talker = Talker(stack, "Survivor")
    talker.does("for n in range(30000): print('line', n)")
    stack.kill()
    again = start_one_process(home, **settings)
    talker.stack = again
    talker.says("through")
    again.wait_log(talker.id, "through\n")
    wanted = "up\n" + "".join(f"line {n}\n" for n in range(30_000)) + "through\n"
    eventually(
        lambda: disk_bytes(talker.file) <= 3 * CAP or None,
        lambda: f"{disk_bytes(talker.file)} bytes are held",
    )
    assert gzip.decompress(talker.get("/download").content).decode() == wanted
    talker.ends()
    assert again.stop() == [0]
