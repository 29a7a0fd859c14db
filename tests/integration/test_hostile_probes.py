"""What a strategy must not be able to see, reach or become: it tries all of it, on a real host."""

import pytest

from tests.fixtures import attacked
from tests.fixtures.hostile import Ground
from tests.hostile.verdicts import EXPECTED, not_kept_out

BOTH_WAYS = pytest.mark.parametrize("ground", ["executed", "forked"], indirect=True, scope="module")


@BOTH_WAYS
def test_each_probe_is_kept_out(ground: Ground) -> None:
    ground.needs("own_user", "namespaces")
    assert ground.expected.keys() == EXPECTED.keys()
    assert not_kept_out(attacked.probed(ground), ground.expected) == {}
