"""What must be hidden in a run's log: asked of api, for live and ended runs alike."""

import asyncio
import json
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from openbell import sealing
from openbell.bus import Bus
from openbell.contracts.errors import LogWithheld, OpenbellError
from openbell.contracts.logs import GetLogSecrets
from openbell.redaction import Mask

KEEP_S = 120.0
"""How long secrets stay in memory that nobody asks for."""
MOST = 128
TRIES = 3


@dataclass(frozen=True, slots=True)
class Hidden:
    """What hides these secrets, and which they are."""

    mask: Mask
    version: str


class Secrets:
    def __init__(
        self,
        bus: Bus,
        runner: str,
        key: sealing.RunnerKey,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bus = bus
        self._runner = runner
        self._key = key
        self._monotonic = monotonic
        self._known: OrderedDict[str, tuple[float, Hidden]] = OrderedDict()
        self._asking: dict[str, asyncio.Lock] = {}

    async def of(self, run_id: str, wanted: str) -> Hidden:
        """What hides the secrets that there are: those that are `wanted`, or newer ones.

        Raises LogWithheld.
        """
        self._forget_old()
        known = self._recall(run_id, wanted)
        if known is not None:
            return known
        asking = self._asking.setdefault(run_id, asyncio.Lock())
        try:
            async with asking:
                known = self._recall(run_id, wanted)
                if known is None:
                    known = await self._learn(run_id)
                    self._known[run_id] = self._monotonic(), known
                return known
        except OpenbellError as error:
            raise LogWithheld(f"its secrets are not known: {error.detail}") from error
        finally:
            if not asking.locked():
                self._asking.pop(run_id, None)

    def _recall(self, run_id: str, wanted: str) -> Hidden | None:
        _, known = self._known.get(run_id, (0.0, None))
        if known is None or known.version != wanted:
            return None
        self._known[run_id] = self._monotonic(), known
        self._known.move_to_end(run_id)
        return known

    def _forget_old(self) -> None:
        before = self._monotonic() - KEEP_S
        while self._known:
            run_id, (used, _) = next(iter(self._known.items()))
            if used >= before and len(self._known) <= MOST:
                return
            del self._known[run_id]

    async def _learn(self, run_id: str) -> Hidden:
        """All pages of one version. Raises UnknownRun, SealBroken, ServiceUnavailable."""
        for _ in range(TRIES):
            values: list[str] = []
            version, page, more = "", 0, True
            while more:
                ask = GetLogSecrets(runner=self._runner, run_id=run_id, page=page)
                answer = await self._bus.request(ask)
                if page and answer.version != version:
                    break  # a secret was set meanwhile
                version, more = answer.version, answer.more
                purpose = sealing.for_log(run_id, version, page)
                values += json.loads(self._key.open(answer.sealed, purpose))
                page += 1
            else:
                return Hidden(await asyncio.to_thread(Mask, values), version)
        raise LogWithheld("they change all the time")
