"""`python -m bench [NAME ...]`: runs these benchmarks, or all. Fails when a target is missed."""

import importlib
import sys

from bench.figure import Figure

NAMES = (
    "start",
    "bell",
    "planner",
    "list",
    "people",
    "change",
    "memory",
    "fit",
    "boot",
    "tail",
    "log",
    "stop",
    "hostile",
)


def main() -> int:
    figures: list[Figure] = []
    for name in sys.argv[1:] or NAMES:
        for figure in importlib.import_module(f"bench.{name}").measure():
            print(figure, flush=True)
            figures.append(figure)
    return 0 if all(figure.met for figure in figures) else 1


sys.exit(main())
