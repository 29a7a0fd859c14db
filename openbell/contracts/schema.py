"""The JSON schema of each message, kept in git so that a change of the wire shows in its diff."""

import inspect
import json
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar, cast

from openbell.contracts import commands, events, logs, metrics
from openbell.contracts.base import ROOT, Command, Message, snake_case
from openbell.contracts.errors import Problem

FOLDER = Path(__file__).with_name("schema")
REPLIES = "_INBOX.>"
"""Where answers go: an address of the asker's own."""

MessageT = TypeVar("MessageT", bound=Message)


def command_types() -> list[type[Command[Any]]]:
    """Every command that can be sent; those that others merely build on are left out."""
    return [*_leaves(commands, Command), *_leaves(logs, Command)]


def runner_event_types() -> list[type[events.RunnerEvent]]:
    return _leaves(events, events.RunnerEvent)


def subject_pattern(kind: type[Message]) -> str:
    """The subject under which messages of this class travel, `*` for each id."""
    if issubclass(kind, Command):
        return kind.subject("*" if kind.service == "runner" else None)
    if issubclass(kind, events.Event):
        return f"{ROOT}.event.*.*.{kind.kind()}"
    if issubclass(kind, events.RunnerEvent):
        return f"{ROOT}.runner.*.event.{snake_case(kind.__name__)}"
    if kind is events.CalendarChanged:
        return events.CalendarChanged.SUBJECT
    if kind is logs.LogLines:
        return logs.LogLines.subjects()
    if kind is metrics.RunnerMetrics:
        return metrics.RunnerMetrics.subjects()
    return REPLIES


def schemas() -> dict[str, str]:
    """The text of each file, by its name."""
    asked = command_types()
    answers = {kind.reply_type() for kind in asked} | {Problem}
    unkept = (events.CalendarChanged, logs.LogLines, metrics.RunnerMetrics)
    told = (*events.EVENTS, *runner_event_types(), *unkept)
    return {file_name(kind): _schema(kind) for kind in (*asked, *answers, *told)}


def file_name(kind: type[Message]) -> str:
    return f"{snake_case(kind.__name__)}.json"


def write() -> None:
    """Make the folder hold these schemas and no others."""
    FOLDER.mkdir(exist_ok=True)
    wanted = schemas()
    for file in FOLDER.glob("*.json"):
        if file.name not in wanted:
            file.unlink()
    for name, text in wanted.items():
        (FOLDER / name).write_text(text, "utf-8", newline="\n")


def _leaves(module: ModuleType, base: type[MessageT]) -> list[type[MessageT]]:
    """The classes of a module that descend from `base`, and from which no other one descends."""
    defined: list[type[MessageT]] = [
        kind
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if kind.__module__ == module.__name__ and issubclass(kind, base) and kind is not base
    ]
    return [kind for kind in defined if not any(kind in other.__bases__ for other in defined)]


def _schema(kind: type[Message]) -> str:
    schema = kind.model_json_schema()
    schema["x-subject"] = subject_pattern(kind)
    if issubclass(kind, Command):
        schema["x-reply"] = file_name(cast("type[Command[Any]]", kind).reply_type())
    return json.dumps(schema, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
