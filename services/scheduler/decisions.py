"""What to do about one strategy now. Pure: facts and plan in, one decision out.

Level-triggered: the decision depends on what is so, not on which timer or message came, so that
a lost timer, a restart or a second look changes nothing.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from openbell.contracts.model import Cause, ExitReason, Intent, Outlook, RestartPolicy, RunState
from openbell.contracts.schedules import Overlap
from openbell.settings import SchedulerSettings
from services.scheduler.planner import Plan
from services.scheduler.windows import Window


class StartState(StrEnum):
    """What became of a due start."""

    WAITING = "waiting"
    """It could not happen yet."""
    GRANTED = "granted"
    """It is on its way: no process has started for it yet."""
    DONE = "done"
    SKIPPED = "skipped"
    MISSED = "missed"


@dataclass(frozen=True, slots=True)
class LiveRun:
    state: RunState
    granted_at: datetime
    stop_reason: ExitReason | None
    due_at: datetime | None = None
    """The instant at which it was to start; in the future while it is only prepared."""
    started_at: datetime | None = None
    stop_at: datetime | None = None
    """When the window ends that it was granted for, where windows may overlap."""


@dataclass(frozen=True, slots=True)
class EndedRun:
    reason: ExitReason
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What the database says of one strategy."""

    intent: Intent
    intent_at: datetime | None
    run: LiveRun | EndedRun | None
    """The latest run."""
    retry_at: datetime | None
    gave_up: bool
    schedule_at: datetime | None
    """When the schedule was last set."""
    start: StartState | None = None
    """What became of the start of the plan's window."""
    next_start: StartState | None = None
    """What became of the start of the plan's upcoming window, which may be prepared already."""
    stop_at: datetime | None = None
    """The next stop, as the last plan named it that knew."""
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class Start:
    cause: Cause
    window: Window | None = None
    """The window whose start this is."""
    at: datetime | None = None
    """When its process is to start; none: at once."""


@dataclass(frozen=True, slots=True)
class Stop:
    reason: ExitReason


@dataclass(frozen=True, slots=True)
class Decision:
    act: Start | Stop | None = None
    serve: Window | None = None
    """The window whose start needs nothing more: it runs already."""
    skip: Window | None = None
    """The window whose start is left out, since the run before still lives."""
    release_intent: bool = False
    """A run that was started by hand has met its scheduled stop: the schedule decides again."""


NOTHING = Decision()
_BY_SCHEDULE = Stop(ExitReason.STOPPED_BY_SCHEDULE)
_ACTED_ON = {StartState.GRANTED, StartState.DONE, StartState.SKIPPED, StartState.MISSED}


def decide(facts: Facts, plan: Plan, now: datetime, lead: timedelta = timedelta()) -> Decision:
    """What to do now. A start that is at most `lead` away is prepared already."""
    if isinstance(facts.run, LiveRun):
        return _about_live(facts, facts.run, plan, now, lead)
    if facts.deleted or facts.intent is Intent.STOP:
        return NOTHING
    if facts.intent is Intent.RUN:
        if _stop_has_passed(facts, plan, now):
            return Decision(release_intent=True)
        return Decision(act=_start_by_hand(facts, now))
    return Decision(act=_start_by_schedule(facts, plan, now, lead))


def _about_live(facts: Facts, run: LiveRun, plan: Plan, now: datetime, lead: timedelta) -> Decision:
    if run.stop_reason is not None:
        return NOTHING
    if facts.deleted or facts.intent is Intent.STOP:
        return Decision(act=Stop(ExitReason.STOPPED_BY_USER))
    if run.started_at is None and run.due_at is not None and run.due_at > now:
        return NOTHING if _is_still_due(run, plan) else Decision(act=_BY_SCHEDULE)
    if _is_too_long(run, plan, now):
        return Decision(act=Stop(ExitReason.TIME_LIMIT))
    if facts.intent is Intent.RUN and _stop_has_passed(facts, plan, now):
        return Decision(act=_BY_SCHEDULE, release_intent=True)
    if facts.intent is Intent.AUTO and _outside(facts, run, plan, now, lead):
        return Decision(act=_BY_SCHEDULE)
    if plan.window is None or facts.start in _ACTED_ON:
        return NOTHING
    return _about_overlap(facts, run, plan, plan.window)


def _is_still_due(run: LiveRun, plan: Plan) -> bool:
    """Whether what was prepared is still to start then: its schedule, or calendar, may have
    changed meanwhile. What is unknown takes nothing back.
    """
    if plan.outlook is Outlook.UNKNOWN or plan.outlook is Outlook.OPEN:
        return True
    return plan.upcoming is not None and plan.upcoming.start == run.due_at


def _about_overlap(facts: Facts, run: LiveRun, plan: Plan, window: Window) -> Decision:
    """Its start is due, and it runs. What was started by hand is never replaced."""
    earlier = run.granted_at < window.start and run.due_at != window.start
    match plan.overlap:
        case Overlap.QUEUE if earlier:
            return NOTHING
        case Overlap.REPLACE if earlier and facts.intent is Intent.AUTO:
            return Decision(act=_BY_SCHEDULE)
        case None:
            return Decision(serve=window)
        case _:
            return Decision(skip=window) if earlier else Decision(serve=window)


def _is_too_long(run: LiveRun, plan: Plan, now: datetime) -> bool:
    if plan.max_runtime is None or run.started_at is None:
        return False
    return run.started_at + plan.max_runtime <= now


