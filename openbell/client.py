"""Speaks to a running Openbell over HTTP, for the command line."""

import contextlib
import json
import re
import time
import urllib.parse
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import httpx

from openbell import credentials
from openbell.credentials import NOBODY, Credential

RECONNECT_S = 1.0
MOST_TRIES = 30
CSRF_COOKIE, CSRF_HEADER = "openbell_csrf", "X-Openbell-CSRF"
NOT_SIGNED_IN, UNKNOWN = "not_signed_in", "unknown_strategy"
ID = re.compile(r"[a-z0-9][a-z0-9-]*")


class Unreachable(Exception):
    """Openbell does not answer."""


class Refused(Exception):
    """Openbell answered with a problem; the message is its own."""

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class Client:
    def __init__(self, http: httpx.Client, credential: Credential = NOBODY) -> None:
        self._http = http
        self._credential = credential

    def request(self, method: str, path: str, **options: Any) -> Any:
        """The answer as JSON values. Raises Unreachable, Refused."""
        try:
            response = self._http.request(method, path, **options)
        except httpx.TransportError as error:
            raise self._unreachable(error) from None
        if not response.is_success:
            raise self._refused(response)
        try:
            return response.json()
        except ValueError:
            raise self._refused(response) from None

    def export(self, path: str, params: dict[str, Any]) -> Iterator[bytes]:
        """A long answer, piece by piece. Raises Unreachable, Refused."""
        try:
            with self._http.stream("GET", path, params=params) as response:
                if not response.is_success:
                    response.read()
                    raise self._refused(response)
                yield from response.iter_bytes()
        except httpx.TransportError as error:
            raise self._unreachable(error) from None

    @contextlib.contextmanager
    def signed_in(self, name: str, password: str) -> Generator[None]:
        """A session, as a browser has it, and its end. Raises Unreachable, Refused."""
        self.request("POST", "/auth/login", json={"name": name, "password": password})
        self._http.headers[CSRF_HEADER] = self._http.cookies.get(CSRF_COOKIE) or ""
        try:
            yield
        finally:
            with contextlib.suppress(Unreachable, Refused):
                self.request("POST", "/auth/logout")

    def strategies(self, *, everybody: bool = False) -> list[dict[str, Any]]:
        params = {"everybody": True} if everybody else {}
        return self.request("GET", "/python/", params=params)["strategies"]

    def find(self, name: str) -> dict[str, Any]:
        """The strategy with this id or name; of several, the caller's own. Raises Refused."""
        strategies = self.strategies()
        named = [one for one in strategies if one["name"].casefold() == name.casefold()]
        own = [one for one in named if one["access"] == "owner"]
        found = [one for one in strategies if one["id"] == name] or own or named
        if len(found) > 1:
            ids = ", ".join(one["id"] for one in found)
            raise Refused(f"several strategies are called {name!r}; give an id: {ids}")
        return found[0] if found else self._of_another(name)

    def _of_another(self, name: str) -> dict[str, Any]:
        """One that an admin knows by its id."""
        try:
            if ID.fullmatch(name):
                return self.request("GET", f"/python/status/{name}")
        except Refused as error:
            if error.code != UNKNOWN:
                raise
        raise Refused(f"there is no strategy {name!r}; `openbell ls` lists yours", UNKNOWN)

    def upload(self, file: Path, form: dict[str, str]) -> dict[str, Any]:
        files = {"file": (file.name, file.read_bytes())}
        return self.request("POST", "/python/upload", files=files, data=form)

    def act(self, verb: str, strategy_id: str, *, wait: float) -> dict[str, Any]:
        params = {"wait": wait} if wait else {}
        return self.request("POST", f"/python/{verb}/{strategy_id}", params=params)

    def log(self, strategy_id: str, run_id: str | None, *, follow: bool) -> Iterator[str]:
        """The end of a log, and what is added to it until the run ends."""
        path = f"/python/logs/{strategy_id}"
        params: dict[str, Any] = {"run": run_id} if run_id else {}
        view = self.request("GET", path, params=params)
        yield view["content"]
        if follow:
            last_id = f"{view['generation']}-{view['next_offset']}"
            for kind, data in self.followed_log(path, {"run": view["run_id"]}, last_id):
                if kind == "lines":
                    yield data["content"]

    def followed_log(
        self, path: str, params: dict[str, Any], last_id: str
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """What is added to a log from there on, until its run ends. A lost connection is resumed.

        Raises Unreachable, Refused.
        """
        tries = 0
        while True:
            headers = {"Last-Event-ID": last_id}
            try:
                with self._http.stream(
                    "GET", f"{path}/stream", params=params, headers=headers
                ) as response:
                    if not response.is_success:
                        response.read()
                        raise self._refused(response)
                    for event in _events(response.iter_lines()):
                        last_id, tries = event.get("id", last_id), 0
                        if event["event"] == "ended":
                            return
                        yield event["event"], json.loads(event["data"])
            except httpx.TransportError as error:
                tries += 1
                if tries > MOST_TRIES:
                    raise self._unreachable(error) from None
            time.sleep(RECONNECT_S)

    def events(self, *, resume: bool = True) -> Iterator[tuple[str, dict[str, Any]]]:
        """What happens. A lost connection is resumed where it ended, or is the end."""
        last_id = ""
        while True:
            headers = {"Last-Event-ID": last_id} if last_id else {}
            try:
                with self._http.stream("GET", "/python/events", headers=headers) as response:
                    if not response.is_success:
                        response.read()
                        raise self._refused(response)
                    for event in _events(response.iter_lines()):
                        last_id = event.get("id", last_id)
                        yield event["event"], json.loads(event["data"])
            except httpx.TransportError as error:
                if not (last_id and resume):
                    raise self._unreachable(error) from None
            if not resume:
                return
            time.sleep(RECONNECT_S)

    def _unreachable(self, error: httpx.TransportError) -> Unreachable:
        at = self._http.base_url
        return Unreachable(f"Openbell does not answer at {at}: {error}. Try: openbell up")

    def _refused(self, response: httpx.Response) -> Refused:
        """In the API's own words, and what to do about a token that it does not take."""
        try:
            problem: dict[str, Any] = response.json()
            code, title = problem["code"], problem["title"]
        except (ValueError, KeyError, TypeError):
            where = response.headers.get("location", "")
            what = f"{response.status_code} {response.reason_phrase} {where}".rstrip()
            return Refused(f"{self._http.base_url} answered {what}: is that an Openbell?")
        words = [title, problem.get("detail", "")]
        if code == NOT_SIGNED_IN:
            words = [*(words if self._credential.value else [title]), self._credential.hint]
        return Refused(": ".join(filter(None, words)), code)


@contextlib.contextmanager
def connect(url: str, credential: Credential | None = None) -> Generator[Client]:
    """As whoever `credential` tells; by default the one that there is for this address.

    What is for this machine passes no proxy. Raises BadCredentials.
    """
    sent = credentials.find(url) if credential is None else credential
    proxied = not credentials.is_local(url)
    with httpx.Client(base_url=url, timeout=75, headers=sent.headers, trust_env=proxied) as http:
        yield Client(http, sent)


def quoted(word: str) -> str:
    """As one part of a path."""
    return urllib.parse.quote(word, safe="")


def _events(lines: Iterator[str]) -> Iterator[dict[str, str]]:
    event: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(": ")
            event[name] = value
        elif "data" in event:
            yield event
            event = {}
