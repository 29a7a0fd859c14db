"""What can be done to a strategy: grant, stop, end, record. Each leaves rows and their events.

Never twice: a run is granted only in a transaction that has found the slot free, and that raises
its epoch. Whoever comes second, in this process or in another scheduler, finds it held.
"""

from datetime import datetime, timedelta
from typing import overload

from sqlmodel.ext.asyncio.session import AsyncSession

from openbell.contracts.base import Event
from openbell.contracts.events import (
    IntentChanged,
    PlanChanged,
    RunExited,
    RunGranted,
    RunParked,
    RunReported,
    RunStarted,
    RunStopping,
    StartDelayed,
    StartMissed,
    StartSkipped,
    StrategyGaveUp,
)
from openbell.contracts.limits import Usage
from openbell.contracts.model import (
    Cause,
    ExitReason,
    Intent,
    Outlook,
    RunState,
    SlotState,
)
from openbell.db.models import Occurrence, Run
from openbell.outbox import Outbox
from openbell.settings import SchedulerSettings
from services.scheduler import needs
from services.scheduler.admission import Admission
from services.scheduler.cases import START, STOP, Case
from services.scheduler.decisions import Start, StartState, after_exit, restarts
from services.scheduler.runners import Runners
from services.scheduler.vacancies import NO_ROOM
from services.scheduler.windows import Window

STILL_RUNS = "the run before still lived"
ON_ITS_WAY = timedelta(minutes=1)
"""How long a granted start may go unheard of, after its window too, before it counts as missed."""
MOMENT = timedelta(microseconds=1)


