"""Hands a run's variables to the runner that holds it, and to nobody else."""

import asyncio
import base64

from openbell import sealing
from openbell.bus import Bus
from openbell.contracts.commands import GetRunEnvironment, RunEnvironment
from openbell.contracts.errors import ServiceUnavailable
from services.api.vault import Vault


class Delivery:
    def __init__(self, bus: Bus, vault: Vault) -> None:
        self._bus = bus
        self._vault = vault

    async def answer(self, command: GetRunEnvironment) -> RunEnvironment:
        """Sealed to the key that the run's runner announced: a key in the question counts nothing.

        Raises UnknownRun, UnknownSecret, SealBroken, TooLarge, ServiceUnavailable.
        """
        found, runner = await asyncio.gather(
            self._vault.for_run(command.run_id, command.epoch, command.runner),
            self._bus.runner(command.runner),
        )
        if runner is None:
            raise ServiceUnavailable(f"the runner {command.runner} has not announced itself")
        purpose = sealing.for_run(command.run_id, command.epoch)
        sealed = sealing.seal(found.encode(), runner.public_key, purpose)
        return RunEnvironment(sealed=base64.b64encode(sealed))
