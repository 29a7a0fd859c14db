"""A file tells whether a process serves: it is touched while NATS answers, and gone at the end."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from openbell import alive
from tests.fixtures.nats import NatsServer

PATIENCE_S = 30


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.mark.usefixtures("in_a_hurry")
def test_it_is_touched_while_nats_answers_and_not_while_it_is_away(
    nats: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alive, "EVERY_S", 0.01)
    monkeypatch.setattr(alive, "ANSWER_S", 1)
    file = tmp_path / "alive"

    async def scenario() -> None:
        async with nats.bus() as bus:
            async with alive.told(file, [bus]):
                await until(file.exists)
                nats.kill()
                while await bus.is_alive(1):
                    await asyncio.sleep(0.01)
                file.unlink(missing_ok=True)
                for _ in range(3):
                    assert not await bus.is_alive(1)
                assert not file.exists()
                nats.start_again()
                await until(file.exists)
            assert not file.exists()

    asyncio.run(scenario())
