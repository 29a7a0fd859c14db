"""From which day until which."""

from datetime import date

import pytest

from openbell.contracts.errors import InvalidRequest
from services.api.spans import Span, ahead, of_year

TODAY = date(2026, 11, 22)
DAY = date(2026, 3, 5)


def test_from_today_on() -> None:
    assert ahead(TODAY, None, None, 30) == Span(TODAY, date(2026, 12, 22))
    assert ahead(TODAY, DAY, None, 30) == Span(DAY, date(2026, 4, 4))
    assert ahead(TODAY, None, TODAY, 30) == Span(TODAY, TODAY)
    assert ahead(TODAY, DAY, date(2027, 4, 8), 30) == Span(DAY, date(2027, 4, 8))


def test_of_a_year() -> None:
    assert of_year(TODAY, None, None) == Span(date(2026, 1, 1), date(2026, 12, 31))
    assert of_year(TODAY, date(2025, 3, 5), None) == Span(date(2025, 3, 5), date(2025, 12, 31))
    assert of_year(TODAY, None, date(2025, 3, 5)) == Span(date(2025, 1, 1), date(2025, 3, 5))


@pytest.mark.parametrize(
    ("first", "last"),
    [(TODAY, DAY), (None, DAY), (DAY, date(2027, 4, 9)), (date(2000, 1, 1), date(2100, 12, 31))],
)
def test_what_is_no_span_or_too_long(first: date | None, last: date) -> None:
    with pytest.raises(InvalidRequest) as refused:
        ahead(TODAY, first, last, 30)
    assert refused.value.errors is not None
    assert refused.value.errors[0]["field"] == "to"
