"""Logs of runs on this host: kept within bounds, read, followed, searched, and masked.

The strategy itself writes its log; `runlog.py` knows where each byte of it is by now. All that
leaves the host goes through `reading.py`, which masks it.
"""

from services.runner.logs.ending import last_lines
from services.runner.logs.files import log_file
from services.runner.logs.headline import headline

__all__ = ["headline", "last_lines", "log_file"]
