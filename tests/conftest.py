pytest_plugins = [
    "tests.fixtures.default_environment",
    "tests.fixtures.openalgo_server",
    "tests.fixtures.stack",
]
