"""Decides what runs. Wires the pure parts to the database, the bus, and the clock."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import structlog
from pydantic import ValidationError
from sqlmodel import col, update
from sqlmodel.ext.asyncio.session import AsyncSession

from openbell.bus import RUNNERS, Bus, Stored, StreamState
from openbell.contracts.base import Done, utc_now
from openbell.contracts.commands import (
    ForgetOutput,
    PlanStrategy,
    Preview,
    PreviewSchedule,
    RestartStrategy,
    ResumeStrategy,
    RetireStrategy,
    Standing,
    StartStrategy,
    StopRun,
    StopStrategies,
    StopStrategy,
    Unstopped,
)
from openbell.contracts.errors import OpenbellError, ServiceUnavailable, UnknownRun
from openbell.contracts.events import (
    RUNNER_EVENT,
    CalendarChanged,
    RunnerCameUp,
    RunReported,
)
from openbell.contracts.model import RunState
from openbell.db.group_commit import GroupCommit
from openbell.db.migrate import require_current
from openbell.db.models import FeedPosition, Run, SchedulerOutbox
from openbell.db.session import Database
from openbell.feed import Feed
from openbell.outbox import Outbox
from openbell.settings import Settings
from services.scheduler.acts import Acts
from services.scheduler.agenda import (
    all_ids,
    exchanges,
    ids_on,
    lead_now,
    moments,
    overdue_ids,
    pending_ids,
    prune_occurrences,
)
from services.scheduler.cases import Cases, Dispatch
from services.scheduler.clock import ClockWatch
from services.scheduler.preview import preview
from services.scheduler.runners import Runners
from services.scheduler.sessions import SessionBook
from services.scheduler.slots import Settled, Slots
from services.scheduler.timers import Timers

CHUNK = 50
"""Strategies that share a transaction when many are looked at, or stopped."""
BREATH_S = 0.01
"""Between two of them, in which whoever waits to write does."""
ALL_EVERY_S = 300
"""How often everything is looked at: what is wrong may show in no row."""
TICK_S = 1.0
"""How often what is overdue is looked for, whoever planned it, and whether the clock jumped."""
SOON_S = 5.0
"""How far ahead timers are set for what another replica may have planned."""
RETRY_S = 1.0
CATCH_UP_S = 3.0

log = structlog.get_logger()
Act = Callable[[Slots, Sequence[str]], Awaitable[list[Settled]]]
"""On strategies that share a transaction."""
Asked = Callable[[Slots, str], Awaitable[Settled]]
"""What a user asks of one."""


class Scheduler:
    """One replica. Several may run: a decision is one transaction, and the second finds it done."""

    def __init__(
        self,
        settings: Settings,
        bus: Bus,
        database: Database,
        clock: Callable[[], datetime] = utc_now,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bus = bus
        self._database = database
        self._clock = clock
        self._monotonic = monotonic
        self._reconcile_s = settings.scheduler.reconcile_s
        self._runners = Runners(appeared=self.look)
        self._book = SessionBook(bus, changed=self._sessions_changed)
        self.outbox = Outbox(SchedulerOutbox, database, bus)
        self._settings = settings.scheduler
        self._up_since = clock()
        self._least_lead = timedelta(seconds=settings.scheduler.lead_s)
        self._lead = self._least_lead
        self._timers = Timers(self._look_at)
        self._commands = GroupCommit(self._carry_out_commands, CHUNK)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._look = asyncio.Event()
        self._everything_at = 0.0
        self._caught_up = asyncio.Event()
        """Set once everything is taken that runners reported before this replica began. Until
        then nothing is decided: a run that has ended would be taken for a live one.
        """

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        self._timers.start()
        await self._bus.on_presence(self._runners.heard)
        await self._bus.on_calendar(self._calendar_changed)
        await self._answer_commands()
        loops = [
            asyncio.create_task(self._reconcile_forever()),
            asyncio.create_task(self._tick_forever()),
            asyncio.create_task(self._listen_to_runners()),
        ]
        try:
            yield
        finally:
            self._timers.stop()
            for task in (*loops, *self._tasks):
                task.cancel()
            await asyncio.gather(*loops, *self._tasks, return_exceptions=True)
            await self._book.close()

    # ---- commands

    async def _answer_commands(self) -> None:
        async def start(command: StartStrategy) -> Standing:
            return await self._command(command.strategy_id, Slots.start)

        async def stop(command: StopStrategy) -> Standing:
            return await self._command(command.strategy_id, Slots.stop)

        async def restart(command: RestartStrategy) -> Standing:
            return await self._command(command.strategy_id, Slots.restart)

        async def resume(command: ResumeStrategy) -> Standing:
            return await self._command(command.strategy_id, Slots.resume)

        async def plan(command: PlanStrategy) -> Standing:
            await self._refresh_sessions([command.strategy_id])  # its exchange may be new to us
            return await self._command(command.strategy_id, Slots.look)

        async def retire(command: RetireStrategy) -> Standing:
            act = Slots.stop if command.stop else Slots.retire
            return await self._command(command.strategy_id, act)

        async def stop_all(command: StopStrategies) -> Unstopped:
            await self._catch_up()
            failed = await self._each(command.strategy_ids, Slots.stop_all)
            return Unstopped(strategy_ids=tuple(failed))

        async def preview_schedule(command: PreviewSchedule) -> Preview:
            return await preview(command, self._book.ask)

        await self._bus.answer(ForgetOutput, self._forget_output)
        await self._bus.answer(PreviewSchedule, preview_schedule)
        await self._bus.answer(StopStrategies, stop_all)
        await self._bus.answer(StartStrategy, start)
        await self._bus.answer(StopStrategy, stop)
        await self._bus.answer(RestartStrategy, restart)
        await self._bus.answer(ResumeStrategy, resume)
        await self._bus.answer(PlanStrategy, plan)
        await self._bus.answer(RetireStrategy, retire)

    async def _forget_output(self, command: ForgetOutput) -> Done:
        forget = update(Run).where(col(Run.id) == command.run_id)
        async with self._database.write() as session:
            await session.exec(forget.values(headline=None, last_lines=[]))
        return Done()

    async def _command(self, strategy_id: str, act: Asked) -> Standing:
        await self._catch_up()
        return await self._commands.add((strategy_id, act))

    async def _carry_out_commands(
        self, asked: Sequence[tuple[str, Asked]]
    ) -> Sequence[Standing | Exception]:
        """A refusal is of its asker alone. What was over by then is accounted for all the same."""
        answers: list[Standing | Exception] = []
        settled: list[Settled] = []
        async with self._transaction() as slots:
            await slots.expect([strategy_id for strategy_id, _ in asked])
            for strategy_id, act in asked:
                try:
                    settled.append(await act(slots, strategy_id))
                except OpenbellError as error:
                    answers.append(error)
                else:
                    answers.append(settled[-1].standing)
        try:
            self._carry_out(settled, slots.strays)
        except Exception:  # it is committed, and must not be done again
            log.exception("what was decided could not be carried out; it is at the next look")
        return answers

    async def _catch_up(self) -> None:
        """Before the caller gives up: a refused command must not be carried out later."""
        try:
            async with asyncio.timeout(CATCH_UP_S):
                await self._caught_up.wait()
        except TimeoutError:
            raise ServiceUnavailable("the scheduler is still reading what happened") from None

    @contextlib.asynccontextmanager
    async def _transaction(self) -> AsyncGenerator[Slots]:
        async with self._database.write() as session:
            now = self._clock()
            acts = Acts(session, now, self.outbox, self._runners, self._settings, self._up_since)
            cases = Cases(session, self._book, now, self._lead)
            yield Slots(session, now, cases, acts)

    # ---- reconciliation

    def look(self) -> None:
        """Look soon at what may need something."""
        self._look.set()

    def _look_at(self, ids: Sequence[str]) -> None:
        self._spawn(self.reconcile(ids))

    async def _reconcile_forever(self) -> None:
        """Everything at first and now and then; what may need something, all the time."""
        await self._caught_up.wait()
        while True:
            began = self._monotonic()
            everything = began >= self._everything_at
            try:
                await self._set_timers()
                await self.reconcile(await self._ids(everything=everything))
                if everything:
                    self._everything_at = began + ALL_EVERY_S
                    await self._prune()
            except Exception:
                log.exception("reconciliation failed; it is tried again")
                await asyncio.sleep(RETRY_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._reconcile_s):
                    await self._look.wait()
            self._look.clear()

    async def _ids(self, *, everything: bool) -> Sequence[str]:
        async with self._database.read() as session:
            if everything:
                return await all_ids(session)
            return await pending_ids(session, self._clock(), self._lead)

    async def _prune(self) -> None:
        async with self._database.write() as session:
            await prune_occurrences(session, self._clock())

    async def _tick_forever(self) -> None:
        """So that nothing hangs for long on a scheduler that died, or on a clock that jumped."""
        await self._caught_up.wait()
        watch = ClockWatch(self._clock(), self._monotonic())
        while True:
            await asyncio.sleep(TICK_S)
            try:
                await self.tick(watch)
            except Exception:
                log.exception("a look at what is overdue failed; it is tried again")

    async def tick(self, watch: ClockWatch) -> None:
        jumped = watch.jump(self._clock(), self._monotonic())
        if jumped is not None:
            self._clock_jumped(jumped)
        await self._set_timers()
        async with self._database.read() as session:
            overdue = await overdue_ids(session, self._clock(), self._lead)
        if overdue:
            await self.reconcile(overdue)

    def _clock_jumped(self, by: timedelta) -> None:
        """Timers wait for instants that come sooner or later now: everything is looked at."""
        log.warning("the clock jumped: every strategy is looked at", by_s=by.total_seconds())
        self._timers.wake_up()
        self._everything_at = 0.0
        self.look()

    def _calendar_changed(self, changed: CalendarChanged) -> None:
        self._book.outdate(changed.segment)
        self._spawn(self._reconcile_on(changed.segment))

    def _sessions_changed(self, segment: str) -> None:
        self._spawn(self._reconcile_on(segment))

    async def _reconcile_on(self, exchange: str) -> None:
        async with self._database.read() as session:
            ids = await ids_on(session, exchange)
        await self.reconcile(ids)

    async def _set_timers(self) -> None:
        """For what comes soon: another replica may have planned it."""
        now = self._clock()
        async with self._database.read() as session:
            self._lead = await lead_now(session, now, self._least_lead)
            until = now + timedelta(seconds=SOON_S)
            for strategy_id, moment in await moments(session, now, until, self._lead):
                self._timers.wake(strategy_id, (moment,))

    async def reconcile(self, ids: Sequence[str]) -> None:
        """Make what is so what should be so, for these strategies."""
        await self._refresh_sessions(ids)
        await self._each(ids, Slots.settle)

    async def _each(self, ids: Sequence[str], act: Act) -> Sequence[str]:
        """Some at a time, in one transaction. Returns those for whom it failed."""
        failed: list[str] = []
        for start in range(0, len(ids), CHUNK):
            chunk = ids[start : start + CHUNK]
            try:
                await self._together(chunk, act)
            except Exception:
                log.exception("strategies could not be handled together")
                failed += await self._apart(chunk, act)
            if start + CHUNK < len(ids):
                await asyncio.sleep(BREATH_S)
        return failed

    async def _together(self, ids: Sequence[str], act: Act) -> None:
        async with self._transaction() as slots:
            settled = await act(slots, ids)
        self._carry_out(settled, slots.strays)

    async def _apart(self, ids: Sequence[str], act: Act) -> Sequence[str]:
        """One by one: what is wrong with one strategy stops no other."""
        failed: list[str] = []
        for strategy_id in ids:
            try:
                await self._together([strategy_id], act)
            except Exception:
                log.exception("a strategy could not be handled", strategy=strategy_id)
                failed.append(strategy_id)
        return failed

    async def _refresh_sessions(self, ids: Sequence[str]) -> None:
        async with self._database.read() as session:
            segments = await exchanges(session, ids)
        await self._book.refresh(segments, self._clock())

    # ---- what runners report

    async def _listen_to_runners(self) -> None:
        while True:
            try:
                await self._follow_runners()
            except Exception:
                log.exception("the runners' stream could not be followed; it begins anew")
            await asyncio.sleep(RETRY_S)

    async def _follow_runners(self) -> None:
        state = await self._bus.stream_state(RUNNERS)
        async with self._database.read() as session:
            after = (await _position(session, state)).sequence
        async for batch in Feed(self._bus, RUNNERS, after, self._caught_up).batches():
            while not await self._take(batch, state):  # noqa: ASYNC110 - a retry, not a wait
                await asyncio.sleep(RETRY_S)

    async def _take(self, batch: Sequence[Stored], state: StreamState) -> bool:
        """Take reports in one transaction with how far they were taken. False: not yet."""
        try:
            async with self._transaction() as slots:
                position = await _position(slots.session, state)
                news = (_decode(m) for m in batch if m.sequence > position.sequence)
                events = [event for event in news if event is not None]
                settled = await slots.reported(events)
                position.sequence = max(position.sequence, batch[-1].sequence)
                slots.session.add(position)
        except Exception:
            log.exception("reports were not taken; they are tried again")
            return False
        self._carry_out(settled, slots.strays)
        if any(isinstance(event, RunnerCameUp) for event in events):
            self.look()  # what it was not there to hear is told again
        if self._runners.wanted and any(map(_ends_a_run, events)):
            self.look()  # it has left room
        return True

    # ---- after the commit

    def _carry_out(self, settled: Sequence[Settled], strays: Sequence[Dispatch] = ()) -> None:
        self.outbox.wake()
        for stray in strays:
            self._spawn(self._dispatch(stray))
        for one in settled:
            self._timers.wake(one.standing.strategy_id, one.wake_at)
            if one.dispatch is not None:
                self._spawn(self._dispatch(one.dispatch))

    async def _dispatch(self, dispatch: Dispatch) -> None:
        """Tell the runner. What it does not hear now, it hears at the next look."""
        command = dispatch.command
        try:
            await self._bus.request(command, dispatch.runner)
        except UnknownRun:
            if isinstance(command, StopRun):
                async with self._transaction() as slots:
                    settled = await slots.never_started(dispatch.runner, command)
                self._carry_out(settled, slots.strays)
        except OpenbellError as error:
            log.warning("not dispatched", run=command.run_id, reason=error.detail)
            async with self._transaction() as slots:
                await slots.unheard(command, f"its runner does not answer: {error.detail}")
            self.outbox.wake()

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("background work failed", exc_info=task.exception())


def _ends_a_run(event: RunReported | RunnerCameUp) -> bool:
    return isinstance(event, RunReported) and event.state is RunState.EXITED


async def _position(session: AsyncSession, state: StreamState) -> FeedPosition:
    """How far the runners' stream was taken; from its start, if it is another stream by now."""
    position = await session.get(FeedPosition, RUNNERS, with_for_update=True)
    if position is None:
        position = FeedPosition(stream=RUNNERS, incarnation=state.incarnation, sequence=0)
    if position.incarnation != state.incarnation:
        position.incarnation, position.sequence = state.incarnation, 0
    return position


def _decode(message: Stored) -> RunReported | RunnerCameUp | None:
    """A report that cannot be read is logged and passed over: it would block all others.

    So is one in another runner's name: the subject says who sent it.
    """
    try:
        event = RUNNER_EVENT.validate_json(message.payload)
    except ValidationError:
        log.exception("an unreadable report", subject=message.subject)
        return None
    if event.subject != message.subject:
        log.error("a report in another's name", subject=message.subject, runner=event.runner)
        return None
    return event


@contextlib.asynccontextmanager
async def serve(settings: Settings, bus: Bus) -> AsyncGenerator[None]:
    await require_current(settings.database_url)
    database = Database(settings.database_url)
    scheduler = Scheduler(settings, bus, database)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(database.close)
        await stack.enter_async_context(scheduler.outbox.publishing())
        await stack.enter_async_context(scheduler.running())
        yield
