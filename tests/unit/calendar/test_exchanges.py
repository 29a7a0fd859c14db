"""Which exchanges there are, and by which names they are found."""

import importlib
from typing import Any

import pytest

from openbell.contracts.errors import UnknownExchange
from services.calendar.exchanges import all_exchanges, canonical, library_exchanges
from services.calendar.sessions import segments


@pytest.fixture(scope="module")
def library() -> Any:
    return importlib.import_module("exchange_calendars").calendar_utils


def test_we_list_the_calendars_that_the_library_has(library: Any) -> None:
    """Run after each upgrade of it: a new calendar needs a row."""
    assert set(library_exchanges()) == set(library.get_calendar_names(include_aliases=False))


def test_the_librarys_names_stand_for_what_they_do_there(library: Any) -> None:
    for alias, code in library.aliases_to_names().items():
        if alias in segments():
            assert alias == "BSE"  # ours wins, with its special sessions
            continue
        assert canonical(alias) == code, alias


def test_our_own_segments_come_first_and_win() -> None:
    listed = list(all_exchanges())
    assert [each.code for each in listed[: len(segments())]] == [*segments()]
    assert canonical("BSE") == "BSE"
    assert canonical("XBOM") == "XBOM"
    assert {each.code for each in listed} == set(segments()) | set(library_exchanges())


def test_the_list_says_what_is_known_without_the_library() -> None:
    listed = {each.code: each for each in all_exchanges()}
    assert listed["NSE"].covered_until
    assert listed["NSE"].source
    assert listed["XNYS"].covered_until is None
    assert "NASDAQ" in listed["XNYS"].names
    assert listed["XNYS"].timezone == "America/New_York"


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("nse", "NSE"),
        ("NYSE", "XNYS"),
        ("nasdaq", "XNYS"),
        ("LSE", "XLON"),
        ("TSE", "XTKS"),
        ("HKEX", "XHKG"),
        ("CME", "CMES"),
        ("24/5", "24/5"),
        ("US_FUTURES", "us_futures"),
        ("us_futures", "us_futures"),
    ],
)
def test_an_exchange_is_found_by_its_names_in_either_case(name: str, code: str) -> None:
    assert canonical(name) == code


@pytest.mark.parametrize("name", ["", "XYZ", "NSE ", "../NSE", "covered", "N\0SE", "x" * 100_000])
def test_an_unknown_exchange_is_told_together_with_the_known_ones(name: str) -> None:
    with pytest.raises(UnknownExchange) as caught:
        canonical(name)
    assert all(known in caught.value.detail for known in segments())
    assert "NYSE" in caught.value.detail
    assert len(caught.value.detail) < 300
    assert caught.value.status == 422
