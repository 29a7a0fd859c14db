"""When a strategy should run, as its user writes it: in local times, which live only here.

One union, told apart by `kind`. What is written is checked as a whole, and kept as it was written.
"""

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from enum import StrEnum
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    TypeAdapter,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)

Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
WEEKDAYS: tuple[Weekday, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

LONGEST_S = 7 * 86_400
SHORTEST_INTERVAL_S = 5
MOST_DATES = 400
YEARS = range(2000, 2101)

_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?:in)?)?(?:(\d+)s)?")
_DIGITS = 8
"""Of a number in a duration: more are as much too long, and too many to be counted."""
_ANCHORED = re.compile(r"(open|close)(?:([+-])(.+))?")
_NO_ZONES = {"localtime", "posixrules", "factory"}
_NO_ZONES_OF = ("right/", "posix/")
"""Files beside those of the zones: what they mean is another matter on each machine."""


class CatchUp(StrEnum):
    """What becomes of a start that could not happen at its instant."""

    START = "start"
    """It happens late, as long as its window holds."""
    SKIP = "skip"
    """It is left out, and said to be missed, when it would be more than a minute late."""


class Overlap(StrEnum):
    """What becomes of a start that is due while the run before still lives."""

    SKIP = "skip"
    QUEUE = "queue"
    """It starts when that run has ended, unless the next is due by then."""
    REPLACE = "replace"
    """That run is stopped for it."""


@dataclass(frozen=True, slots=True)
class Anchored:
    """A time of day that moves with its session: its open or close, and so much later."""

    edge: Literal["open", "close"]
    offset: timedelta = timedelta()


def _clock_time(value: Any) -> time:
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


def _duration(value: Any) -> timedelta:
    if isinstance(value, timedelta):
        return value
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if not value or found is None:
        raise ValueError("write a duration like 90s, 15m, 1h30m or 7d")
    days, hours, minutes, seconds = (
        int((part or "").lstrip("0")[:_DIGITS] or 0) for part in found.groups()
    )
    return timedelta(days, hours=hours, minutes=minutes, seconds=seconds)


def _between(shortest_s: int) -> AfterValidator:
    def check(value: timedelta) -> timedelta:
        if not shortest_s <= value.total_seconds() <= LONGEST_S:
            raise ValueError(f"between {shortest_s} s and 7 days")
        return value

    return AfterValidator(check)


def _market_time(value: Any) -> time | Anchored:
    if isinstance(value, time | Anchored):
        return value
    found = _ANCHORED.fullmatch(value.replace(" ", "")) if isinstance(value, str) else None
    if found is None:
        return _clock_time(value)
    edge, sign, rest = found.groups()
    offset = _duration(rest) if rest else timedelta()
    if offset >= timedelta(days=1):
        raise ValueError("an offset is less than a day")
    anchor: Literal["open", "close"] = "open" if edge == "open" else "close"
    return Anchored(anchor, -offset if sign == "-" else offset)


def _zone_name(value: str) -> str:
    if not _is_zone(value):
        raise ValueError("there is no such time zone; write one like Asia/Kolkata")
    return value


def _is_zone(value: str) -> bool:
    if value.lower() in _NO_ZONES or value.lower().startswith(_NO_ZONES_OF):
        return False
    try:
        ZoneInfo(value)
    except (ValueError, LookupError, OSError):
        return False
    return True


def _cron(value: str) -> str:
    expression = " ".join(value.split())
    if expression.count(" ") != 4:
        raise ValueError("write five fields: minute, hour, day of month, month, weekday")
    try:
        next(CronSim(expression, datetime(2026, 1, 1, tzinfo=UTC)))
    except CronSimError as error:
        raise ValueError(f"this is no cron expression: {error}") from None
    except StopIteration:
        raise ValueError("it names no day that ever comes") from None
    return expression


def _some_weekday(value: frozenset[Weekday]) -> frozenset[Weekday]:
    if not value:
        raise ValueError("choose at least one weekday")
    return value


def _ordered_days(value: frozenset[Weekday]) -> list[Weekday]:
    return [day for day in WEEKDAYS if day in value]


def _instant(value: datetime, zone: str | None) -> datetime:
    if value.tzinfo is None and zone is not None:
        value = value.replace(tzinfo=ZoneInfo(zone))
    return value.astimezone(UTC)