class Acts:
    """On one case at a time, inside one transaction, at one moment."""

    def __init__(
        self,
        session: AsyncSession,
        now: datetime,
        outbox: Outbox,
        runners: Runners,
        settings: SchedulerSettings,
        up_since: datetime,
    ) -> None:
        self._session = session
        self._now = now
        self._outbox = outbox
        self._admission = Admission(session, runners)
        self._settings = settings
        self._up_since = up_since
        """Since when this scheduler has looked."""

    def advance(self, case: Case, run: Run, event: RunReported) -> None:
        run.state = event.state
        if event.state is RunState.PREPARING and event.detail:
            case.slot.waiting = _kept_text(event.detail)
            self.tell(case, StartDelayed, reason=case.slot.waiting)
        elif event.state is RunState.PARKED:
            run.detail = _kept_text(event.detail)
            self.tell(case, RunParked, detail=run.detail)
        elif event.state is RunState.RUNNING:
            run.started_at = event.at
            case.slot.waiting, case.slot.start_failures = None, 0
            self._confirm_start(case, run, event.at)
            late_s = (event.at - run.due_at).total_seconds() if run.due_at else None
            self.tell(case, RunStarted, started_at=event.at, late_s=late_s)
        elif event.state is RunState.STOPPING and run.stop_reason is None:
            run.stop_reason = event.reason
            self.tell(case, RunStopping, reason=event.reason)
        elif event.state is RunState.EXITED:
            self._end(case, run, event)

    def _end(self, case: Case, run: Run, event: RunReported) -> None:
        reason = event.reason or ExitReason.LOST
        run.exited_at, run.reason = event.at, reason
        _keep_record(run, event)
        slot = case.slot
        slot.state, slot.runner, slot.waiting = SlotState.FREE, None, None
        decisive = run.decisive_reason
        slot.working_memory_bytes = needs.learn(
            slot.working_memory_bytes, run.working_memory_bytes, failed=decisive.failed
        )
        self._admission.look_again()
        if run.started_at is None and run.stop_reason is not None:
            self._take_back(case, run)
        after = after_exit(
            case.strategy.policy.restart,
            decisive,
            slot.failures,
            event.at - run.started_at if run.started_at else timedelta(),
            self._now,
            self._settings,
            slot.start_failures,
        )
        finished = not decisive.interrupted and after.retry_at is None and not after.gave_up
        slot.failures, slot.start_failures = after.failures, after.start_failures
        slot.retry_at, slot.gave_up = after.retry_at, after.gave_up
        self.forget_retry(case)
        self.tell(
            case,
            RunExited,
            reason=reason,
            exit_code=run.exit_code,
            signal=run.signal,
            detail=run.detail,
            retry_at=slot.retry_at,
            headline=run.headline,
            usage=run.usage,
        )
        if after.gave_up:
            self.tell(case, StrategyGaveUp, failures=after.failures)
        if finished:
            self._release(case)

    def _release(self, case: Case) -> None:
        """What was started by hand is over: the schedule decides again."""
        if case.slot.intent == Intent.RUN:
            case.slot.intent = Intent.AUTO
            self.tell(case, IntentChanged, intent=Intent.AUTO)

    def _confirm_start(self, case: Case, run: Run, at: datetime) -> None:
        """The occurrence is done when its process has started, and not when that was asked for.

        Also of one that was given up as missed, since its runner could not be heard.
        """
        start = self._granted_start(case, run)
        if start is not None and run.due_at is not None:
            start.state, start.updated_at = StartState.DONE, self._now
            start.late_s, start.detail = (at - run.due_at).total_seconds(), None

    def _take_back(self, case: Case, run: Run) -> None:
        """Its start was prepared, and left out before its instant: its user, schedule or calendar
        would have it so.
        """
        start = self._granted_start(case, run)
        if start is not None and start.state == StartState.GRANTED:
            start.state, start.updated_at = StartState.SKIPPED, self._now
            start.detail = f"taken back: {run.stop_reason}"

    def _granted_start(self, case: Case, run: Run) -> Occurrence | None:
        """The due start that this run was granted for."""
        begun_before = case.start_of(case.plan.window)
        at_its_instant = case.occurrences.get((run.due_at, START)) if run.due_at else None
        for start in (at_its_instant, begun_before):
            if start is not None and start.state in {StartState.GRANTED, StartState.MISSED}:
                return start
        return None

    async def grant(self, case: Case, start: Start) -> None:
        """Or let it wait, and say why."""
        slot, window = case.slot, start.window
        previous = case.run.runner if case.run else None
        policy = case.strategy.policy
        expected = needs.expected(
            slot.working_memory_bytes,
            policy.limits.memory_mb,
            forked=policy.interpreter == "shared" and self._admission.forks,
        )
        runner, why = await self._admission.admit(previous, expected)
        if runner is None:
            self._delay(case, window, why)
            return
        unmet = None if window else self._unmet(case)
        due = case.due_at(window) if window else unmet or start.at
        cause = Cause.SCHEDULE if unmet else start.cause
        slot.epoch += 1
        slot.state, slot.runner, slot.run_id = (
            SlotState.HELD,
            runner,
            f"{slot.strategy_id}-{slot.epoch}",
        )
        slot.waiting, slot.waiting_since, slot.retry_at = None, None, None
        if window:
            slot.failures, slot.start_failures, slot.gave_up = 0, 0, False
            self.record(case, window.start, START, StartState.GRANTED)
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
            expected_memory_bytes=expected,
        )
        self._session.add(case.run)
        late_s = max(0.0, (self._now - due).total_seconds()) if due else None
        self.tell(case, RunGranted, runner=runner, cause=cause, due_at=due, late_s=late_s)

    def _unmet(self, case: Case) -> datetime | None:
        """The due start that earlier runs were granted for, and that none has met yet."""
        for window in (case.plan.window, case.plan.upcoming):
            start = case.start_of(window)
            if window and start is not None and start.state == StartState.GRANTED:
                return case.due_at(window)
        return None

    def _delay(self, case: Case, window: Window | None, why: str) -> None:
        """Said once: while there is no room, how little of it there is changes all the time."""
        slot = case.slot
        if window:
            self.record(case, window.start, START, StartState.WAITING, detail=why)
        if slot.waiting_since is None:
            slot.waiting_since = case.due_at(window) if window else slot.retry_at or self._now
        said = slot.waiting or ""
        if said != why and not (said.startswith(NO_ROOM) and why.startswith(NO_ROOM)):
            slot.waiting = why
            self.tell(case, StartDelayed, reason=why)

    def stop(self, case: Case, reason: ExitReason) -> None:
        assert case.run is not None
        if case.run.stop_reason is not None:
            return
        case.run.stop_reason, case.run.stop_asked_at = reason, self._now
        self._session.add(case.run)
        due = case.plan.last_stop
        if reason is ExitReason.STOPPED_BY_SCHEDULE and due and due > case.run.granted_at:
            self.record(case, due, STOP, StartState.DONE, late_s=(self._now - due).total_seconds())
        self.tell(case, RunStopping, reason=reason)

    def forget_retry(self, case: Case) -> None:
        """Outside its window a crashed run is not started again before the next one."""
        slot, plan = case.slot, case.plan
        if slot.retry_at is None or slot.intent != Intent.AUTO or plan.outlook is Outlook.UNKNOWN:
            return
        if case.run and plan.upcoming and case.run.due_at == plan.upcoming.start:
            return  # it was prepared for what is still to come, by a lead that was longer
        window = plan.ahead(self._now, case.lead)
        if window is None or (window.until is not None and window.until <= slot.retry_at):
            slot.retry_at = None

    def reconsider_retry(self, case: Case) -> None:
        """Its policy may have been changed since its run ended: it is not started again then."""
        slot, run = case.slot, case.run
        if slot.retry_at is None or run is None or run.live:
            return
        if not restarts(case.strategy.policy.restart, run.decisive_reason):
            slot.retry_at = None
            self._release(case)

    def skip(self, case: Case, window: Window) -> None:
        """Its start is due, and left out: by its own rules, the run before goes on instead."""
        self.record(case, window.start, START, StartState.SKIPPED, detail=STILL_RUNS)
        run = case.run
        if run is not None:
            run.skipped += 1
        if run is None or run.skipped == 1:  # once a run: it may outlive thousands of them
            self.tell(case, StartSkipped, due_at=window.start, reason=STILL_RUNS)

    def account(self, case: Case) -> None:
        """Each window that is over, and in which nothing was started, was missed, and says so.

        Unless its user had stopped it, or it ran all the same. Each is looked at once; one whose
        start is on its way, again.
        """
        accounted = self._now if case.over else None
        for number, window in enumerate(case.over):
            before = case.over_before if number == 0 else 0
            if not self._account(case, window, before) and accounted == self._now:
                accounted = window.start_until - MOMENT if window.start_until else None
        if accounted is not None:
            case.slot.accounted_until = accounted

    def _account(self, case: Case, window: Window, before: int) -> bool:
        """False: it is not known yet what becomes of it."""
        slot, run, start = case.slot, case.run, case.start_of(window)
        if start is not None and start.state not in {StartState.WAITING, StartState.GRANTED}:
            return True
        if start is None and self._is_excused(case, window):
            return True
        if start is not None and start.state == StartState.GRANTED:
            if run is not None and run.live and self._now - run.granted_at < ON_ITS_WAY:
                return False
        elif _was_live(run, window.start):
            if case.plan.overlap is not None:
                self.skip(case, window)
            return True
        if slot.intent == Intent.STOP:
            return True
        why = self._why_missed(case, window, start)
        if before:
            why = f"{why}; and {before} before it"
        self.record(case, window.start, START, StartState.MISSED, detail=why)
        if case.plan.window is not None and case.plan.window.start == window.start:
            slot.retry_at = None
        self.tell(case, StartMissed, due_at=window.start, reason=why)
        return True

    def _is_excused(self, case: Case, window: Window) -> bool:
        """Of a start that was never tried: its user had decided otherwise, or set the schedule
        after it.
        """
        slot, schedule = case.slot, case.schedule
        by_hand = slot.intent_at is not None and slot.intent_at > window.start
        return by_hand or schedule is None or window.start <= schedule.updated_at

    def _why_missed(self, case: Case, window: Window, start: Occurrence | None) -> str:
        run = case.run
        if start is not None and start.state == StartState.WAITING:
            return start.detail or "it could not be started in time"
        if start is not None and run is not None and run.exit_reason is not None:
            return run.detail or f"its run ended as {run.exit_reason}"
        if start is not None:
            return case.slot.waiting or "its runner did not start it in time"
        if case.slot.outlook == Outlook.UNKNOWN:
            return case.slot.outlook_reason
        if window.start < self._up_since:
            return "Openbell was not running"
        return "its time was over before Openbell could act"

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
            schedule_revision=0,
            updated_at=self._now,
        )
        occurrence.schedule_revision = case.schedule.revision if case.schedule else 0
        occurrence.state, occurrence.detail, occurrence.updated_at = state, detail, self._now
        occurrence.attempts += 1
        occurrence.late_s = late_s
        self._session.add(occurrence)
        case.occurrences[instant, action] = occurrence

    def intend(self, case: Case, intent: Intent) -> None:
        slot = case.slot
        slot.failures, slot.start_failures, slot.gave_up = 0, 0, False
        slot.retry_at, slot.waiting = None, None
        slot.intent_at = self._now
        if slot.intent != intent:
            slot.intent = intent
            self.tell(case, IntentChanged, intent=intent)

    def replan(self, case: Case) -> None:
        """What comes next; of a run that is prepared, what comes after its start.

        While the calendar does not know, what it said last stands, until its instant has come.
        """
        slot, now = case.slot, case.plan
        slot.schedule_at = case.schedule.updated_at if case.schedule else None
        next_start, next_stop = self._next(case)
        outlook, reason = self._outlook(case)
        comes = (next_start, next_stop, outlook, reason, now.warning)
        if comes == (
            slot.next_start,
            slot.next_stop,
            slot.outlook,
            slot.outlook_reason,
            slot.warning,
        ):
            return
        slot.next_start, slot.next_stop, slot.outlook, slot.outlook_reason, slot.warning = comes
        self.tell(
            case,
            PlanChanged,
            next_start=next_start,
            next_stop=next_stop,
            outlook=outlook,
            reason=reason,
        )

    def _next(self, case: Case) -> tuple[datetime | None, datetime | None]:
        """The next start and stop. Says that a start is delayed whose day is not known any more."""
        slot, then = case.slot, case.prepared or case.plan
        start, stop = then.next_start, then.next_stop
        if case.live and case.stop_at is not None and case.plan.overlap is not None:
            stop = case.stop_at
        if case.plan.outlook is Outlook.UNKNOWN:
            start = start or slot.next_start
            stop = stop or (
                slot.next_stop if slot.next_stop and slot.next_stop > self._now else None
            )
            if start is not None and start <= self._now:
                start = None
                if not case.live and slot.intent == Intent.AUTO:
                    self.tell(case, StartDelayed, reason=case.plan.reason)
        return start, min(filter(None, (stop, case.deadline())), default=None)

    def _outlook(self, case: Case) -> tuple[Outlook, str]:
        """As its plan says, unless the start of the window that holds has been missed for good."""
        window = case.plan.window
        start = case.start_of(window)
        if case.live or window is None or window.may_start(self._now):
            return case.plan.outlook, case.plan.reason
        if start is None or start.state != StartState.MISSED:
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


