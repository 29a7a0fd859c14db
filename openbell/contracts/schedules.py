"""When a strategy should run, as its user writes it: in local times, which live only here."""

from datetime import time
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    TypeAdapter,
    field_validator,
    model_validator,
)

Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
WEEKDAYS: tuple[Weekday, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def _clock_time(value: Any) -> Any:
    if isinstance(value, time):
        return value
    if not isinstance(value, str):
        raise ValueError("write a time of day like 09:15")  # noqa: TRY004 - pydantic's protocol
    hours, _, rest = value.partition(":")
    if len(hours) != 2 or len(rest) not in {2, 5}:
        raise ValueError("write a time of day like 09:15 or 09:15:30")
    try:
        return time.fromisoformat(value)
    except ValueError:
        raise ValueError("write a time of day between 00:00 and 23:59") from None


def _show(value: time) -> str:
    return value.isoformat("seconds" if value.second else "minutes")


ClockTime = Annotated[time, BeforeValidator(_clock_time), PlainSerializer(_show, return_type=str)]


class _Schedule(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Always(_Schedule):
    """Around the clock, every day."""

    kind: Literal["always"]


class Market(_Schedule):
    """On the days that an exchange is open, between two local times of that exchange.

    A stop that is earlier than the start belongs to the next day. Without a stop the strategy ends
    by itself; a start that was missed is then caught up until the session closes.
    """

    kind: Literal["market"]
    exchange: str = Field(min_length=1, max_length=32, examples=["NSE"])
    start: ClockTime = Field(examples=["09:15"])
    stop: ClockTime | None = Field(default=None, examples=["15:30"])
    weekdays: frozenset[Weekday] = frozenset(WEEKDAYS)

    @field_validator("weekdays")
    @classmethod
    def _some_weekday(cls, value: frozenset[Weekday]) -> frozenset[Weekday]:
        if not value:
            raise ValueError("choose at least one weekday")
        return value

    @model_validator(mode="after")
    def _stop_differs(self) -> "Market":
        if self.stop == self.start:
            raise ValueError("stop is equal to start: leave stop out, or use kind 'always'")
        return self


Schedule = Annotated[Always | Market, Field(discriminator="kind")]
SCHEDULE: TypeAdapter[Always | Market] = TypeAdapter(Schedule)


def stored(schedule: Always | Market) -> dict[str, Any]:
    """The schedule as JSON values, weekdays in the order of the week."""
    values = schedule.model_dump(mode="json")
    if isinstance(schedule, Market):
        values["weekdays"] = [day for day in WEEKDAYS if day in schedule.weekdays]
    return values
