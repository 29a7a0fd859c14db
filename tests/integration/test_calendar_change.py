"""What an admin says of a day reaches running schedules, whose scheduler looks at nothing else."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from openbell.contracts.base import utc_now
from openbell.contracts.commands import OpenHours, Override, RemoveOverride, SetOverride
from openbell.contracts.model import ExitReason, RunnerInfo
from openbell.db.models import Run, Slot
from openbell.settings import DatabaseSettings, Settings
from services.calendar import service as calendar
from tests.fixtures import databases
from tests.fixtures.nats import NatsServer
from tests.integration.test_slots import MARKET, desk, until, working

TODAY = date(2026, 11, 19)
TEN = datetime(2026, 11, 19, 4, 30, tzinfo=UTC)
"""10:00 in Mumbai."""


def test_a_change_reaches_running_schedules_at_once(nats: NatsServer, tmp_path: Path) -> None:
    async def scene() -> None:
        settings = Settings(
            home=tmp_path,
            database=DatabaseSettings(url=databases.migrated(tmp_path / "test.db")),
        )
        async with (
            desk(tmp_path, MARKET) as known,
            nats.bus() as bus,
            calendar.serve(settings, bus),
            working(tmp_path, bus, reconcile_s=600, clock=lambda: TEN),
        ):
            info = RunnerInfo(
                runner="local", platform="Linux", python="3.11", at=utc_now(), capabilities={}
            )
            await bus.announce(info)

            async def latest() -> Run | None:
                return max(await known.rows(Run), key=lambda run: run.epoch, default=None)

            async def say(hours: tuple[OpenHours, ...], reason: str) -> None:
                override = Override(
                    segment="NSE", day=TODAY, hours=hours, reason=reason, by="admin", at=utc_now()
                )
                await bus.request(SetOverride(override=override))

            await until(lambda: known.rows(Run))
            await say((), "a cyclone")
            await until(_of(latest, lambda run: run.stop_reason is not None))
            run = await latest()
            assert run is not None
            assert run.stop_reason == ExitReason.STOPPED_BY_SCHEDULE
            (slot,) = await known.rows(Slot)
            assert slot.outlook_reason == "NSE is closed: a cyclone"
            assert slot.next_start == TEN + timedelta(hours=23, minutes=15)
            await bus.request(RemoveOverride(segment="NSE", day=TODAY))

            async def open_again() -> bool:
                (slot,) = await known.rows(Slot)
                return slot.outlook == "open"

            await until(open_again)

    asyncio.run(scene())


def _of(
    latest: Callable[[], Awaitable[Run | None]], so: Callable[[Run], bool]
) -> Callable[[], Awaitable[bool]]:
    async def check() -> bool:
        run = await latest()
        return run is not None and so(run)

    return check
