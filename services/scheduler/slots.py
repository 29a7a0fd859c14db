"""Acts on decisions: grants, stops and ends runs, each in one transaction with its events.

Never twice: a run is granted only by the transaction that finds the slot free and raises its
epoch. Whoever comes second, in this process or in another scheduler, finds it held.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from openbell.contracts.base import Event
from openbell.contracts.commands import Standing, StartRun, StopRun
from openbell.contracts.errors import StrategyIsRunning
from openbell.contracts.events import (
    IntentChanged,
    PlanChanged,
    RunExited,
    RunGranted,
    RunnerCameUp,
    RunReported,
    RunStarted,
    RunStopping,
    StartDelayed,
    StartMissed,
    StrategyGaveUp,
)
from openbell.contracts.model import (
    Cause,
    ExitReason,
    Intent,
    Outlook,
    RestartPolicy,
    RunState,
    SlotState,
    stop_ladder,
)
from openbell.db.models import Occurrence, Run
from openbell.outbox import Outbox
from openbell.settings import SchedulerSettings
from services.scheduler.cases import DONE, MISSED, START, STOP, WAITING, Case, Cases, Dispatch
from services.scheduler.decisions import Start, Stop, after_exit, decide
from services.scheduler.planner import Window
from services.scheduler.runners import Runners

NO_RUNNER = "no runner is connected"
STRAY_GRACE_S = 15


@dataclass(frozen=True, slots=True)
class Settled:
    """Where a strategy stands after it was looked at."""

    standing: Standing
    dispatch: Dispatch | None
    wake_at: tuple[datetime, ...]
    """When to look again."""


class Slots:
    """The work of one transaction, at one moment."""

    def __init__(
        self,
        session: AsyncSession,
        now: datetime,
        *,
        cases: Cases,
        outbox: Outbox,
        runners: Runners,
        settings: SchedulerSettings,
    ) -> None:
        self.session = session
        self._now = now
        self._cases = cases
        self._outbox = outbox
        self.strays: list[Dispatch] = []
        """What must be told besides, once the transaction is committed."""
        self._runners = runners
        self._settings = settings

    # ---- what users ask for

    async def start(self, strategy_id: str) -> Settled:
        """Raises UnknownStrategy, StrategyIsRunning."""
        case = await self._cases.existing(strategy_id)
        if case.live:
            raise StrategyIsRunning(f"{case.strategy.name} is already {_doing(case.run)}")
        self._intend(case, Intent.RUN)
        return self._settle(case)

    async def stop(self, strategy_id: str) -> Settled:
        """Raises UnknownStrategy."""
        case = await self._cases.existing(strategy_id)
        was_live = case.live
        self._intend(case, Intent.STOP)
        return self._settle(case, note=None if was_live else "it was not running")

    async def restart(self, strategy_id: str) -> Settled:
        """Raises UnknownStrategy."""
        case = await self._cases.existing(strategy_id)
        scheduled = case.live and case.slot.intent == Intent.AUTO and case.plan.window is not None
        self._intend(case, Intent.AUTO if scheduled else Intent.RUN)
        if case.live:
            self._stop(case, ExitReason.STOPPED_BY_USER)
        return self._settle(case)

    async def resume(self, strategy_id: str) -> Settled:
        """Raises UnknownStrategy."""
        case = await self._cases.existing(strategy_id)
        self._intend(case, Intent.AUTO)
        return self._settle(case)

    async def retire(self, strategy_id: str) -> Settled:
        """Raises UnknownStrategy, StrategyIsRunning."""
        case = await self._cases.existing(strategy_id)
        if case.live:
            raise StrategyIsRunning(f"{case.strategy.name} is {_doing(case.run)}")
        return await self.stop(strategy_id)

    async def look(self, strategy_id: str) -> Settled:
        """Raises UnknownStrategy."""
        return self._settle(await self._cases.existing(strategy_id))

    # ---- what runners report

    async def reported(self, event: RunReported | RunnerCameUp) -> list[Settled]:
        if isinstance(event, RunReported):
            return await self._run_reported(event)
        return await self._runner_came_up(event)

    async def _run_reported(self, event: RunReported) -> list[Settled]:
        for case in await self._cases.load([event.strategy_id]):
            run = case.run
            if run is None or run.epoch != event.epoch or run.id != event.run_id:
                continue  # an earlier epoch: told twice, or told late
            if event.state.rank > RunState(run.state).rank:
                self._advance(case, run, event)
            elif event.state is RunState.RUNNING and not run.live:
                break
            return [self._settle(case)]
        if event.state is RunState.RUNNING:
            self._end_stray(event.runner, event.run_id, event.strategy_id, event.epoch)
        return []

    def _end_stray(self, runner: str, run_id: str, strategy_id: str, epoch: int) -> None:
        """Something runs that nobody grants any more: it must not be a second copy."""
        command = StopRun(
            run_id=run_id,
            strategy_id=strategy_id,
            epoch=epoch,
            reason=ExitReason.FENCED,
            ladder=stop_ladder(STRAY_GRACE_S),
        )
        self.strays.append(Dispatch(runner, command))

    async def unheard(self, command: StartRun | StopRun, why: str) -> list[Settled]:
        """The runner of this run does not answer: said, once, until it does."""
        for case in await self._cases.load([command.strategy_id]):
            run = case.run
            if run is None or run.id != command.run_id or run.state != RunState.GRANTED:
                continue
            if case.slot.waiting != why:
                case.slot.waiting = why
                self._tell(case, StartDelayed, reason=why)
                self.session.add(case.slot)
        return []

    async def never_started(self, runner: str, command: StopRun) -> list[Settled]:
        """The runner does not know this run, and will not start it any more."""
        for case in await self._cases.load([command.strategy_id]):
            run = case.run
            if run is None or run.id != command.run_id or not run.live:
                continue
            unseen = run.started_at is not None
            event = RunReported(
                runner=runner,
                at=self._now,
                run_id=run.id,
                strategy_id=run.strategy_id,
                epoch=run.epoch,
                state=RunState.EXITED,
                reason=ExitReason.LOST if unseen else command.reason,
                detail="its runner does not know it" if unseen else "stopped before it started",
            )
            return await self._run_reported(event)
        return []

    async def _runner_came_up(self, event: RunnerCameUp) -> list[Settled]:
        """A run that its runner once had, and does not know any more, is lost.

        One that is merely granted may not have reached the runner yet: it is sent again.
        """
        live = await self._live_ids(event.run_ids)
        for run_id in event.run_ids:
            strategy_id, _, epoch = run_id.rpartition("-")
            if run_id not in live:
                self._end_stray(event.runner, run_id, strategy_id, int(epoch))
        held = select(Run).where(col(Run.runner) == event.runner, col(Run.state) != RunState.EXITED)
        settled: list[Settled] = []
        for run in (await self.session.exec(held)).all():
            forgotten = run.id not in event.run_ids and run.granted_at < event.at
            if run.state == RunState.GRANTED or not forgotten:
                continue
            lost = RunReported(
                runner=event.runner,
                at=event.at,
                run_id=run.id,
                strategy_id=run.strategy_id,
                epoch=run.epoch,
                state=RunState.EXITED,
                reason=ExitReason.LOST,
                detail="its runner came up without it",
            )
            settled += await self._run_reported(lost)
        return settled

    async def _live_ids(self, run_ids: Sequence[str]) -> set[str]:
        query = select(Run.id).where(col(Run.id).in_(run_ids), col(Run.state) != RunState.EXITED)
        return set((await self.session.exec(query)).all())

    def _advance(self, case: Case, run: Run, event: RunReported) -> None:
        run.state = event.state
        if event.state is RunState.RUNNING:
            run.started_at = event.at
            case.slot.waiting = None
            self._tell(case, RunStarted, started_at=event.at)
        elif event.state is RunState.STOPPING and run.stop_reason is None:
            run.stop_reason = event.reason
            self._tell(case, RunStopping, reason=event.reason)
        elif event.state is RunState.EXITED:
            self._end(case, run, event)

    def _end(self, case: Case, run: Run, event: RunReported) -> None:
        reason = event.reason or ExitReason.LOST
        run.exited_at, run.reason = event.at, reason
        run.exit_code, run.signal, run.detail = event.exit_code, event.signal, event.detail
        slot = case.slot
        slot.state, slot.runner, slot.waiting = SlotState.FREE, None, None
        decisive = run.decisive_reason
        after = after_exit(
            RestartPolicy(case.strategy.restart),
            decisive,
            slot.failures,
            event.at - run.started_at if run.started_at else timedelta(),
            self._now,
            self._settings,
        )
        slot.failures, slot.retry_at, slot.gave_up = after.failures, after.retry_at, after.gave_up
        finished = not decisive.interrupted and after.retry_at is None and not after.gave_up
        self._tell(
            case,
            RunExited,
            reason=reason,
            exit_code=event.exit_code,
            signal=event.signal,
            detail=event.detail,
            retry_at=after.retry_at,
        )
        if after.gave_up:
            self._tell(case, StrategyGaveUp, failures=after.failures)
        if slot.intent == Intent.RUN and finished:
            slot.intent = Intent.AUTO
            self._tell(case, IntentChanged, intent=Intent.AUTO)

    # ---- looking at strategies

    async def settle(self, ids: Sequence[str]) -> list[Settled]:
        """Look at these strategies, and do what is due."""
        cases = await self._cases.load(ids)
        for case in cases:
            self._declare_missed(case)
        return [self._settle(case) for case in cases]

    def _settle(self, case: Case, note: str | None = None) -> Settled:
        decision = decide(case.facts(), case.plan, self._now)
        if decision.release_intent:
            case.slot.intent = Intent.AUTO
            self._tell(case, IntentChanged, intent=Intent.AUTO)
        if decision.serve:
            self._record(case, decision.serve.start, START, DONE, detail="it runs")
        match decision.act:
            case Start(cause, window):
                self._grant(case, cause, window)
            case Stop(reason):
                self._stop(case, reason)
            case None:
                if not case.live:
                    case.slot.waiting = None
                    self._forget_retry(case)
        self._replan(case)
        self.session.add(case.slot)
        return Settled(_standing(case, note), case.dispatch(), self._wake_at(case))

    def _grant(
        self,
        case: Case,
        cause: Cause,
        window: Window | None,
    ) -> None:
        slot = case.slot
        runner = self._runners.pick(case.run.runner if case.run else None)
        if runner is None:
            self._delay(case, window, NO_RUNNER)
            return
        due = window.start if window and not case.always else None
        slot.epoch += 1
        slot.state, slot.runner, slot.run_id = (
            SlotState.HELD,
            runner,
            f"{slot.strategy_id}-{slot.epoch}",
        )
        slot.waiting, slot.retry_at = None, None
        if window:
            slot.failures, slot.gave_up = 0, False
            self._record(case, window.start, START, DONE, late_of=due)
        case.run = Run(
            id=slot.run_id,
            strategy_id=slot.strategy_id,
            owner=slot.owner,
            epoch=slot.epoch,
            runner=runner,
            cause=cause,
            version=case.strategy.version,
            granted_at=self._now,
            due_at=due,
        )
        self.session.add(case.run)
        late_s = (self._now - due).total_seconds() if due else None
        self._tell(case, RunGranted, runner=runner, cause=cause, late_s=late_s)

    def _delay(self, case: Case, window: Window | None, why: str) -> None:
        if window:
            self._record(case, window.start, START, WAITING, detail=why)
        if case.slot.waiting != why:
            case.slot.waiting = why
            self._tell(case, StartDelayed, reason=why)

    def _stop(self, case: Case, reason: ExitReason) -> None:
        assert case.run is not None
        if case.run.stop_reason is not None:
            return
        case.run.stop_reason = reason
        self.session.add(case.run)
        due = case.plan.last_stop
        if reason is ExitReason.STOPPED_BY_SCHEDULE and due and due > case.run.granted_at:
            self._record(case, due, STOP, DONE, late_of=due)
        self._tell(case, RunStopping, reason=reason)

    def _forget_retry(self, case: Case) -> None:
        """Outside its window a crashed run is not started again before the next one."""
        if case.slot.intent == Intent.AUTO and case.plan.window is None:
            case.slot.retry_at = None

    def _declare_missed(self, case: Case) -> None:
        """A window that is over, and in which nothing was started, was missed, and says so.

        Unless its user had stopped it, or it ran all the same.
        """
        window, slot, row = case.plan.last_window, case.slot, case.schedule
        if window is None or row is None or window.start <= row.updated_at:
            return
        start = case.occurrences.get((window.start, START))
        if start is not None and start.state != WAITING:
            return
        by_hand = slot.intent_at is not None and slot.intent_at > window.start
        if slot.intent == Intent.STOP or by_hand or _was_live(case.run, window.start):
            return
        why = (start.detail if start else None) or "Openbell was not running"
        self._record(case, window.start, START, MISSED, detail=why)
        self._tell(case, StartMissed, due_at=window.start, reason=why)

    def _record(
        self,
        case: Case,
        instant: datetime,
        action: str,
        state: str,
        *,
        late_of: datetime | None = None,
        detail: str | None = None,
    ) -> None:
        """Write the occurrence: inserted once, updated by every later attempt."""
        occurrence = case.occurrences.get((instant, action)) or Occurrence(
            strategy_id=case.strategy.id,
            instant=instant,
            action=action,
            state=state,
            schedule_revision=case.schedule.revision if case.schedule else 0,
            updated_at=self._now,
        )
        occurrence.state, occurrence.detail, occurrence.updated_at = state, detail, self._now
        occurrence.attempts += 1
        occurrence.late_s = (self._now - late_of).total_seconds() if late_of else None
        self.session.add(occurrence)
        case.occurrences[instant, action] = occurrence

    def _intend(self, case: Case, intent: Intent) -> None:
        slot = case.slot
        slot.failures, slot.retry_at, slot.gave_up, slot.waiting = 0, None, False, None
        slot.intent_at = self._now
        if slot.intent != intent:
            slot.intent = intent
            self._tell(case, IntentChanged, intent=intent)

    def _replan(self, case: Case) -> None:
        slot, new = case.slot, case.plan
        unknown = new.outlook is Outlook.UNKNOWN
        next_stop = new.next_stop or (slot.next_stop if unknown else None)
        comes = (new.next_start, next_stop, new.outlook, new.reason)
        if comes == (slot.next_start, slot.next_stop, slot.outlook, slot.outlook_reason):
            return
        slot.next_start, slot.next_stop, slot.outlook, slot.outlook_reason = comes
        self._tell(
            case,
            PlanChanged,
            next_start=new.next_start,
            next_stop=next_stop,
            outlook=new.outlook,
            reason=new.reason,
        )

    def _tell(self, case: Case, kind: type[Event], **fields: object) -> None:
        strategy = case.strategy
        if case.run is not None and "run_id" in kind.model_fields:
            fields = {"run_id": case.run.id, "epoch": case.run.epoch, **fields}
        event = kind.model_validate(
            {"owner": strategy.owner, "strategy_id": strategy.id, "at": self._now, **fields}
        )
        self._outbox.add(self.session, event)

    def _wake_at(self, case: Case) -> tuple[datetime, ...]:
        moments = (case.plan.next_start, case.slot.next_stop, case.slot.retry_at)
        return tuple(moment for moment in moments if moment is not None and moment > self._now)


def _standing(case: Case, note: str | None) -> Standing:
    slot = case.slot
    if note is None and slot.intent == Intent.RUN:
        if slot.waiting:
            note = f"it starts as soon as it can: {slot.waiting}"
        elif case.plan.outlook in {Outlook.SCHEDULED, Outlook.PAUSED}:
            note = f"started outside its window: {case.plan.reason}"
    if note is None and slot.intent == Intent.STOP and case.schedule is not None:
        note = "it stays stopped until you start or resume it, whatever its schedule says"
    return Standing(
        strategy_id=slot.strategy_id,
        intent=Intent(slot.intent),
        run_id=slot.run_id if case.live else None,
        epoch=slot.epoch,
        next_start=slot.next_start,
        next_stop=slot.next_stop,
        note=note,
    )


def _was_live(run: Run | None, at: datetime) -> bool:
    return (
        run is not None and run.granted_at <= at and (run.exited_at is None or run.exited_at > at)
    )


def _doing(run: Run | None) -> str:
    if run is None:
        return "running"
    return "stopping" if run.stop_reason else str(run.state)
