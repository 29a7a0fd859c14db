"""What users say of a strategy's runs: merged, checked as a whole, told by its fields."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from openbell.contracts.errors import InvalidRequest
from openbell.contracts.limits import Limits, RunPolicy, StopPolicy, Watchdogs
from openbell.contracts.model import RestartPolicy
from openbell.db.models import PolicyJson
from services.api.policies import changed, differences, of_form

PAGE = (Path(__file__).parents[3] / "docs/how-to/limits.md").read_text()
SET = RunPolicy(
    limits=Limits(memory_mb=512, processes=64),
    watchdogs=Watchdogs(quiet_s=600),
    stop=StopPolicy(signals=("SIGTERM",), grace_s=20),
    restart=RestartPolicy.NEVER,
)

EVERYTHING = RunPolicy(
    limits=Limits(memory_mb=64, processes=2, cpu_weight=3, cpus=0.5, disk_mb=5, open_files=64),
    watchdogs=Watchdogs(quiet_s=5, heartbeat_s=1, max_runtime_s=1),
    stop=StopPolicy(signals=(), grace_s=1),
    restart=RestartPolicy.NEVER,
    interpreter="own",
)
"""No field is what it is by default."""


def refused(part: Any, policy: RunPolicy = SET) -> dict[str, str]:
    """By field, what is wrong."""
    with pytest.raises(InvalidRequest) as caught:
        changed(policy, part)
    assert caught.value.errors is not None
    return {one["field"]: one["message"] for one in caught.value.errors}


def test_what_is_not_named_stays() -> None:
    assert changed(SET, {}) == SET
    policy = changed(SET, {"limits": {"memory_mb": 64}, "restart": "always"})
    assert policy.limits == Limits(memory_mb=64, processes=64)
    assert (policy.restart, policy.watchdogs, policy.stop) == ("always", SET.watchdogs, SET.stop)


def test_null_is_the_default() -> None:
    assert changed(SET, {"limits": {"processes": None}}).limits == Limits(memory_mb=512)
    assert changed(SET, {"limits": {"memory_mb": None}}).limits == Limits(processes=64)
    assert changed(SET, {"limits": None}).limits == Limits()
    cleared: dict[str, Any] = dict.fromkeys(RunPolicy.model_fields)
    assert changed(SET, cleared) == RunPolicy()


def test_what_is_answered_may_be_sent_again() -> None:
    assert changed(RunPolicy(), json.loads(SET.encode())) == SET


@pytest.mark.parametrize(
    ("part", "field"),
    [
        ({"limits": {"memory_mb": 31}}, "limits.memory_mb"),
        ({"limits": {"memory_mb": "512"}}, "limits.memory_mb"),
        ({"limits": {"memory_mb": 512.5}}, "limits.memory_mb"),
        ({"limits": {"processes": True}}, "limits.processes"),
        ({"limits": {"processes": 0}}, "limits.processes"),
        ({"limits": {"cpus": float("nan")}}, "limits.cpus"),
        ({"limits": {"cpus": [[0.5]]}}, "limits.cpus"),
        ({"watchdogs": {"quiet_s": 4.9}}, "watchdogs.quiet_s"),
        ({"watchdogs": {"max_runtime_s": float("inf")}}, "watchdogs.max_runtime_s"),
        ({"stop": {"grace_s": 601}}, "stop.grace_s"),
        ({"stop": {"signals": ["SIGKILL"]}}, "stop.signals.0"),
        ({"stop": {"signals": "SIGTERM"}}, "stop.signals"),
        ({"restart": "sometimes"}, "restart"),
        ({"limits": {"memory": 512}}, "limits.memory"),
        ({"limit": {}}, "limit"),
        ({"limits": 7}, "limits"),
        ({"limits": []}, "limits"),
        ({"stop": {"signals": ["\ud800"]}}, "body"),
        ({"limits": {"\ud800": 1}}, r"limits.\ud800"),
    ],
)
def test_what_is_wrong_is_told_at_its_field(part: Any, field: str) -> None:
    assert set(refused(part)) == {field}


def test_a_signal_that_is_named_twice_is_refused() -> None:
    assert all("twice" in why for why in refused({"stop": {"signals": ["SIGINT"] * 2}}).values())


def test_all_that_is_wrong_is_told_at_once() -> None:
    wrong = {"limits": {"memory_mb": 1, "disk_mb": 0}, "restart": "no"}
    assert set(refused(wrong)) == {"limits.memory_mb", "limits.disk_mb", "restart"}


def test_a_mistyped_field_is_told_with_those_that_there_are() -> None:
    assert "memory_mb, processes" in refused({"limits": {"memory": 512}})["limits.memory"]


def test_something_deep_is_refused_like_anything_else() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    assert set(refused({"limits": {"cpus": deep}})) == {"body"}


def test_differences_are_told_by_their_fields() -> None:
    policy = changed(SET, {"limits": {"memory_mb": None}, "stop": {"signals": []}})
    assert differences(SET, policy) == {
        "limits.memory_mb": (512, None),
        "stop.signals": (["SIGTERM"], []),
    }
    assert differences(SET, SET) == {}


def test_a_form_may_say_it_in_two_ways_but_not_twice() -> None:
    given = json.dumps({"limits": {"memory_mb": 64}, "stop": {"signals": []}})
    policy = of_form(given, RestartPolicy.ALWAYS, 7)
    assert policy == RunPolicy(
        limits=Limits(memory_mb=64),
        stop=StopPolicy(signals=(), grace_s=7),
        restart=RestartPolicy.ALWAYS,
    )
    assert of_form(None, None, None) == of_form(" ", None, None) == RunPolicy()


@pytest.mark.parametrize(
    ("limits", "restart", "grace_s", "field"),
    [
        ('{"restart": "never"}', RestartPolicy.NEVER, None, "restart"),
        ('{"stop": {"grace_s": 1}}', None, 1, "stop_grace_s"),
        ("{", None, None, "limits"),
        ("[]", None, None, "limits"),
        ('{"limits": {"memory_mb": 1}}', None, None, "limits.memory_mb"),
    ],
)
def test_a_form_is_refused_at_its_field(
    limits: str, restart: RestartPolicy | None, grace_s: float | None, field: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        of_form(limits, restart, grace_s)
    assert caught.value.errors is not None
    assert [one["field"] for one in caught.value.errors] == [field]


def test_what_is_kept_is_what_differs_from_the_defaults() -> None:
    column, dialect = PolicyJson(), None
    bound: Any = column.process_bind_param(SET, dialect)  # pyright: ignore[reportArgumentType]
    assert bound == {
        "limits": {"memory_mb": 512, "processes": 64},
        "watchdogs": {"quiet_s": 600.0},
        "stop": {"signals": ["SIGTERM"], "grace_s": 20.0},
        "restart": "never",
    }
    assert column.process_result_value(bound, dialect) == SET  # pyright: ignore[reportArgumentType]
    assert column.process_bind_param(RunPolicy(), dialect) == {}  # pyright: ignore[reportArgumentType]


def test_what_the_page_shows_is_taken_and_every_field_is_told() -> None:
    written = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    assert len(written) == 3
    for text in written:
        assert differences(RunPolicy(), changed(RunPolicy(), json.loads(text)))
    for name in differences(RunPolicy(), EVERYTHING):
        assert f"`{name.rpartition('.')[2]}`" in PAGE, name