def show_time(value: time) -> str:
    return value.isoformat("seconds" if value.second else "minutes")


def show_duration(value: timedelta) -> str:
    """As a user writes it: 1h30m."""
    minutes, seconds = divmod(int(value.total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((hours, "h"), (minutes, "m"), (seconds, "s"))
    return "".join(f"{number}{unit}" for number, unit in parts if number) or "0s"


def show_market_time(value: time | Anchored) -> str:
    if isinstance(value, time):
        return show_time(value)
    if not value.offset:
        return value.edge
    sign = "-" if value.offset < timedelta() else "+"
    return f"{value.edge}{sign}{show_duration(abs(value.offset))}"


def _as_text(example: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "examples": [example]})


ClockTime = Annotated[
    time,
    BeforeValidator(_clock_time),
    PlainSerializer(show_time, return_type=str),
    _as_text("09:15"),
]
Duration = Annotated[
    timedelta,
    BeforeValidator(_duration),
    PlainSerializer(show_duration, return_type=str),
    _as_text("1h30m"),
]
RunLength = Annotated[Duration, _between(1)]
MarketTime = Annotated[
    time | Anchored,
    BeforeValidator(_market_time),
    PlainSerializer(show_market_time, return_type=str),
    _as_text("open+5m"),
]
"""A local time, or `open`, `close`, `open+5m`, `close-15m` of the session."""
ZoneName = Annotated[str, Field(max_length=64), AfterValidator(_zone_name)]
ExchangeCode = Annotated[str, Field(min_length=1, max_length=32, examples=["NSE"])]
Weekdays = Annotated[
    frozenset[Weekday], AfterValidator(_some_weekday), PlainSerializer(_ordered_days)
]
Dates = Annotated[
    frozenset[date],
    Field(max_length=MOST_DATES),
    PlainSerializer(lambda days: [day.isoformat() for day in sorted(days)], return_type=list[str]),
]


class _Schedule(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    max_runtime: RunLength | None = None
    """After so long a run is stopped, whoever started it."""


class _Timed(_Schedule):
    catch_up: CatchUp = CatchUp.START


class _ByDays(_Timed):
    """On the days of an exchange, or on all days.

    The holidays of the exchange are skipped; `open_dates` are traded although its calendar says
    that it is closed, in its usual hours; `skip_dates` are left out. Dates are the exchange's.
    """

    exchange: ExchangeCode | None = None
    timezone: ZoneName | None = Field(default=None, validate_default=True)
    """In which its local times are meant; by default, its exchange's."""
    special_sessions: bool = True
    """Whether sessions count that open on a day on which the exchange is usually closed."""
    open_dates: Dates = frozenset()
    skip_dates: Dates = frozenset()

    @field_validator("special_sessions", "open_dates")
    @classmethod
    def _needs_exchange(cls, value: Any, info: ValidationInfo) -> Any:
        if info.data.get("exchange") is None and value not in (True, frozenset()):
            raise ValueError("it needs an exchange")
        return value

    @field_validator("skip_dates")
    @classmethod
    def _not_open_too(cls, value: frozenset[date], info: ValidationInfo) -> frozenset[date]:
        if both := value & info.data.get("open_dates", frozenset()):
            raise ValueError(f"{min(both)} is in open_dates too")
        return value


class Manual(_Schedule):
    """Only when its user starts it."""

    kind: Literal["manual"]


class Always(_Schedule):
    """Around the clock, every day."""

    kind: Literal["always"]


class Once(_Timed):
    """At one instant, and optionally until another.

    Without a stop the strategy ends by itself; a start that was missed is caught up for an hour.
    """

    kind: Literal["once"]
    timezone: ZoneName | None = None
    """Of instants that are written without an offset."""
    at: datetime = Field(examples=["2026-12-01T09:15:00+05:30"])
    stop: datetime | None = None

    @field_validator("at", "stop")
    @classmethod
    def _is_instant(cls, value: datetime | None, info: ValidationInfo) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None and info.data.get("timezone") is None:
            raise ValueError("write an offset like +05:30, or name a timezone")
        if value.year not in YEARS:
            raise ValueError(f"it is not between {YEARS[0]} and {YEARS[-1]}")
        return value

    @field_validator("stop")
    @classmethod
    def _stops_later(cls, value: datetime | None, info: ValidationInfo) -> datetime | None:
        at, zone = info.data.get("at"), info.data.get("timezone")
        if value is not None and at is not None and _instant(value, zone) <= _instant(at, zone):
            raise ValueError("it is not after the start")
        return value

    @property
    def zone(self) -> tzinfo:
        """In which its instants were written."""
        return ZoneInfo(self.timezone) if self.timezone else self.at.tzinfo or UTC

    @property
    def starts_at(self) -> datetime:
        return _instant(self.at, self.timezone)

    @property
    def stops_at(self) -> datetime | None:
        return _instant(self.stop, self.timezone) if self.stop else None


class Interval(_ByDays):
    """Again and again, so long apart: from when it was set, or from each session's open to close.

    What runs ends by itself.
    """

    kind: Literal["interval"]
    every: Annotated[Duration, _between(SHORTEST_INTERVAL_S)] = Field(examples=["15m"])
    overlap: Overlap = Overlap.SKIP
    weekdays: Weekdays = frozenset(WEEKDAYS)

    @field_validator("weekdays", "skip_dates")
    @classmethod
    def _knows_its_days(cls, value: frozenset[Any], info: ValidationInfo) -> frozenset[Any]:
        counts = value not in (frozenset(), frozenset(WEEKDAYS))
        if counts and info.data.get("exchange") is None and info.data.get("timezone") is None:
            raise ValueError("it needs a timezone, or an exchange")
        return value


class Cron(_ByDays):
    """At the local times of a cron expression; with an exchange, on its trading days only.

    A time that a clock change skips comes right after it; one that comes twice counts once.
    """

    kind: Literal["cron"]
    cron: Annotated[str, Field(max_length=200), AfterValidator(_cron)] = Field(
        examples=["15 9 * * 1-5"]
    )
    stop: ClockTime | None = None
    """The first such time after each start."""
    duration: RunLength | None = None
    overlap: Overlap = Overlap.SKIP

    @field_validator("timezone")
    @classmethod
    def _has_zone(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None and info.data.get("exchange") is None:
            raise ValueError("name one like Asia/Kolkata, or an exchange")
        return value

    @field_validator("duration")
    @classmethod
    def _one_end(cls, value: timedelta | None, info: ValidationInfo) -> timedelta | None:
        if value is not None and info.data.get("stop") is not None:
            raise ValueError("give a stop or a duration, not both")
        return value


class Market(_ByDays):
    """On the days that an exchange is open, between two times.

    Local times stand as written on a usual day; a shortened or special session clips them to its
    own hours. A stop that is not after its start belongs to the next day. Without a stop the
    strategy ends by itself; a start that was missed is then caught up until the session closes.
    """

    kind: Literal["market"]
    # frozen, so that a narrower type is safe
    exchange: ExchangeCode  # pyright: ignore[reportIncompatibleVariableOverride, reportGeneralTypeIssues]
    start: MarketTime = Field(default=Anchored("open"), examples=["09:15"])
    stop: MarketTime | None = Field(default=None, examples=["close-10m"])
    weekdays: Weekdays = frozenset(WEEKDAYS)

    @field_validator("stop")
    @classmethod
    def _stop_differs(
        cls, stop: time | Anchored | None, info: ValidationInfo
    ) -> time | Anchored | None:
        start = info.data.get("start")
        if stop is not None and start == stop:
            raise ValueError("it is equal to start: leave stop out, or use kind 'always'")
        match start, stop:
            case Anchored(edge, begins), Anchored(same, ends) if edge == same and ends < begins:
                raise ValueError("it is before start")
            case _:
                return stop


AnySchedule = Manual | Always | Once | Interval | Cron | Market
Schedule = Annotated[AnySchedule, Field(discriminator="kind")]
SCHEDULE: TypeAdapter[AnySchedule] = TypeAdapter(Schedule)


def stored(schedule: AnySchedule) -> dict[str, Any]:
    """The schedule as JSON values."""
    return schedule.model_dump(mode="json")


def exchange_of(schedule: AnySchedule) -> str | None:
    """The exchange whose sessions it needs."""
    return schedule.exchange if isinstance(schedule, _ByDays) else None