def _keep_record(run: Run, event: RunReported) -> None:
    """What it leaves behind, as far as the database can keep it: what it refused would come again,
    and no later report would ever be taken.
    """
    usage = event.usage or Usage()
    run.exit_code, run.signal = _kept_number(event.exit_code), _kept_text(event.signal)
    run.detail, run.headline = _kept_text(event.detail), _kept_text(event.headline)
    run.last_lines = [line.replace("\0", "") for line in event.last_lines]
    run.peak_memory_bytes, run.cpu_s = _kept_number(usage.peak_memory_bytes), usage.cpu_s
    run.working_memory_bytes = _kept_number(usage.working_memory_bytes)
    run.refused = _kept_number(usage.refused)
    run.out_of_memory = _kept_number(usage.out_of_memory)


@overload
def _kept_number(value: int) -> int: ...
@overload
def _kept_number(value: int | None) -> int | None: ...
def _kept_number(value: int | None) -> int | None:
    """Of 64 bits."""
    return None if value is None else max(-(2**63), min(value, 2**63 - 1))


def _kept_text(value: str | None) -> str | None:
    """PostgreSQL keeps no NUL."""
    return value.replace("\0", "") if value else None


def _was_live(run: Run | None, at: datetime) -> bool:
    if run is None or run.started_at is None or run.started_at > at:
        return False
    return run.exited_at is None or run.exited_at > at
