"""What every message is: frozen, versioned by its subject, tolerant of fields it does not know."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Generic, TypeVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict

ROOT = "openbell.v1"

Utc = Annotated[AwareDatetime, AfterValidator(lambda moment: moment.astimezone(UTC))]
"""An instant. Local time exists only in schedules and on the screen."""


def utc_now() -> datetime:
    return datetime.now(UTC)


def snake_case(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


class Message(BaseModel):
    """Unknown fields are ignored, so that neighbours may be one release apart."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    def encode(self) -> bytes:
        return self.model_dump_json().encode()


class Done(Message):
    """The reply of a command that has nothing more to say."""


ReplyT = TypeVar("ReplyT", bound=Message)


class Command(Message, Generic[ReplyT]):
    """A request in the imperative: `service` answers it with a `ReplyT` or a typed error.

    A subclass names its service; its verb is its own name. A command to one of many runners is
    sent to a subject that ends in the runner's id.
    """

    service: ClassVar[str]

    @classmethod
    def subject(cls, target: str | None = None) -> str:
        subject = f"{ROOT}.{cls.service}.{snake_case(cls.__name__)}"
        return f"{subject}.{target}" if target else subject

    @classmethod
    def reply_type(cls) -> type[ReplyT]:
        for base in cls.__mro__:
            arguments: Any = getattr(base, "__pydantic_generic_metadata__", {}).get("args")
            if arguments:
                return arguments[0]
        raise TypeError(f"{cls.__name__} names no reply: write Command[Reply]")


class Event(Message):
    """A fact about one strategy, told after it was committed; the browser sees these."""

    owner: str
    strategy_id: str
    at: Utc

    @classmethod
    def kind(cls) -> str:
        return snake_case(cls.__name__)

    @property
    def subject(self) -> str:
        return f"{ROOT}.event.{self.owner}.{self.strategy_id}.{self.kind()}"

    @staticmethod
    def subjects(owner: str | None = None) -> str:
        """The wildcard under which an owner's events, or everybody's, are published."""
        return f"{ROOT}.event.{owner}.>" if owner else f"{ROOT}.event.>"

    @staticmethod
    def parts(subject: str) -> tuple[str, str, str]:
        """The owner, the strategy and the kind that a subject names."""
        owner, strategy_id, kind = subject.split(".")[3:6]
        return owner, strategy_id, kind
