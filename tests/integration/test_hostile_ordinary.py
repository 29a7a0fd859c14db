"""An Openbell that is not root, and strategies that do their worst: they are its own user.

Where its host permits namespaces, they keep each strategy apart; limits are only watched, unless
the user was given control groups.
"""

from collections.abc import Generator

import pytest

from tests.fixtures import attacked, ordinary
from tests.fixtures.hostile import Ground, opened_by_ordinary_user
from tests.hostile.endings import WATCHED
from tests.hostile.verdicts import not_kept_out


@pytest.fixture(scope="module")
def ground() -> Generator[Ground]:
    if not ordinary.permitted():
        pytest.skip("this host lets no ordinary user have namespaces")
    with opened_by_ordinary_user() as made:
        assert (made.able["own_user"], made.able["namespaces"]) == ("no", "yes")
        yield made


def test_each_probe_is_kept_out(ground: Ground) -> None:
    assert not_kept_out(attacked.probed(ground), ground.expected) == {}


@pytest.mark.parametrize("name", WATCHED)
def test_who_takes_more_than_its_share_is_seen_and_ended(ground: Ground, name: str) -> None:
    attacked.is_ended(ground, name, WATCHED)


@pytest.mark.parametrize("name", ["escaped", "frozen"])
def test_who_would_stay_is_stopped_with_all_it_has(ground: Ground, name: str) -> None:
    attacked.is_stopped(ground, name)


def test_who_signals_everybody_reaches_itself_alone(ground: Ground) -> None:
    attacked.signals_itself_alone(ground)


def test_nothing_went_wrong_within_the_product(ground: Ground) -> None:
    """Last of all: what it has met was foreseen."""
    ground.has_met_no_surprise()
