"""Who is asked to lock an environment, and what becomes of the answers."""

import asyncio
from typing import Any, cast

import pytest

from openbell.contracts.commands import LockedEnvironment, LockEnvironment
from openbell.contracts.errors import (
    EnvironmentRefused,
    NoAnswer,
    OpenbellError,
    ServiceUnavailable,
    UnknownPython,
)
from services.api import environments as module
from services.api.environments import Environment, locked
from services.api.requirements import FILE, Wanted

LOCKED = LockedEnvironment(python="3.12", lock="rich==14.0\n", packages=1)
WANTED = Wanted(requirements=("rich",), field=FILE)


class Runners:
    """A bus on which each runner gives its answer."""

    def __init__(self, **answers: LockedEnvironment | OpenbellError) -> None:
        self.answers = answers
        self.asked: list[str] = []

    async def request(
        self, command: LockEnvironment, target: str, *, timeout_s: float
    ) -> LockedEnvironment:
        assert timeout_s <= module.LOCK_S
        self.asked.append(target)
        answer = self.answers[target]
        if isinstance(answer, OpenbellError):
            raise answer
        return answer

    def lock(self, wanted: Wanted = WANTED) -> Environment:
        return asyncio.run(locked(cast("Any", self), lambda: list(self.answers), wanted))


def test_what_names_nothing_asks_nobody() -> None:
    assert Runners().lock(Wanted()) == Environment()


def test_the_first_that_can_locks_it() -> None:
    runners = Runners(
        a=UnknownPython("there is 3.11.2"),
        b=ServiceUnavailable("its index is away"),
        c=LOCKED,
        d=LOCKED,
    )
    made = runners.lock()
    assert (made.lock, made.python, made.packages) == (b"rich==14.0\n", "3.12", 1)
    assert runners.asked == ["a", "b", "c"]


def test_what_is_impossible_on_one_is_asked_of_no_other() -> None:
    runners = Runners(a=EnvironmentRefused("no such package"), b=LOCKED)
    with pytest.raises(EnvironmentRefused, match="no such package") as refused:
        runners.lock()
    assert refused.value.errors == [{"field": "file", "message": "no such package"}]
    assert runners.asked == ["a"]


def test_a_python_that_none_has_is_told_with_what_each_has() -> None:
    runners = Runners(a=UnknownPython("there is 3.11.2"), b=UnknownPython("there is 3.12.1"))
    with pytest.raises(UnknownPython, match=r"a: there is 3\.11\.2; b: there is 3\.12\.1") as told:
        runners.lock(Wanted(python="3.14"))
    assert told.value.errors is not None
    assert told.value.errors[0]["field"] == "python"


def test_one_that_cannot_tell_may_be_the_one_that_has_it() -> None:
    runners = Runners(a=ServiceUnavailable("its index is away"), b=UnknownPython("3.11.2"))
    with pytest.raises(ServiceUnavailable, match="its index is away"):
        runners.lock()


def test_after_a_minute_without_an_answer_nobody_else_is_asked() -> None:
    runners = Runners(a=NoAnswer("it did not answer"), b=LOCKED)
    with pytest.raises(NoAnswer):
        runners.lock()
    assert runners.asked == ["a"]


def test_without_a_runner_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "APPEAR_S", 0.1)
    with pytest.raises(ServiceUnavailable, match="no runner is connected"):
        Runners().lock()
