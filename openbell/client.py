"""Speaks to a running Openbell over HTTP, for the command line."""

import contextlib
import json
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import httpx

FOLLOW_S = 15
RECONNECT_S = 1.0


class Unreachable(Exception):
    """Openbell does not answer."""


class Refused(Exception):
    """Openbell answered with a problem; the message is its own."""


class Client:
    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    def request(self, method: str, path: str, **options: Any) -> Any:
        """The answer as JSON values. Raises Unreachable, Refused."""
        try:
            response = self._http.request(method, path, **options)
        except httpx.TransportError as error:
            raise Unreachable(
                f"Openbell does not answer at {self._http.base_url}: {error}. Try: openbell up"
            ) from None
        if response.is_error:
            raise Refused(_problem(response))
        return response.json()

    def strategies(self) -> list[dict[str, Any]]:
        return self.request("GET", "/python/")["strategies"]

    def find(self, name: str) -> dict[str, Any]:
        """The strategy with this id or name. Raises Refused."""
        for strategy in self.strategies():
            if name in {strategy["id"], strategy["name"]} or (
                name.casefold() == strategy["name"].casefold()
            ):
                return strategy
        raise Refused(f"there is no strategy {name!r}; `openbell ls` lists yours")

    def upload(self, file: Path, form: dict[str, str]) -> dict[str, Any]:
        files = {"file": (file.name, file.read_bytes())}
        return self.request("POST", "/python/upload", files=files, data=form)

    def act(self, verb: str, strategy_id: str, *, wait: float) -> dict[str, Any]:
        params = {"wait": wait} if wait else {}
        return self.request("POST", f"/python/{verb}/{strategy_id}", params=params)

    def log(self, strategy_id: str, run_id: str | None, *, follow: bool) -> Iterator[str]:
        """The end of a log, and what is added to it until the run ends."""
        params: dict[str, Any] = {"run": run_id} if run_id else {}
        while True:
            chunk = self.request("GET", f"/python/logs/{strategy_id}", params=params)
            yield chunk["content"]
            if not follow or (chunk["ended"] and chunk["next_offset"] >= chunk["size"]):
                return
            params = {"run": chunk["run_id"], "offset": chunk["next_offset"], "wait": FOLLOW_S}

    def events(self, *, resume: bool = True) -> Iterator[tuple[str, dict[str, Any]]]:
        """What happens. A lost connection is resumed where it ended, or is the end."""
        last_id = ""
        while True:
            headers = {"Last-Event-ID": last_id} if last_id else {}
            try:
                with self._http.stream("GET", "/python/events", headers=headers) as response:
                    if response.is_error:
                        response.read()
                        raise Refused(_problem(response))
                    for event in _events(response.iter_lines()):
                        last_id = event.get("id", last_id)
                        yield event["event"], json.loads(event["data"])
            except httpx.TransportError as error:
                if not (last_id and resume):
                    raise Unreachable(f"Openbell does not answer: {error}") from None
            if not resume:
                return
            time.sleep(RECONNECT_S)


@contextlib.contextmanager
def connect(url: str) -> Generator[Client]:
    with httpx.Client(base_url=url, timeout=75) as http:
        yield Client(http)


def _problem(response: httpx.Response) -> str:
    try:
        problem: dict[str, Any] = response.json()
    except ValueError:
        return f"{response.status_code} {response.reason_phrase}"
    return f"{problem.get('title', 'refused')}: {problem.get('detail', '')}".rstrip(": ")


def _events(lines: Iterator[str]) -> Iterator[dict[str, str]]:
    event: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(": ")
            event[name] = value
        elif "data" in event:
            yield event
            event = {}
