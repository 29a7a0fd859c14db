"""A wall clock that was set, and a host that slept."""

from datetime import UTC, datetime, timedelta

import pytest

from services.scheduler.clock import ClockWatch

NINE = datetime(2026, 11, 19, 9, tzinfo=UTC)


@pytest.mark.parametrize(
    ("jumped", "noticed"),
    [(3600, True), (-3600, True), (600, True), (-3, True), (0, False), (0.5, False), (-1, False)],
)
def test_a_jump_is_noticed_once(jumped: float, noticed: bool) -> None:
    watch = ClockWatch(NINE, 100.0)
    after = NINE + timedelta(seconds=1 + jumped)
    assert watch.jump(after, 101.0) == (timedelta(seconds=jumped) if noticed else None)
    assert watch.jump(after + timedelta(seconds=1), 102.0) is None


def test_a_slow_look_is_no_jump() -> None:
    assert ClockWatch(NINE, 100.0).jump(NINE + timedelta(seconds=30), 130.0) is None
