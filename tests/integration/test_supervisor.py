"""The supervisor, over a real bus, with a backend that tells what it was asked."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from openbell.bus import RUNNERS
from openbell.contracts.commands import StartRun
from openbell.contracts.events import RUNNER_EVENT, RunReported
from openbell.contracts.model import ExitReason, StopStep, stop_ladder
from openbell.settings import Settings
from services.runner.backends.base import Capabilities, Observation, Recovery, RunHandle, RunSpec
from services.runner.environments import Environments
from services.runner.supervisor import Supervisor
from tests.fixtures.nats import NatsServer

SOURCE = "5f" * 32
START = StartRun(
    run_id="s-1",
    strategy_id="s",
    strategy_name="s",
    owner="local",
    epoch=1,
    sha256=SOURCE,
    filename="s.py",
    exchange=None,
    ladder=stop_ladder(15),
)
LIVE = RunHandle("process", 1, "s-1", "s", 1, "7:7", START.ladder)


class Remembering:
    """A backend in which `live` runs, and nothing happens."""

    capabilities = Capabilities(
        "process", "none", "none", "none", own_user=False, graceful_stop=True
    )

    def __init__(self, live: tuple[RunHandle, ...]) -> None:
        self.live = live
        self.started: list[str] = []

    async def recover(self) -> Recovery:
        return Recovery(self.live, 0, 0)

    async def start(self, spec: RunSpec) -> RunHandle:
        self.started.append(spec.run_id)
        return LIVE

    async def stop(self, run_id: str, ladder: Sequence[StopStep], reason: ExitReason) -> None: ...

    async def observations(self, after: int) -> AsyncIterator[Observation]:
        await asyncio.Event().wait()
        for observation in ():
            yield observation

    async def acknowledge(self, number: int) -> None: ...

    async def shut_down(self) -> None: ...

    async def close(self) -> None: ...


def test_a_live_run_that_is_told_to_start_again_is_not_reported_as_ended(
    nats: NatsServer, tmp_path: Path
) -> None:
    """Nobody answers for its variables: a start that failed here would free its slot."""

    async def scenario() -> None:
        async with nats.bus() as bus:
            backend = Remembering((LIVE,))
            environments = Environments(tmp_path, tmp_path / "python")
            supervisor = Supervisor(Settings(home=tmp_path), bus, backend, environments)
            await supervisor.start(START)  # before it knows what runs
            async with supervisor.running():
                await supervisor.ready.wait()
                await supervisor.start(START)
                while supervisor._preparing:  # pyright: ignore[reportPrivateUsage]
                    await asyncio.sleep(0)
            last = (await bus.stream_state(RUNNERS)).last
            stored = [await bus.next_stored(RUNNERS, n) for n in range(last)]
            events = [RUNNER_EVENT.validate_json(one.payload) for one in stored if one]
            assert not [event for event in events if isinstance(event, RunReported)]
            assert backend.started == []

    asyncio.run(scenario())
