"""A mistake in the data fails a test, not a trading day."""

from copy import deepcopy
from datetime import date, time
from typing import Any

import pytest

from services.calendar.facts import DATA, build, load, read

SOURCE = "a circular"
SEGMENTS: dict[str, Any] = {
    "groups": {"both": ["AAA", "BBB"]},
    "segments": {
        code: {
            "name": "An exchange",
            "timezone": "Asia/Kolkata",
            "source": SOURCE,
            "usual": [{"since": date(2024, 1, 1), "hours": "09:15-15:30"}],
        }
        for code in ("AAA", "BBB")
    },
}
DAY: dict[str, Any] = {"date": date(2026, 1, 26), "name": "Republic Day", "closed": ["both"]}
SPECIAL: dict[str, Any] = {
    "date": date(2026, 2, 1),
    "name": "Union Budget",
    "special": {"AAA": ["09:15-10:00", "11:30-12:30"]},
}


def year(*days: dict[str, Any], **sources: str) -> dict[str, Any]:
    return {"sources": sources or {"both": SOURCE}, "days": list(days)}


def test_what_there_is_can_be_read() -> None:
    found = load()
    assert [*found] == ["NSE", "BSE", "NFO", "BFO", "CDS", "BCD", "MCX", "NCO", "CRYPTO"]
    assert all(facts.years == (2024, 2025, 2026) for code, facts in found.items() if code[0] != "C")
    assert all(
        exceptional.source for facts in found.values() for exceptional in facts.exceptional.values()
    )


def test_a_year_without_rows_is_not_covered() -> None:
    found = build(SEGMENTS, {2026: year(DAY), 2027: year(AAA=SOURCE)})
    assert found["AAA"].years == (2026, 2027)
    assert found["BBB"].years == (2026,)


def test_a_row_may_say_several_things() -> None:
    found = build(SEGMENTS, {2026: year(DAY, SPECIAL)})
    hours = found["AAA"].exceptional[date(2026, 2, 1)].hours
    assert [(each.opens, each.closes) for each in hours] == [
        (time(9, 15), time(10)),
        (time(11, 30), time(12, 30)),
    ]
    assert found["BBB"].exceptional.keys() == {date(2026, 1, 26)}


def changed(row: dict[str, Any], **more: Any) -> dict[str, Any]:
    return row | more


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (year(changed(DAY, closd=["AAA"])), "closd"),
        (year(changed(DAY, closed=["AAB"])), "AAB"),
        (year(changed(DAY, closed=[])), "nothing is said"),
        (year(changed(DAY, closed=["both", "AAA"])), "twice"),
        (year(changed(DAY, shortened={"AAA": ["09:15-10:00"]})), "twice"),
        (year(changed(DAY, date=date(2026, 1, 25))), "weekend"),
        (year(changed(DAY, date=date(2025, 1, 27))), "another year"),
        (year(DAY, DAY), "twice"),
        (year(SPECIAL, DAY), "order"),
        (year(changed(DAY, name="")), "name"),
        (year(changed(DAY, evening=["AAA"], closed=[])), "no evening"),
        (year(DAY, AAA=SOURCE), "no source"),
        (year(changed(SPECIAL, special={"AAA": ["9:15-15:30"]})), "09:15-15:30"),
        (year(changed(SPECIAL, special={"AAA": ["09:15 to 15:30"]})), "09:15-15:30"),
        (year(changed(SPECIAL, special={"AAA": ["09:15-25:30"]})), "hour"),
        (year(changed(SPECIAL, special={"AAA": ["11:30-12:30", "09:15-10:00"]})), "order"),
        (year(changed(SPECIAL, special={"AAA": ["09:15-12:30", "11:00-13:00"]})), "overlap"),
        (year(changed(SPECIAL, special={"AAA": []})), "at least 1"),
        (year(both="", AAA=SOURCE), "sources"),
        (year(both=SOURCE, AAA=SOURCE), "twice"),
    ],
)
def test_a_mistaken_row_is_refused(rows: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        build(SEGMENTS, {2026: rows})


def test_a_gap_between_years_is_refused() -> None:
    with pytest.raises(ValueError, match="gap"):
        build(SEGMENTS, {2024: year(), 2026: year()})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("timezone", "Asia/Calcuta"),
        ("every_day", True),
        ("usual", []),
        ("usual", [{"since": date(2024, 1, 1), "hours": "09:15"}]),
        ("usual", [{"since": date(2026, 1, 1), "hours": "09:15-15:30"}] * 2),
        ("surprise", 1),
        ("source", ""),
    ],
)
def test_a_mistaken_segment_is_refused(key: str, value: Any) -> None:
    segments = deepcopy(SEGMENTS)
    segments["segments"]["AAA"][key] = value
    with pytest.raises(ValueError, match=r"AAA|segments"):
        build(segments, {2026: year(DAY)})


@pytest.mark.parametrize("groups", [{"both": ["AAA", "CCC"]}, {"AAA": ["BBB"]}])
def test_a_mistaken_group_is_refused(groups: dict[str, list[str]]) -> None:
    with pytest.raises(ValueError, match=r"CCC|AAA"):
        build(SEGMENTS | {"groups": groups}, {})


def test_a_close_is_after_its_open_in_what_there_is() -> None:
    """An overnight day would be read as one without an end of its own."""
    for file in (DATA / "days").glob("*.toml"):
        for day in read(file)["days"]:
            for hours in (*day.get("special", {}).values(), *day.get("shortened", {}).values()):
                assert all(each[:5] < each[6:] for each in hours), day
