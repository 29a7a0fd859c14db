"""The wire: every message has a committed schema, and neighbours may be one release apart."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from openbell.contracts import events, schema
from openbell.contracts.base import Command, Event, Message
from openbell.contracts.commands import StartRun, StartStrategy
from openbell.contracts.errors import OpenbellError, Problem, StrategyIsRunning, raised_from
from openbell.contracts.events import RUNNER_EVENT, RunGranted, RunnerCameUp, RunnerEvent
from openbell.contracts.logs import LogChunk, ReadLog
from openbell.contracts.model import Cause
from openbell.contracts.schema import FOLDER, command_types, runner_event_types, schemas

NOW = datetime(2026, 8, 3, 3, 45, tzinfo=UTC)
WANTED = schemas()
SERVICES = {"api", "calendar", "runner", "scheduler", "status"}
MESSAGES: list[type[Message]] = [*command_types(), *events.EVENTS, *runner_event_types()]
EVENT = RunGranted(
    owner="local",
    strategy_id="ema-1a2b3c",
    at=NOW,
    run_id="r1",
    epoch=3,
    runner="local",
    cause=Cause.SCHEDULE,
    late_s=0.012,
)


@pytest.mark.parametrize("name", sorted(WANTED))
def test_the_committed_schema_is_what_the_code_gives(name: str) -> None:
    file = FOLDER / name
    assert file.exists(), f"{name} is missing; run: make schemas"
    assert file.read_text("utf-8") == WANTED[name], f"{name} differs; run: make schemas"


def test_no_schema_is_stale() -> None:
    kept = {file.name for file in FOLDER.iterdir()}
    assert kept <= set(WANTED), f"{sorted(kept - set(WANTED))} are stale; run: make schemas"


def test_writing_them_anew_removes_stale_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "FOLDER", tmp_path / "schema")
    schema.write()
    (tmp_path / "schema" / "run_flew_away.json").write_text("{}")
    schema.write()
    assert {f.name: f.read_bytes() for f in (tmp_path / "schema").iterdir()} == {
        name: text.encode() for name, text in WANTED.items()
    }


@pytest.mark.parametrize("kind", command_types(), ids=lambda kind: kind.__name__)
def test_a_command_names_who_answers_and_with_what(kind: type[Command[Any]]) -> None:
    assert kind.service in SERVICES
    assert issubclass(kind.reply_type(), Message)
    written = json.loads(WANTED[schema.file_name(kind)])
    assert written["x-reply"] in WANTED
    assert written["x-subject"].startswith(f"openbell.v1.{kind.service}.")


def test_a_command_without_a_reply_says_so() -> None:
    class Vague(Command):  # pyright: ignore[reportMissingTypeArgument]
        service = "api"

    with pytest.raises(TypeError, match="Vague names no reply"):
        Vague.reply_type()


def test_subjects_are_unique() -> None:
    subjects = [json.loads(WANTED[schema.file_name(kind)])["x-subject"] for kind in MESSAGES]
    assert len(subjects) == len(set(subjects))
    assert len({schema.file_name(kind) for kind in MESSAGES}) == len(MESSAGES)


def test_subjects_and_their_patterns_agree() -> None:
    assert _matches(schema.subject_pattern(RunGranted), EVENT.subject)
    assert _matches(Event.subjects("local"), EVENT.subject)
    assert not _matches(Event.subjects("other"), EVENT.subject)
    assert Event.parts(EVENT.subject) == ("local", "ema-1a2b3c", "run_granted")
    up = RunnerCameUp(runner="host-1", at=NOW, run_ids=("ema-1a2b3c-1",))
    assert _matches(schema.subject_pattern(RunnerCameUp), up.subject)
    assert _matches(RunnerEvent.subjects(), up.subject)
    assert _matches(schema.subject_pattern(StartRun), StartRun.subject("host-1"))
    assert StartStrategy.subject() == "openbell.v1.scheduler.start_strategy"


def _matches(pattern: str, subject: str) -> bool:
    wanted, given = pattern.split("."), subject.split(".")
    if wanted[-1] == ">":
        wanted, given = wanted[:-1], given[: len(wanted) - 1]
    return len(wanted) == len(given) and all(
        w in {"*", g} for w, g in zip(wanted, given, strict=True)
    )


def test_every_event_is_listed() -> None:
    defined = {kind for kind in vars(events).values() if _is_event(kind)}
    assert defined == set(events.EVENTS)


def _is_event(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, Event) and kind.__module__ == events.__name__


@pytest.mark.parametrize("kind", runner_event_types(), ids=lambda kind: kind.__name__)
def test_a_runners_event_is_told_apart_by_its_kind(kind: type[RunnerEvent]) -> None:
    written = json.loads(WANTED[schema.file_name(kind)])
    assert f"event.{written['properties']['kind']['const']}" in written["x-subject"]


def test_an_event_survives_the_wire() -> None:
    assert RunGranted.model_validate_json(EVENT.encode()) == EVENT
    up = RunnerCameUp(runner="local", at=NOW, run_ids=("ema-1a2b3c-1", "s-2"))
    assert RUNNER_EVENT.validate_json(up.encode()) == up


def test_a_report_that_no_database_could_be_asked_about_is_none() -> None:
    """PostgreSQL refuses a NUL in a question too; the scheduler passes such a report over."""
    report = {"kind": "run_reported", "runner": "local", "at": NOW.isoformat(), "epoch": 1}
    report |= {"run_id": "s-1", "state": "running"}
    RUNNER_EVENT.validate_json(json.dumps({**report, "strategy_id": "ema-1a2b3c"}))
    with pytest.raises(ValidationError):
        RUNNER_EVENT.validate_json(json.dumps({**report, "strategy_id": "s\0"}))


def test_bytes_survive_the_wire() -> None:
    data = bytes(range(256)) * 40
    chunk = LogChunk.model_validate({"offset": 0, "next_offset": 1, "size": 2, "data": ""})
    chunk = chunk.model_copy(update={"data": data})
    assert LogChunk.model_validate_json(chunk.encode()).data == data


def test_an_instant_is_utc_and_never_naive() -> None:
    kolkata = EVENT.model_dump(mode="json") | {"at": "2026-08-03T09:15:00+05:30"}
    assert RunGranted.model_validate(kolkata).at == NOW
    assert b'"at":"2026-08-03T03:45:00Z"' in RunGranted.model_validate(kolkata).encode()
    with pytest.raises(ValidationError, match="timezone"):
        RunGranted.model_validate(kolkata | {"at": "2026-08-03T09:15:00"})


def test_a_newer_neighbours_fields_are_taken_and_ignored() -> None:
    newer = EVENT.model_dump(mode="json") | {"colour": "green", "nested": {"a": [1]}}
    assert RunGranted.model_validate_json(json.dumps(newer)) == EVENT
    problem = StrategyIsRunning("it runs").problem().model_dump() | {"trace": "t"}
    assert isinstance(raised_from(Problem.model_validate(problem)), StrategyIsRunning)


def test_a_newer_neighbours_error_keeps_its_texts() -> None:
    newer = Problem(code="moon_in_the_way", status=409, title="Moon", detail="wait a while")
    error = raised_from(newer)
    assert type(error) is OpenbellError
    assert error.detail == "wait a while"


def test_a_newer_neighbours_refusal_is_no_fault_of_ours() -> None:
    newer = Problem(code="moon_in_the_way", status=409, title="Moon", detail="wait a while")
    assert raised_from(newer).problem() == newer


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
def test_messages_are_frozen_and_tolerant(kind: type[BaseModel]) -> None:
    assert kind.model_config.get("frozen") is True
    assert kind.model_config.get("extra") == "ignore"


def test_a_message_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        EVENT.epoch = 4  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("limit", [0, 524_289])
def test_limits_hold_on_the_wire(limit: int) -> None:
    with pytest.raises(ValidationError):
        ReadLog(strategy_id="s", run_id="r", limit=limit)
