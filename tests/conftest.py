pytest_plugins = [
    "tests.fixtures.default_environment",
    "tests.fixtures.openalgo_server",
    "tests.fixtures.postgres",
    "tests.fixtures.stack",
    "tests.fixtures.nats",  # after those that it imports, which must be rewritten for asserts
]
