"""What scripts import that many may share: imported once, by a zygote, before they are started."""

import ast
from collections.abc import Iterator

SHAREABLE = frozenset(
    {
        *("apscheduler", "dateutil", "httpx", "numpy", "openalgo", "pandas", "pytz"),
        *("requests", "scipy", "websocket"),
    }
)
"""Packages that hold nothing at their import which a fork would lose: no threads, no connections,
no files. The zygote looks at each once more, as far as it can be seen.
"""


def shareable(source: bytes) -> tuple[str, ...]:
    """None of them, where the source cannot be read: its own interpreter will say why."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()
    names = {name for statement in tree.body for name in _imported(statement)}
    return tuple(sorted(name for name in names if name.partition(".")[0] in SHAREABLE))


def _imported(statement: ast.stmt) -> Iterator[str]:
    """By a statement of the top level, which `try` and `if` are part of."""
    match statement:
        case ast.Import(names=names):
            yield from (alias.name for alias in names)
        case ast.ImportFrom(module=str(module), level=0):
            yield module
        case ast.Try(body=body) | ast.If(body=body):
            for inner in body:
                yield from _imported(inner)
        case _:
            pass
