"""The first page: a list of strategies that stays live."""

from pathlib import Path

PAGE = Path(__file__).parent
