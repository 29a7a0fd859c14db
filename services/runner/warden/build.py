"""Which release of the warden this is: told by its source, so that no number can be forgotten."""

from __future__ import annotations

import hashlib
from pathlib import Path


def _build() -> str:
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


BUILD = _build()
