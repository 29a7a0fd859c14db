"""What can be done to a strategy: grant, stop, end, record. Each leaves rows and their events.

Never twice: a run is granted only in a transaction that has found the slot free, and that raises
its epoch. Whoever comes second, in this process or in another scheduler, finds it held.
"""

from datetime import datetime, timedelta

from sqlmodel.ext.asyncio.session import AsyncSession

from openbell.contracts.base import Event
from openbell.contracts.events import (
    IntentChanged,
    PlanChanged,
    RunExited,
    RunGranted,
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
from services.scheduler.cases import DONE, MISSED, START, STOP, WAITING, Case
from services.scheduler.decisions import after_exit
from services.scheduler.planner import Window
from services.scheduler.runners import Runners

NO_RUNNER = "no runner is connected"


class Acts:
    """On one case at a time, inside one transaction, at one moment."""

    def __init__(
        self,
        session: AsyncSession,
        now: datetime,
        outbox: Outbox,
        runners: Runners,
        settings: SchedulerSettings,
    ) -> None:
        self._session = session
        self._now = now
        self._outbox = outbox
        self._runners = runners
        self._settings = settings

    def advance(self, case: Case, run: Run, event: RunReported) -> None:
        run.state = event.state
        if event.state is RunState.PREPARING and event.detail:
            case.slot.waiting = event.detail
            self.tell(case, StartDelayed, reason=event.detail)
        elif event.state is RunState.RUNNING:
            run.started_at = event.at
            case.slot.waiting = None
            self.tell(case, RunStarted, started_at=event.at)
        elif event.state is RunState.STOPPING and run.stop_reason is None:
            run.stop_reason = event.reason
            self.tell(case, RunStopping, reason=event.reason)
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
        self.tell(
            case,
            RunExited,
            reason=reason,
            exit_code=event.exit_code,
            signal=event.signal,
            detail=event.detail,
            retry_at=after.retry_at,
        )
        if after.gave_up:
            self.tell(case, StrategyGaveUp, failures=after.failures)
        if slot.intent == Intent.RUN and finished:
            slot.intent = Intent.AUTO
            self.tell(case, IntentChanged, intent=Intent.AUTO)

    def grant(
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
            self.record(case, window.start, START, DONE, late_of=due)
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
        self._session.add(case.run)
        late_s = (self._now - due).total_seconds() if due else None
        self.tell(case, RunGranted, runner=runner, cause=cause, late_s=late_s)

    def _delay(self, case: Case, window: Window | None, why: str) -> None:
        if window:
            self.record(case, window.start, START, WAITING, detail=why)
        if case.slot.waiting != why:
            case.slot.waiting = why
            self.tell(case, StartDelayed, reason=why)

    def stop(self, case: Case, reason: ExitReason) -> None:
        assert case.run is not None
        if case.run.stop_reason is not None:
            return
        case.run.stop_reason = reason
        self._session.add(case.run)
        due = case.plan.last_stop
        if reason is ExitReason.STOPPED_BY_SCHEDULE and due and due > case.run.granted_at:
            self.record(case, due, STOP, DONE, late_of=due)
        self.tell(case, RunStopping, reason=reason)

    def forget_retry(self, case: Case) -> None:
        """Outside its window a crashed run is not started again before the next one."""
        if case.slot.intent == Intent.AUTO and case.plan.window is None:
            case.slot.retry_at = None

    def declare_missed(self, case: Case) -> None:
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
        self.record(case, window.start, START, MISSED, detail=why)
        self.tell(case, StartMissed, due_at=window.start, reason=why)

    def record(
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
        self._session.add(occurrence)
        case.occurrences[instant, action] = occurrence

    def intend(self, case: Case, intent: Intent) -> None:
        slot = case.slot
        slot.failures, slot.retry_at, slot.gave_up, slot.waiting = 0, None, False, None
        slot.intent_at = self._now
        if slot.intent != intent:
            slot.intent = intent
            self.tell(case, IntentChanged, intent=intent)

    def replan(self, case: Case) -> None:
        slot, new = case.slot, case.plan
        slot.schedule_at = case.schedule.updated_at if case.schedule else None
        unknown = new.outlook is Outlook.UNKNOWN
        next_stop = new.next_stop or (slot.next_stop if unknown else None)
        comes = (new.next_start, next_stop, new.outlook, new.reason)
        if comes == (slot.next_start, slot.next_stop, slot.outlook, slot.outlook_reason):
            return
        slot.next_start, slot.next_stop, slot.outlook, slot.outlook_reason = comes
        self.tell(
            case,
            PlanChanged,
            next_start=new.next_start,
            next_stop=next_stop,
            outlook=new.outlook,
            reason=new.reason,
        )

    def tell(self, case: Case, kind: type[Event], **fields: object) -> None:
        strategy = case.strategy
        if case.run is not None and "run_id" in kind.model_fields:
            fields = {"run_id": case.run.id, "epoch": case.run.epoch, **fields}
        event = kind.model_validate(
            {"owner": strategy.owner, "strategy_id": strategy.id, "at": self._now, **fields}
        )
        self._outbox.add(self._session, event)


def _was_live(run: Run | None, at: datetime) -> bool:
    return (
        run is not None and run.granted_at <= at and (run.exited_at is None or run.exited_at > at)
    )
