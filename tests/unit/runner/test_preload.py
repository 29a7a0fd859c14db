"""What of a script's imports may be shared."""

import pytest

from services.runner.preload import shareable


@pytest.mark.parametrize(
    ("source", "shared"),
    [
        ("import numpy as np\nfrom pandas import DataFrame\n", ("numpy", "pandas")),
        ("import scipy.stats, os, scipy.stats\n", ("scipy.stats",)),
        (
            "from apscheduler.schedulers.background import BackgroundScheduler\n",
            ("apscheduler.schedulers.background",),
        ),
        ("try:\n    import pandas\nexcept ImportError:\n    pandas = None\n", ("pandas",)),
        ("if True:\n    import requests\n", ("requests",)),
        ("def later():\n    import pandas\n", ()),
        ("from . import numpy\nfrom .numpy import x\n", ()),
        ("import polars, sklearn, mine\n", ()),
        ("print('unclosed'\n", ()),
        ("x = '\0'\n", ()),
        ("# -*- coding: latin-1 -*-\nimport numpy\nname = 'ü'\n", ("numpy",)),
        ("(" * 10_000, ()),
    ],
)
def test_of_the_imports_at_the_top_those_that_are_known_to_be_shareable(
    source: str, shared: tuple[str, ...]
) -> None:
    assert shareable(source.encode("latin-1")) == shared
