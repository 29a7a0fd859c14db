"""Reads the rows below data/ strictly: a mistake in them fails when they are loaded, not later."""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, time
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Self
from zoneinfo import available_timezones

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from openbell.contracts.model import SessionKind
from services.calendar.days import Hours

DATA = Path(__file__).with_name("data")
SATURDAY = 5


@dataclass(frozen=True, slots=True)
class UsualHours:
    """What holds from a day on; `us_summer` instead, while New York keeps daylight saving time."""

    since: date
    hours: Hours
    us_summer: Hours | None


@dataclass(frozen=True, slots=True)
class Exceptional:
    """A day that differs. No hours: closed."""

    name: str
    source: str
    kind: SessionKind = SessionKind.SHORTENED
    hours: tuple[Hours, ...] = ()
    opens: time | None = None
    """Only from then on, until the usual close."""


@dataclass(frozen=True, slots=True)
class Facts:
    """All that is known of one segment."""

    code: str
    name: str
    timezone: str
    usual: tuple[UsualHours, ...]
    source: str
    every_day: bool
    years: tuple[int, ...]
    """Those whose rows there are, without a gap."""
    exceptional: Mapping[date, Exceptional]


def _hours(text: Any) -> Hours:
    opens, dash, closes = str(text).partition("-")
    if not dash or len(opens) != 5 or len(closes) != 5:
        raise ValueError(f"{text!r} is not like 09:15-15:30")
    return Hours(time.fromisoformat(opens), time.fromisoformat(closes))


def _apart(hours: tuple[Hours, ...]) -> tuple[Hours, ...]:
    if any(before.closes > after.opens for before, after in pairwise(hours)):
        raise ValueError("these hours are not in order, or overlap")
    return hours


def _zone(name: str) -> str:
    if name not in available_timezones():
        raise ValueError(f"there is no time zone {name!r}")
    return name


HoursText = Annotated[Hours, BeforeValidator(_hours)]
HoursTexts = Annotated[tuple[HoursText, ...], Field(min_length=1), AfterValidator(_apart)]
Text = Annotated[str, Field(min_length=3, pattern=r"^\S.*\S$")]
Zone = Annotated[str, AfterValidator(_zone)]


class Row(BaseModel):
    """A table of a file; an unknown key is a typo."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class _Usual(Row):
    since: date
    hours: HoursText
    us_summer: HoursText | None = None


class _Segment(Row):
    name: Text
    timezone: Zone
    usual: list[_Usual] = Field(min_length=1)
    source: Text
    evening: time | None = None
    every_day: bool = False


class _Segments(Row):
    groups: dict[str, list[str]]
    segments: dict[str, _Segment]

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        for group, codes in self.groups.items():
            if unknown := set(codes) - set(self.segments):
                raise ValueError(f"{group}: there is no segment {unknown}")
            if group in self.segments:
                raise ValueError(f"{group} is a group and a segment")
        for code, segment in self.segments.items():
            since = [usual.since for usual in segment.usual]
            if since != sorted(set(since)):
                raise ValueError(f"{code}: the usual hours are not in order")
        return self

    def members(self, names: Iterable[str]) -> list[str]:
        """The segments behind names of groups or segments. Raises ValueError."""
        codes: list[str] = []
        for name in names:
            if name not in self.groups and name not in self.segments:
                raise ValueError(f"there is no group or segment {name!r}")
            codes += self.groups.get(name, [name])
        if len(codes) != len(set(codes)):
            raise ValueError(f"a segment is named twice in {codes}")
        return codes


class _Day(Row):
    date: date
    name: Text
    closed: list[str] = []
    evening: list[str] = []
    shortened: dict[str, HoursTexts] = {}
    special: dict[str, HoursTexts] = {}
    source: Text | None = None

    @model_validator(mode="after")
    def _means_something(self) -> Self:
        weekday = [*self.closed, *self.evening, *self.shortened]
        if not weekday and not self.special:
            raise ValueError(f"{self.date}: nothing is said of any segment")
        if weekday and self.date.weekday() >= SATURDAY:
            raise ValueError(f"{self.date} is on a weekend: closed anyway")
        return self


class _Year(Row):
    sources: dict[str, Text]
    days: list[_Day]


@cache
def load() -> dict[str, Facts]:
    """By the segment's code. Raises ValueError, which says what is wrong with which row."""
    years = {int(file.stem): read(file) for file in sorted((DATA / "days").glob("*.toml"))}
    return build(read(DATA / "segments.toml"), years)


def read(file: Path) -> dict[str, Any]:
    return tomllib.loads(file.read_text("utf-8"))


def build(segments: Mapping[str, Any], years: Mapping[int, Mapping[str, Any]]) -> dict[str, Facts]:
    """Raises ValueError."""
    named = _Segments.model_validate(segments)
    covered: dict[str, list[int]] = {code: [] for code in named.segments}
    exceptional: dict[str, dict[date, Exceptional]] = {code: {} for code in named.segments}
    for year, rows in sorted(years.items()):
        read_year = _Year.model_validate(rows)
        sources = _by_segment(named, read_year.sources)
        for code in sources:
            covered[code].append(year)
        _check_dates(year, [day.date for day in read_year.days])
        for day in read_year.days:
            for code, found in _exceptional(named, day, sources).items():
                exceptional[code][day.date] = found
    return {
        code: _facts(code, segment, covered[code], exceptional[code])
        for code, segment in named.segments.items()
    }


def _facts(
    code: str, segment: _Segment, years: list[int], exceptional: dict[date, Exceptional]
) -> Facts:
    if segment.every_day == bool(years):
        raise ValueError(f"{code}: either it has a source in each year's rows, or it is every day")
    if years and years != list(range(years[0], years[-1] + 1)):
        raise ValueError(f"{code}: there is a gap between the years {years}")
    return Facts(
        code=code,
        name=segment.name,
        timezone=segment.timezone,
        usual=tuple(UsualHours(u.since, u.hours, u.us_summer) for u in segment.usual),
        source=segment.source,
        every_day=segment.every_day,
        years=tuple(years),
        exceptional=exceptional,
    )


def _check_dates(year: int, dates: Sequence[date]) -> None:
    if list(dates) != sorted(set(dates)):
        raise ValueError(f"{year}: the days are not in order, or one is there twice")
    if any(day.year != year for day in dates):
        raise ValueError(f"{year}: a day is of another year")


def _by_segment(named: _Segments, sources: Mapping[str, str]) -> dict[str, str]:
    named.members(sources)  # each once
    return {code: source for name, source in sources.items() for code in named.members([name])}


def _exceptional(named: _Segments, day: _Day, sources: Mapping[str, str]) -> dict[str, Exceptional]:
    said = named.members([*day.closed, *day.evening, *day.shortened, *day.special])
    if missing := set(said) - set(sources):
        raise ValueError(f"{day.date}: the year has no source for {missing}")

    def of(code: str) -> str:
        return day.source or sources[code]

    found = {code: Exceptional(day.name, of(code)) for code in named.members(day.closed)}
    for code in named.members(day.evening):
        opens = named.segments[code].evening
        if opens is None:
            raise ValueError(f"{day.date}: {code} has no evening")
        found[code] = Exceptional(day.name, of(code), opens=opens)
    for kind, given in (
        (SessionKind.SHORTENED, day.shortened),
        (SessionKind.SPECIAL, day.special),
    ):
        for name, hours in given.items():
            for code in named.members([name]):
                found[code] = Exceptional(day.name, of(code), kind, hours)
    return found
