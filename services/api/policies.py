"""Checks what users say of a strategy's runs, before anything is kept. Pure."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from pydantic import BaseModel, ValidationError

from openbell.contracts.errors import InvalidRequest
from openbell.contracts.limits import RunPolicy
from openbell.contracts.model import RestartPolicy
from services.api.errors import message, shown

Part = Mapping[str, Any]
"""Fields of a policy; null stands for a field's default. What is not named stays."""


def changed(policy: RunPolicy, part: Part) -> RunPolicy:
    """The policy with these fields of it set, checked as a whole.

    Raises InvalidRequest, which names each field that is wrong.
    """
    merged = _merged(RunPolicy, policy.model_dump(mode="json"), part, ())
    try:
        return RunPolicy.model_validate_json(json.dumps(merged), strict=True)
    except RecursionError:
        raise InvalidRequest.of("body", "it is too deeply nested") from None
    except ValidationError as error:
        raise _refused(error) from None


def differences(before: RunPolicy, after: RunPolicy) -> dict[str, tuple[Any, Any]]:
    """What each field that differs was, and what it is, by its name: `limits.memory_mb`."""
    was, now = _flat(before.model_dump(mode="json")), _flat(after.model_dump(mode="json"))
    return {name: (was[name], now[name]) for name in now if was[name] != now[name]}


def of_form(limits: str | None, restart: RestartPolicy | None, grace_s: float | None) -> RunPolicy:
    """The policy of a new strategy. Raises InvalidRequest, also when a field is given twice."""
    part = _object(limits)
    stop = part.get("stop")
    if restart is not None and "restart" in part:
        raise InvalidRequest.of("restart", "it is in limits too")
    if grace_s is not None and isinstance(stop, Mapping) and "grace_s" in stop:
        raise InvalidRequest.of("stop_grace_s", "it is in limits too, as stop.grace_s")
    policy = changed(RunPolicy(), part)
    if restart is not None:
        policy = changed(policy, {"restart": restart})
    if grace_s is not None:
        policy = changed(policy, {"stop": {"grace_s": grace_s}})
    return policy


def _object(text: str | None) -> Part:
    if text is None or not text.strip():
        return {}
    try:
        part: Any = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidRequest.of("limits", "this is not JSON") from None
    if not isinstance(part, dict):
        raise InvalidRequest.of("limits", 'write JSON like {"limits": {"memory_mb": 512}}')
    return cast("Part", part)


def _merged(kind: type[BaseModel], now: Part, part: Any, place: tuple[str, ...]) -> dict[str, Any]:
    if part is None:
        return {}
    if not isinstance(part, Mapping):
        raise InvalidRequest.of(".".join(place), "write a JSON object")
    merged = dict(now)
    for name, value in cast("Part", part).items():
        field = kind.model_fields.get(name)
        if field is None:
            known = ", ".join(kind.model_fields)
            raise InvalidRequest.of(
                ".".join((*place, shown(name))), f"there is no such field; there are {known}"
            )
        section: Any = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            merged[name] = _merged(section, now[name], value, (*place, name))
        elif value is None:
            del merged[name]
        else:
            merged[name] = value
    return merged


def _flat(document: Part) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in document.items():
        if isinstance(value, Mapping):
            inner = _flat(cast("Part", value))
            found |= {f"{name}.{field}": it for field, it in inner.items()}
        else:
            found[name] = value
    return found


def _refused(error: ValidationError) -> InvalidRequest:
    wrong = [
        {"field": _name(one), "message": message(one)}
        for one in cast("Sequence[Mapping[str, Any]]", error.errors(include_url=False))
    ]
    return InvalidRequest("; ".join(f"{w['field']}: {w['message']}" for w in wrong), errors=wrong)


def _name(error: Mapping[str, Any]) -> str:
    if error["type"] == "json_invalid":  # half of a surrogate pair
        return "body"
    return ".".join(map(str, error["loc"])) or "body"
