"""What a strategy must not be able to see, reach or become: it tries all of it, on a real host."""

import pytest

from tests.fixtures.attacked import probed
from tests.fixtures.hostile import Ground
from tests.hostile.verdicts import EXPECTED


@pytest.fixture(scope="module")
def verdicts(ground: Ground) -> dict[str, str]:
    ground.needs("own_user", "namespaces")
    return probed(ground)


@pytest.mark.parametrize("probe", EXPECTED)
def test_it_is_kept_out(verdicts: dict[str, str], probe: str) -> None:
    assert verdicts[probe] in EXPECTED[probe]


def test_each_probe_is_judged(verdicts: dict[str, str]) -> None:
    assert verdicts.keys() == EXPECTED.keys()
