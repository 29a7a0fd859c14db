"""Sources and locks, by their hash: from the store, which api fills from the database."""

import hashlib

from openbell.bus import Bus
from openbell.contracts.commands import PublishArtifact
from openbell.contracts.errors import ServiceUnavailable


class Artifacts:
    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def get(self, sha256: str) -> bytes:
        """Raises ServiceUnavailable, and UnknownRun when nobody has it."""
        body = await self._bus.get_artifact(sha256)
        if body is None:
            await self._bus.request(PublishArtifact(sha256=sha256))
            body = await self._bus.get_artifact(sha256)
        if body is None or hashlib.sha256(body).hexdigest() != sha256:
            raise ServiceUnavailable("the artifact store does not hold this source")
        return body
