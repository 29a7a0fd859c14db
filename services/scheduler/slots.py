"""Acts on decisions: grants, stops and ends runs, each in one transaction with its events.

Never twice: a run is granted only by the transaction that finds the slot free and raises its
epoch. Whoever comes second, in this process or in another scheduler, finds it held.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from openbell.contracts.base import Event
from openbell.contracts.commands import Standing
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
)
from openbell.db.models import Occurrence, Run
from openbell.outbox import Outbox
from openbell.settings import SchedulerSettings
from services.scheduler.cases import DONE, MISSED, START, STOP, WAITING, Case, Cases, Dispatch
from services.scheduler.decisions import Start, Stop, after_exit, decide
from services.scheduler.planner import Window
from services.scheduler.runners import Runners

NO_RUNNER = "no runner is connected"


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
            return [self._settle(case)]
        return []

    async def _runner_came_up(self, event: RunnerCameUp) -> list[Settled]:
        """A run that its runner once had, and does not know any more, is lost.

        One that is merely granted may not have reached the runner yet: it is sent again.
        """
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

    def _advance(self, case: Case, run: Run, event: RunReported) -> None:
        run.state = event.state
        if event.state is RunState.RUNNING:
            run.started_at = event.at
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
        slot.state, slot.runner = SlotState.FREE, None
        after = after_exit(
            RestartPolicy(case.strategy.restart),
            reason,
            slot.failures,
            event.at - run.started_at if run.started_at else timedelta(),
            self._now,
            self._settings,
        )
        slot.failures, slot.retry_at, slot.gave_up = after.failures, after.retry_at, after.gave_up
        finished = not reason.interrupted and after.retry_at is None and not after.gave_up
        if slot.intent == Intent.RUN and finished:
            slot.intent = Intent.AUTO
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

    # ---- looking at strategies

    async def settle(self, ids: Sequence[str]) -> list[Settled]:
        """Look at these strategies, and do what is due."""
        cases = await self._cases.load(ids)
        await self._declare_missed(cases)
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
        if reason is ExitReason.STOPPED_BY_SCHEDULE and case.plan.last_stop:
            self._record(case, case.plan.last_stop, STOP, DONE)
        self._tell(case, RunStopping, reason=reason)

    async def _declare_missed(self, cases: Iterable[Case]) -> None:
        """A start that was waiting when its window closed did not happen, and says so."""
        by_id = {case.strategy.id: case for case in cases}
        waiting = select(Occurrence).where(
            col(Occurrence.state) == WAITING, col(Occurrence.strategy_id).in_(by_id)
        )
        for occurrence in (await self.session.exec(waiting)).all():
            case = by_id[occurrence.strategy_id]
            if case.plan.window and case.plan.window.start == occurrence.instant:
                continue
            occurrence.state, occurrence.updated_at = MISSED, self._now
            self.session.add(occurrence)
            why = occurrence.detail or "its window closed"
            self._tell(case, StartMissed, due_at=occurrence.instant, reason=why)

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
        known = case.occurrence if action == START else None
        occurrence = known or Occurrence(
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
        if action == START:
            case.occurrence = occurrence

    def _intend(self, case: Case, intent: Intent) -> None:
        slot = case.slot
        slot.failures, slot.retry_at, slot.gave_up, slot.waiting = 0, None, False, None
        slot.intent_at = self._now
        if slot.intent != intent:
            slot.intent = intent
            self._tell(case, IntentChanged, intent=intent)

    def _replan(self, case: Case) -> None:
        slot, new = case.slot, case.plan
        comes = (new.next_start, new.next_stop, new.outlook, new.reason)
        if comes == (slot.next_start, slot.next_stop, slot.outlook, slot.outlook_reason):
            return
        slot.next_start, slot.next_stop, slot.outlook, slot.outlook_reason = comes
        self._tell(
            case,
            PlanChanged,
            next_start=new.next_start,
            next_stop=new.next_stop,
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
        moments = (case.plan.next_start, case.plan.next_stop, case.slot.retry_at)
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


def _doing(run: Run | None) -> str:
    if run is None:
        return "running"
    return "stopping" if run.stop_reason else str(run.state)
