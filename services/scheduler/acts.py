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
    StartSkipped,
    StrategyGaveUp,
)
from openbell.contracts.model import (
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
from services.scheduler.cases import DONE, GRANTED, MISSED, SKIPPED, START, STOP, WAITING, Case
from services.scheduler.decisions import Start, after_exit
from services.scheduler.runners import Runners
from services.scheduler.windows import Window

NO_RUNNER = "no runner is connected"
STILL_RUNS = "the run before still lived"


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
            self._confirm_start(case, run, event.at)
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

    def _confirm_start(self, case: Case, run: Run, at: datetime) -> None:
        """The occurrence is done when its process has started, and not when that was asked for."""
        due = run.due_at
        occurrence = case.occurrences.get((due, START)) if due else None
        if due and occurrence is not None and occurrence.state == GRANTED:
            occurrence.state, occurrence.updated_at = DONE, self._now
            occurrence.late_s = (at - due).total_seconds()

    def grant(self, case: Case, start: Start) -> None:
        slot, window = case.slot, start.window
        runner = self._runners.pick(case.run.runner if case.run else None)
        if runner is None:
            self._delay(case, window, NO_RUNNER)
            return
        due = case.due_at(window) if window else self._unmet(case) or start.at
        slot.epoch += 1
        slot.state, slot.runner, slot.run_id = (
            SlotState.HELD,
            runner,
            f"{slot.strategy_id}-{slot.epoch}",
        )
        slot.waiting, slot.retry_at = None, None
        if window:
            slot.failures, slot.gave_up = 0, False
            self.record(case, window.start, START, GRANTED if due else DONE)
        case.run = Run(
            id=slot.run_id,
            strategy_id=slot.strategy_id,
            owner=slot.owner,
            epoch=slot.epoch,
            runner=runner,
            cause=start.cause,
            version=case.strategy.version,
            granted_at=self._now,
            due_at=due,
        )
        self._session.add(case.run)
        late_s = max(0.0, (self._now - due).total_seconds()) if due else None
        self.tell(case, RunGranted, runner=runner, cause=start.cause, due_at=due, late_s=late_s)

    def _unmet(self, case: Case) -> datetime | None:
        """The due start that earlier runs were granted for, and that none has met yet."""
        window = case.plan.ahead(self._now, case.lead)
        start = case.occurrences.get((window.start, START)) if window else None
        return start.instant if start is not None and start.state == GRANTED else None

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
            self.record(case, due, STOP, DONE, late_s=(self._now - due).total_seconds())
        self.tell(case, RunStopping, reason=reason)

    def forget_retry(self, case: Case) -> None:
        """Outside its window a crashed run is not started again before the next one."""
        if case.slot.intent == Intent.AUTO and case.plan.ahead(self._now, case.lead) is None:
            case.slot.retry_at = None

    def skip(self, case: Case, window: Window) -> None:
        """Its start is due, and left out: by its own rules, the run before goes on instead."""
        self.record(case, window.start, START, SKIPPED, detail=STILL_RUNS)
        self.tell(case, StartSkipped, due_at=window.start, reason=STILL_RUNS)

    def account(self, case: Case) -> None:
        """Each window that is over, and in which nothing was started, was missed, and says so.

        Unless its user had stopped it, or it ran all the same. Each is looked at once.
        """
        if not case.over:
            return
        for window in case.over:
            start = case.occurrences.get((window.start, START))
            if start is None or start.state in {WAITING, GRANTED}:
                self._account(case, window, start)
        case.slot.accounted_until = self._now

    def _account(self, case: Case, window: Window, start: Occurrence | None) -> None:
        slot, run = case.slot, case.run
        if start is not None and start.state == GRANTED and run is not None and run.live:
            return  # it is on its way
        by_hand = slot.intent_at is not None and slot.intent_at > window.start
        if slot.intent == Intent.STOP or by_hand:
            return
        if (start is None or start.state == WAITING) and _was_live(run, window.start):
            if case.plan.overlap is not None:
                self.skip(case, window)
            return
        if window.start <= self._schedule_at(case):
            return
        why = self._why_missed(case, start)
        self.record(case, window.start, START, MISSED, detail=why)
        self.tell(case, StartMissed, due_at=window.start, reason=why)

    def _why_missed(self, case: Case, start: Occurrence | None) -> str:
        if start is None:
            return "Openbell was not running"
        if start.state == GRANTED and case.run is not None and case.run.exit_reason is not None:
            return case.run.detail or f"its run ended as {case.run.exit_reason}"
        return start.detail or "it could not be started in time"

    def _schedule_at(self, case: Case) -> datetime:
        assert case.schedule is not None
        return case.schedule.updated_at

    def record(
        self,
        case: Case,
        instant: datetime,
        action: str,
        state: str,
        *,
        late_s: float | None = None,
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
        occurrence.late_s = late_s
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
        """What comes next; of a run that is prepared, what comes after its start."""
        slot, now = case.slot, case.plan
        slot.schedule_at = case.schedule.updated_at if case.schedule else None
        slot.warning = now.warning
        unknown = now.outlook is Outlook.UNKNOWN
        then = case.prepared or now
        next_stop = then.next_stop or (slot.next_stop if unknown else None)
        next_stop = min(filter(None, (next_stop, case.deadline())), default=None)
        outlook, reason = self._outlook(case)
        comes = (then.next_start, next_stop, outlook, reason)
        if comes == (slot.next_start, slot.next_stop, slot.outlook, slot.outlook_reason):
            return
        if unknown and slot.outlook != Outlook.UNKNOWN and not case.live:
            self.tell(case, StartDelayed, reason=reason)
        slot.next_start, slot.next_stop, slot.outlook, slot.outlook_reason = comes
        self.tell(
            case,
            PlanChanged,
            next_start=then.next_start,
            next_stop=next_stop,
            outlook=outlook,
            reason=reason,
        )

    def _outlook(self, case: Case) -> tuple[Outlook, str]:
        """As its plan says, unless the start of the window that holds has been missed for good."""
        window = case.plan.window
        start = case.occurrences.get((window.start, START)) if window else None
        if case.live or start is None or start.state != MISSED:
            return case.plan.outlook, case.plan.reason
        return Outlook.PAUSED, f"its start was missed ({start.detail}); it skips late starts"

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
