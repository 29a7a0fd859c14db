"""What each service may do on NATS, derived from what it answers, asks, tells and reads.

The services share one account. Each runner has an account of its own, which knows of nobody
else's subjects: a permission says where a user may publish, but not where the server sends the
answers to what it publishes. A runner that may report could have the acknowledgement sent to the
subject of an event. Between accounts, answers come back to the asker and nowhere else.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from openbell.bus import (
    ARTIFACTS,
    ARTIFACTS_STREAM,
    EVENTS,
    PRESENCE_STREAM,
    RUNNERS,
    STORED,
    inbox,
    presence,
)
from openbell.contracts.base import Event, RunnerAsks
from openbell.contracts.events import CalendarChanged, RunnerEvent
from openbell.contracts.logs import LogLines
from openbell.contracts.metrics import RunnerMetrics
from openbell.contracts.schema import command_types

ACCOUNT = "openbell"
RUNNER = "runner"
SERVICES = ("api", "scheduler", "calendar", "status")
"""Those that have one user each, however many replicas there are."""
STORE_KEEPER = "scheduler"
"""Makes the streams and buckets."""
TELL_EVENTS = frozenset({"api", "scheduler"})
READS = {
    "api": (ARTIFACTS_STREAM, PRESENCE_STREAM),
    "runner": (ARTIFACTS_STREAM,),
    "scheduler": (RUNNERS, PRESENCE_STREAM),
    "status": (EVENTS,),
}
"""The streams that a service reads by number."""
HEARS = {"api": (EVENTS,), "scheduler": (RUNNERS,), "status": (EVENTS,)}
"""The streams of whose messages a service hears once they are kept."""
STREAMS = (EVENTS, RUNNERS, PRESENCE_STREAM, ARTIFACTS_STREAM)
ANSWERS = {"max": 1, "expires": "2m"}
"""A service may answer each request once, wherever its asker wants it."""
API = "$JS.API"


@dataclass(frozen=True, slots=True)
class Rights:
    """All that a user may publish and subscribe to, and whether it may answer what it hears."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    answers: bool

    def as_permissions(self) -> dict[str, Any]:
        """As nats-server wants it. An empty list allows nothing."""
        permissions: dict[str, Any] = {
            "publish": {"allow": list(self.publish)},
            "subscribe": {"allow": list(self.subscribe)},
        }
        return permissions | {"allow_responses": ANSWERS} if self.answers else permissions


def user_of(service: str, runner: str) -> str:
    """The user as which a service logs in; `runner` is the id that a runner has."""
    return f"runner-{runner}" if service == RUNNER else service


def rights(service: str, runner: str = "*") -> Rights:
    """The least with which a service works; `runner` is the id that a runner has."""
    answered = tuple(
        kind.subject(runner if service == RUNNER else None)
        for kind in command_types()
        if kind.service == service
    )
    publish = (*_asked(service, runner), *_told(service, runner), *_stores(service, runner))
    heard = [f"{STORED}.{stream}.>" for stream in HEARS.get(service, ())]
    if service == "scheduler":
        heard += [presence(">"), CalendarChanged.SUBJECT]
    if service == "api":
        heard += [LogLines.subjects(), RunnerMetrics.subjects(), presence(">")]
    if publish:
        heard.append(f"{inbox(user_of(service, runner))}.>")
    return Rights(publish, (*answered, *heard), answers=bool(answered))


def _asked(service: str, runner: str) -> Iterable[str]:
    for kind in command_types():
        if service in kind.asked_by:
            to_one = kind.service == RUNNER or issubclass(kind, RunnerAsks)
            yield kind.subject(runner if to_one else None)


def _told(service: str, runner: str) -> Iterable[str]:
    if service in TELL_EVENTS:
        yield Event.subjects()
    if service == "calendar":
        yield CalendarChanged.SUBJECT
    if service == RUNNER:
        yield RunnerEvent.subjects(runner)
        yield LogLines.subjects(runner)
        yield RunnerMetrics.subjects(runner)
        yield presence(runner)


def _stores(service: str, runner: str) -> Iterable[str]:
    """What the methods of Bus ask of JetStream. No right to a consumer: there are none."""
    for stream in READS.get(service, ()):
        yield f"{API}.DIRECT.GET.{stream}"
        if stream in HEARS.get(service, ()):  # it follows it: openbell.feed
            yield f"{API}.STREAM.INFO.{stream}"
    if service in {RUNNER, "api"}:  # api seals to the key that a runner announces
        yield f"{API}.DIRECT.GET.{PRESENCE_STREAM}.{presence(runner)}"
    if service == "api":
        yield f"$O.{ARTIFACTS}.>"
        yield f"{API}.STREAM.MSG.GET.{ARTIFACTS_STREAM}"
        yield f"{API}.STREAM.PURGE.{ARTIFACTS_STREAM}"
    if service == STORE_KEEPER:
        for stream in STREAMS:
            yield f"{API}.STREAM.CREATE.{stream}"
            yield f"{API}.STREAM.UPDATE.{stream}"
        yield f"{API}.STREAM.INFO.{ARTIFACTS_STREAM}"


def users(runners: Iterable[str]) -> list[str]:
    return [*SERVICES, *(user_of(RUNNER, runner) for runner in runners)]


def accounts(passwords: Mapping[str, str], runners: Iterable[str]) -> dict[str, Any]:
    """The `accounts` of a nats.conf: every user with its password and its rights."""
    made: dict[str, Any] = {}
    for_runners: defaultdict[str, list[str]] = defaultdict(list)
    of_runners: list[dict[str, Any]] = []
    for runner in runners:
        name, its = user_of(RUNNER, runner), rights(RUNNER, runner)
        commands = [subject for subject in its.subscribe if not subject.startswith(inbox(name))]
        made[name] = {
            "users": [_user(name, passwords, its)],
            "exports": [_export(subject, [ACCOUNT]) for subject in commands],
            "imports": [_import(subject, ACCOUNT) for subject in its.publish],
        }
        of_runners += [_import(subject, name) for subject in commands]
        for subject in its.publish:
            for_runners[subject].append(name)
    made[ACCOUNT] = {
        "jetstream": "enabled",
        "users": [_user(name, passwords, rights(name)) for name in SERVICES],
        "exports": [_export(subject, names) for subject, names in for_runners.items()],
        "imports": of_runners,
    }
    return made


def _user(name: str, passwords: Mapping[str, str], its: Rights) -> dict[str, Any]:
    return {"user": name, "password": passwords[name], "permissions": its.as_permissions()}


def _export(subject: str, to: list[str]) -> dict[str, Any]:
    return {"service": subject, "accounts": to}


def _import(subject: str, of: str) -> dict[str, Any]:
    return {"service": {"account": of, "subject": subject}}
