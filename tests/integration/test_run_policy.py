"""A strategy's policy in the scheduler's hands, and the records of its runs, on a real database."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from openbell.contracts.commands import StartRun, StopRun
from openbell.contracts.limits import Limits, RunPolicy, StopPolicy, Usage, Watchdogs
from openbell.contracts.model import ExitReason, RestartPolicy, RunState, StopStep
from openbell.db.models import Run, Slot, Strategy
from tests.integration.test_slots import MARKET, NINE_FIFTEEN, THURSDAY, Desk, desk, scenario

TIGHT = RunPolicy(
    limits=Limits(memory_mb=64, processes=8, cpus=0.5),
    watchdogs=Watchdogs(quiet_s=30, heartbeat_s=5),
    stop=StopPolicy(signals=("SIGTERM",), grace_s=3),
    restart=RestartPolicy.NEVER,
)
AT_LIMITS = (
    *(ExitReason.MEMORY_LIMIT, ExitReason.CPU_LIMIT, ExitReason.PROCESS_LIMIT),
    *(ExitReason.DISK_LIMIT, ExitReason.STALLED),
)
NEVER = RunPolicy(restart=RestartPolicy.NEVER)
ALWAYS = RunPolicy(restart=RestartPolicy.ALWAYS)


async def set_policy(scheduler: Desk, policy: RunPolicy) -> None:
    async with scheduler.database.write() as session:
        strategy = await session.get_one(Strategy, "s")
        strategy.policy = policy
        session.add(strategy)


async def started(scheduler: Desk, **schedule: Any) -> None:
    """Running, by its schedule, since 09:15."""
    scheduler.runner_appears()
    await scheduler.settle(NINE_FIFTEEN)
    await scheduler.report(NINE_FIFTEEN, 1, RunState.RUNNING)


@scenario
async def test_a_run_is_started_and_stopped_as_its_policy_says(tmp_path: Path) -> None:
    async with desk(tmp_path) as scheduler:
        await set_policy(scheduler, TIGHT)
        scheduler.runner_appears()
        settled = await scheduler.at(THURSDAY, lambda slots: slots.start("s"))
        start = settled.dispatch.command
        assert isinstance(start, StartRun)
        assert (start.limits, start.watchdogs) == (TIGHT.limits, TIGHT.watchdogs)
        ladder = (StopStep(signal="SIGTERM", wait_s=3), StopStep(signal="SIGKILL", wait_s=0))
        assert start.ladder == ladder
        await scheduler.report(THURSDAY, 1, RunState.RUNNING)
        await set_policy(scheduler, RunPolicy(stop=StopPolicy(signals=(), grace_s=3)))
        settled = await scheduler.at(THURSDAY, lambda slots: slots.stop("s"))
        stop = settled.dispatch.command
        assert isinstance(stop, StopRun)
        assert stop.ladder == (StopStep(signal="SIGKILL", wait_s=0),)


@pytest.mark.parametrize("reason", AT_LIMITS)
def test_a_run_that_ended_at_a_limit_is_started_again_unless_its_policy_is_never(
    tmp_path: Path, reason: ExitReason
) -> None:
    async def scene() -> None:
        async with desk(tmp_path, MARKET) as scheduler:
            await started(scheduler)
            later = NINE_FIFTEEN + timedelta(minutes=1)
            await scheduler.report(later, 1, RunState.STOPPING, reason=reason)
            await scheduler.report(later, 1, RunState.EXITED, reason=reason, signal="SIGKILL")
            slot = await scheduler.one(Slot)
            assert (slot.failures, slot.retry_at) == (1, later + timedelta(seconds=1))
            await scheduler.settle(slot.retry_at)
            await scheduler.report(slot.retry_at, 2, RunState.RUNNING)
            await set_policy(scheduler, NEVER)
            await scheduler.report(slot.retry_at, 2, RunState.EXITED, reason=reason)
            slot = await scheduler.one(Slot)
            assert (slot.failures, slot.retry_at, slot.gave_up) == (2, None, False)
            await scheduler.settle(later + timedelta(hours=1))
            assert len(await scheduler.rows(Run)) == 2

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("policy", "again"), [(NEVER, False), (RunPolicy(), False), (ALWAYS, True)]
)
def test_a_run_that_lasted_its_longest_is_started_again_only_by_always(
    tmp_path: Path, policy: RunPolicy, again: bool
) -> None:
    async def scene() -> None:
        async with desk(tmp_path, MARKET) as scheduler:
            await set_policy(scheduler, policy)
            await started(scheduler)
            later = NINE_FIFTEEN + timedelta(minutes=1)
            await scheduler.report(later, 1, RunState.STOPPING, reason=ExitReason.TIME_LIMIT)
            await scheduler.report(later, 1, RunState.EXITED, reason=ExitReason.TIME_LIMIT)
            await scheduler.settle(later + timedelta(minutes=10))
            slot = await scheduler.one(Slot)
            assert (len(await scheduler.rows(Run)), slot.failures) == (1 + again, 0)

    asyncio.run(scene())


@scenario
async def test_a_restart_that_is_taken_back_does_not_happen(tmp_path: Path) -> None:
    async with desk(tmp_path) as scheduler:
        scheduler.runner_appears()
        await scheduler.at(THURSDAY, lambda slots: slots.start("s"))
        await scheduler.report(THURSDAY, 1, RunState.RUNNING)
        later = THURSDAY + timedelta(minutes=1)
        await scheduler.report(later, 1, RunState.EXITED, reason=ExitReason.STALLED)
        assert (await scheduler.one(Slot)).retry_at is not None
        await set_policy(scheduler, NEVER)
        await scheduler.at(later, lambda slots: slots.look("s"))
        slot = await scheduler.one(Slot)
        assert (slot.retry_at, slot.intent) == (None, "auto")
        await scheduler.settle(later + timedelta(minutes=10))
        assert len(await scheduler.rows(Run)) == 1


@scenario
async def test_a_start_that_failed_is_tried_again_whatever_the_policy_becomes(
    tmp_path: Path,
) -> None:
    async with desk(tmp_path, MARKET) as scheduler:
        scheduler.runner_appears()
        await scheduler.settle(NINE_FIFTEEN)
        await scheduler.report(NINE_FIFTEEN, 1, RunState.EXITED, reason=ExitReason.START_FAILED)
        await set_policy(scheduler, NEVER)
        await scheduler.settle(NINE_FIFTEEN)
        assert (await scheduler.one(Slot)).retry_at is not None


@scenario
async def test_what_a_run_leaves_behind_is_kept_and_told(tmp_path: Path) -> None:
    usage = Usage(peak_memory_bytes=5 * 2**30, cpu_s=1.25, refused=3, out_of_memory=1)
    async with desk(tmp_path, MARKET) as scheduler:
        await started(scheduler)
        await scheduler.report(
            NINE_FIFTEEN,
            1,
            RunState.EXITED,
            reason=ExitReason.CRASHED,
            exit_code=1,
            usage=usage,
            headline="ZeroDivisionError:\0 division by zero",
            last_lines=("Traceback \u20b9", "half a \0 line"),
        )
        run = await scheduler.one(Run)
        assert run.usage == usage
        assert run.headline == "ZeroDivisionError: division by zero"
        assert run.last_lines == ["Traceback \u20b9", "half a  line"]
        (told,) = [one for one in await scheduler.told() if "headline" in one]
        assert told["headline"] == run.headline
        assert told["usage"] == usage.model_dump()


@scenario
async def test_whatever_a_runner_tells_of_an_end_is_kept_as_far_as_a_database_can(
    tmp_path: Path,
) -> None:
    """Were it refused, the reports that come after it would never be taken."""
    huge = Usage(peak_memory_bytes=10**30, cpu_s=1.5, refused=2**40, out_of_memory=-(10**30))
    async with desk(tmp_path, MARKET) as scheduler:
        await started(scheduler)
        await scheduler.report(
            NINE_FIFTEEN,
            1,
            RunState.EXITED,
            reason=ExitReason.CRASHED,
            exit_code=0xC0000005,
            signal="SIG\0KILL",
            detail="an access\0 violation",
            usage=huge,
        )
        run = await scheduler.one(Run)
        kept = Usage(peak_memory_bytes=2**63 - 1, cpu_s=1.5, refused=2**40, out_of_memory=-(2**63))
        assert (run.usage, run.exit_code) == (kept, 0xC0000005)
        assert (run.signal, run.detail) == ("SIGKILL", "an access violation")
        (told,) = [one for one in await scheduler.told() if "headline" in one]
        assert (told["usage"], told["detail"]) == (kept.model_dump(), run.detail)


@scenario
async def test_why_a_start_is_not_ready_yet_may_hold_a_nul(tmp_path: Path) -> None:
    async with desk(tmp_path, MARKET) as scheduler:
        scheduler.runner_appears()
        await scheduler.settle(NINE_FIFTEEN)
        await scheduler.report(NINE_FIFTEEN, 1, RunState.PREPARING, detail="no \0network")
        assert (await scheduler.one(Slot)).waiting == "no network"


@scenario
async def test_of_an_end_that_nobody_saw_nothing_is_known(tmp_path: Path) -> None:
    async with desk(tmp_path, MARKET) as scheduler:
        await started(scheduler)
        await scheduler.report(NINE_FIFTEEN, 1, RunState.EXITED, reason=ExitReason.LOST)
        run, _resumed = await scheduler.rows(Run)
        assert (run.headline, run.last_lines, run.usage) == (None, [], Usage())