def _outside(facts: Facts, run: LiveRun, plan: Plan, now: datetime, lead: timedelta) -> bool:
    """Whether its window is over. What is unknown forbids a start, and no stop that was known.

    A run may be up before its instant by our clock: its host's is a little ahead, or ours was set
    back by seconds.
    """
    if plan.outlook is Outlook.UNKNOWN:
        stops = [stop for stop in (plan.last_stop, facts.stop_at) if stop is not None]
        return any(run.granted_at < stop <= now for stop in stops)
    if run.stop_at is not None and run.stop_at <= now:
        return True
    window = plan.ahead(now, lead)
    return plan.ends and (window is None or (window.start > now and window.start != run.due_at))


def _stop_has_passed(facts: Facts, plan: Plan, now: datetime) -> bool:
    """Whether a scheduled stop came after the user's word, and after the schedule was set."""
    said = max(filter(None, (facts.intent_at, facts.schedule_at)), default=None)
    stop = plan.last_stop
    if plan.outlook is Outlook.UNKNOWN and facts.stop_at is not None and facts.stop_at <= now:
        stop = facts.stop_at
    return stop is not None and said is not None and stop > said


def _start_by_hand(facts: Facts, now: datetime) -> Start | None:
    match facts.run:
        case EndedRun(_, at) if at and facts.intent_at and at <= facts.intent_at:
            return Start(Cause.MANUAL)
        case EndedRun(reason) if reason.interrupted:
            return Start(_cause_after(reason))
        case EndedRun() if facts.retry_at is not None:
            return Start(Cause.RESTART) if _due(facts, now) else None
        case _:
            return None if facts.gave_up else Start(Cause.MANUAL)


def _start_by_schedule(facts: Facts, plan: Plan, now: datetime, lead: timedelta) -> Start | None:
    """In the window that holds; else for the next one, if that is to be prepared by now."""
    if plan.window is not None:
        start = _start_in(plan.window, facts.start, facts, now)
        if start is not None or facts.retry_at is not None:
            return start
    if plan.upcoming is None or plan.upcoming.start - now > lead:
        return None
    return _start_in(plan.upcoming, facts.next_start, facts, now)


def _start_in(
    window: Window, state: StartState | None, facts: Facts, now: datetime
) -> Start | None:
    """A start that never happened must happen in time, however often it is tried; what has run is
    started again as long as its window holds.
    """
    at = window.start if window.start > now else None
    if state in {None, StartState.WAITING}:
        return Start(Cause.SCHEDULE, window, at) if window.may_start(now) else None
    if state is StartState.MISSED or (state is StartState.GRANTED and not window.may_start(now)):
        return None
    match facts.run:
        case EndedRun(reason) if reason.interrupted:
            return Start(_cause_after(reason), at=at)
        case EndedRun() if facts.retry_at is not None and _due(facts, now):
            return Start(Cause.RESTART, at=at)
        case _:
            return None


def _cause_after(reason: ExitReason) -> Cause:
    """A run that its user stopped, while it should run, was stopped for a restart."""
    return Cause.RESTART if reason is ExitReason.STOPPED_BY_USER else Cause.RESUME


def _due(facts: Facts, now: datetime) -> bool:
    return facts.retry_at is not None and facts.retry_at <= now


@dataclass(frozen=True, slots=True)
class Aftermath:
    """What an exit leaves in the slot."""

    failures: int
    start_failures: int
    retry_at: datetime | None
    gave_up: bool


def restarts(policy: RestartPolicy, reason: ExitReason) -> bool:
    """Whether a run that ended so, by itself, is followed by another: a start that failed always
    is, for it is still due.
    """
    if reason is ExitReason.START_FAILED:
        return True
    return policy is RestartPolicy.ALWAYS or (reason.failed and policy is not RestartPolicy.NEVER)


def after_exit(
    policy: RestartPolicy,
    reason: ExitReason,
    failures: int,
    lasted: timedelta,
    now: datetime,
    settings: SchedulerSettings,
    start_failures: int = 0,
) -> Aftermath:
    """Whether and when a run that ended is followed by another.

    Failures in a row double the pause, up to the longest; a healthy run clears the count. Starts
    that failed are counted apart: they are the host's fault, not the script's, and it is due all
    the same, whatever the policy says.
    """
    if reason is ExitReason.START_FAILED:
        pause = _pause(start_failures, settings)
        return Aftermath(failures, start_failures + 1, now + pause, gave_up=False)
    if reason.interrupted:
        return Aftermath(failures, start_failures, None, gave_up=False)
    if lasted.total_seconds() >= settings.healthy_after_s:
        failures = 0
    if reason.finished:
        pause = timedelta(seconds=settings.first_retry_s)
        again = restarts(policy, reason)
        return Aftermath(0, 0, now + pause if again else None, gave_up=False)
    failures += 1
    if not restarts(policy, reason):
        return Aftermath(failures, 0, None, gave_up=False)
    if failures >= settings.max_failures:
        return Aftermath(failures, 0, None, gave_up=True)
    return Aftermath(failures, 0, now + _pause(failures - 1, settings), gave_up=False)


def _pause(failures: int, settings: SchedulerSettings) -> timedelta:
    """The pause after so many earlier failures."""
    seconds = settings.first_retry_s * 2 ** min(failures, 30)
    return timedelta(seconds=min(seconds, settings.longest_retry_s))
