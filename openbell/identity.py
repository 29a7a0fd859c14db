"""Who is calling. Read-only; used by api and status alike.

There are no accounts yet: whoever reaches the front door, which serves this machine alone, is the
one local user.
"""

from collections.abc import Mapping
from dataclasses import dataclass

LOCAL_OWNER = "local"


@dataclass(frozen=True, slots=True)
class Caller:
    owner: str


def caller(_headers: Mapping[bytes, bytes]) -> Caller:
    return Caller(LOCAL_OWNER)
