import os

import pytest

ON_POSTGRES = os.environ.get("OPENBELL_TEST_DATABASE") == "postgres"

pytest_plugins = [
    "tests.fixtures.default_environment",
    "tests.fixtures.openalgo_server",
    "tests.fixtures.postgres",
    "tests.fixtures.databases",
    "tests.fixtures.stack",
    "tests.fixtures.compose",
    "tests.fixtures.cgroup2",
    "tests.fixtures.wardens",
    "tests.fixtures.ordinary",
    "tests.fixtures.hostile",
    "tests.fixtures.attacked",
    "tests.fixtures.nats",  # after those that it imports, which must be rewritten for asserts
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is about SQLite alone is left out, visibly, where PostgreSQL is tested."""
    for item in items if ON_POSTGRES else []:
        for marker in item.iter_markers("sqlite"):
            reason = f"about SQLite: {marker.args[0]}"
            item.add_marker(pytest.mark.skip(reason=reason))
