"""What every message is: frozen, versioned by its subject, tolerant of fields it does not know."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Generic, TypeVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict

ROOT = "openbell.v1"


def to_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("it is before the year 1, or after 9999, in UTC") from None


Utc = Annotated[AwareDatetime, AfterValidator(to_utc)]
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

    A subclass names its service, and who may ask; its verb is its own name. A command to one of
    many runners is sent to a subject that ends in the runner's id.
    """

    service: ClassVar[str]
    asked_by: ClassVar[frozenset[str]]

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

    def sent_to(self, target: str | None = None) -> str:
        """The subject that this very command is sent to."""
        return type(self).subject(target)


class RunnerAsks(Command[ReplyT], Generic[ReplyT]):
    """A request of one runner, sent to a subject that this runner alone may publish.

    So `runner` is who asks, and not merely who is said to.
    """

    asked_by: ClassVar[frozenset[str]] = frozenset({"runner"})
    runner: str

    @classmethod
    def subject(cls, target: str | None = None) -> str:
        return super().subject(target or "*")

    def sent_to(self, target: str | None = None) -> str:
        return type(self).subject(target or self.runner)


class Event(Message):
    """A fact that was committed before it is told; the browsers of its owner see it.

    `topic` is what it is about: a strategy's id, or ACCOUNT.
    """

    owner: str
    at: Utc

    @classmethod
    def kind(cls) -> str:
        return snake_case(cls.__name__)

    @property
    def topic(self) -> str:
        raise NotImplementedError

    @property
    def subject(self) -> str:
        return f"{ROOT}.event.{self.owner}.{self.topic}.{self.kind()}"

    @staticmethod
    def subjects(owner: str | None = None) -> str:
        """The wildcard under which an owner's events, or everybody's, are published."""
        return f"{ROOT}.event.{owner}.>" if owner else f"{ROOT}.event.>"

    @staticmethod
    def parts(subject: str) -> tuple[str, str, str]:
        """The owner, the topic and the kind that a subject names."""
        owner, topic, kind = subject.split(".")[3:6]
        return owner, topic, kind


class StrategyEvent(Event):
    """About one strategy."""

    strategy_id: str

    @property
    def topic(self) -> str:
        return self.strategy_id


ACCOUNT = "account"
"""No strategy's id: those end in six random characters."""


class AccountEvent(Event):
    """About its owner's account; `owner` is the user."""

    @property
    def topic(self) -> str:
        return ACCOUNT
