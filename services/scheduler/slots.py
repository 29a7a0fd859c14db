"""What schedulers are asked and told, each within one transaction: look, decide, act."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from openbell.contracts.commands import Standing, StartRun, StopRun
from openbell.contracts.errors import StrategyIsRunning, UnknownStrategy
from openbell.contracts.events import (
    IntentChanged,
    RunnerCameUp,
    RunReported,
    StartDelayed,
)
from openbell.contracts.model import (
    ExitReason,
    Intent,
    Outlook,
    RunState,
    stop_ladder,
)
from openbell.db.models import Run
from services.scheduler.acts import Acts
from services.scheduler.cases import START, Case, Cases, Dispatch
from services.scheduler.decisions import Start, StartState, Stop, decide

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

    def __init__(self, session: AsyncSession, now: datetime, cases: Cases, acts: Acts) -> None:
        self.session = session
        self.strays: list[Dispatch] = []
        """What must be told besides, once the transaction is committed."""
        self._now = now
        self._cases = cases
        self._acts = acts
        self._known: dict[str, Case] = {}

    # ---- what users ask for

    async def expect(self, ids: Sequence[str]) -> None:
        """Read together what will be asked of each of these; and lock them in one order."""
        self._known = {case.strategy.id: case for case in await self._load(ids)}

    async def start(self, strategy_id: str) -> Settled:
        """Raises UnknownStrategy, StrategyIsRunning."""
        case = await self._existing(strategy_id)
        if case.prepared is not None:  # it starts in a moment: taken as asked for by hand
            self._acts.intend(case, Intent.RUN)
            return await self._settle(case, note="it is prepared, and starts at its instant")
        if case.live:
            raise StrategyIsRunning(f"{case.strategy.name} is already {_doing(case.run)}")
        self._acts.intend(case, Intent.RUN)
        return await self._settle(case)

    async def stop(self, strategy_id: str) -> Settled:
        """Raises UnknownStrategy."""
        case = await self._existing(strategy_id)
        was_live = case.live
        self._acts.intend(case, Intent.STOP)
        return await self._settle(case, note=None if was_live else "it was not running")

    async def stop_all(self, ids: Sequence[str]) -> list[Settled]:
        cases = await self._load(ids)
        for case in cases:
            self._acts.intend(case, Intent.STOP)
        return [await self._settle(case) for case in cases]

    async def restart(self, strategy_id: str) -> Settled:
        """Raises UnknownStrategy."""
        case = await self._existing(strategy_id)
        scheduled = case.live and case.slot.intent == Intent.AUTO and case.plan.window is not None
        self._acts.intend(case, Intent.AUTO if scheduled else Intent.RUN)
        if case.live:
            self._acts.stop(case, ExitReason.STOPPED_BY_USER)
        return await self._settle(case)

    async def resume(self, strategy_id: str) -> Settled:
        """Raises UnknownStrategy."""
        case = await self._existing(strategy_id)
        self._acts.intend(case, Intent.AUTO)
        return await self._settle(case)

    async def retire(self, strategy_id: str) -> Settled:
        """Raises UnknownStrategy, StrategyIsRunning."""
        case = await self._existing(strategy_id)
        if case.live:
            raise StrategyIsRunning(f"{case.strategy.name} is {_doing(case.run)}")
        return await self.stop(strategy_id)

    async def look(self, strategy_id: str) -> Settled:
        """Raises UnknownStrategy."""
        return await self._settle(await self._existing(strategy_id))

    # ---- what runners report

    async def reported(self, events: Sequence[RunReported | RunnerCameUp]) -> list[Settled]:
        """In their order. Those of one strategy after another are read together."""
        settled: list[Settled] = []
        await self._cases.lock(await self._named(events))
        for is_run, some in groupby(events, lambda event: isinstance(event, RunReported)):
            if is_run:
                settled += await self._runs_reported(
                    [e for e in some if isinstance(e, RunReported)]
                )
                continue
            for event in some:
                assert isinstance(event, RunnerCameUp)
                settled += await self._runner_came_up(event)
        return settled

    async def _named(self, events: Sequence[RunReported | RunnerCameUp]) -> list[str]:
        """All strategies that these are about, to be locked in one order, or two schedulers would
        wait for each other.
        """
        runners = [event.runner for event in events if isinstance(event, RunnerCameUp)]
        named = {event.strategy_id for event in events if isinstance(event, RunReported)}
        if runners:
            live = col(Run.state) != RunState.EXITED
            query = select(Run.strategy_id).where(col(Run.runner).in_(runners), live)
            named.update((await self.session.exec(query)).all())
        return sorted(named)

    async def _runs_reported(self, events: Sequence[RunReported]) -> list[Settled]:
        ids = sorted({event.strategy_id for event in events})
        cases = {case.strategy.id: case for case in await self._load(ids)}
        touched: dict[str, Case] = {}
        for event in events:
            case = cases.get(event.strategy_id)
            if case is not None and self._is_of_its_run(case, event):
                touched[event.strategy_id] = case
                if self._is_news(case, event):
                    assert case.run is not None
                    self._acts.advance(case, case.run, event)
            elif event.state is RunState.RUNNING:
                self._end_stray(event.runner, event.run_id, event.strategy_id, event.epoch)
        return [await self._settle(case) for case in touched.values()]

    def _is_of_its_run(self, case: Case, event: RunReported) -> bool:
        """Not of an earlier epoch, told twice or late; nor in the name of another's run; nor of
        one that is known to have ended.
        """
        run = case.run
        if run is None or (run.epoch, run.id, run.runner) != (
            event.epoch,
            event.run_id,
            event.runner,
        ):
            return False
        return run.live or event.state is not RunState.RUNNING

    def _is_news(self, case: Case, event: RunReported) -> bool:
        return case.run is not None and event.state.rank > RunState(case.run.state).rank

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
                self._acts.tell(case, StartDelayed, reason=why)
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
            return await self._runs_reported([event])
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
            settled += await self._runs_reported([lost])
        return settled

    async def _live_ids(self, run_ids: Sequence[str]) -> set[str]:
        query = select(Run.id).where(col(Run.id).in_(run_ids), col(Run.state) != RunState.EXITED)
        return set((await self.session.exec(query)).all())

    # ---- looking at strategies

    async def settle(self, ids: Sequence[str]) -> list[Settled]:
        """Look at these strategies, each in its turn, and do what is due."""
        cases = sorted(await self._load(ids), key=lambda case: case.turn)
        return [await self._settle(case) for case in cases]

    async def _load(self, ids: Sequence[str]) -> list[Case]:
        """What is over is accounted for before anything new is decided."""
        cases = await self._cases.load(ids)
        for case in cases:
            self._acts.account(case)
        return cases

    async def _existing(self, strategy_id: str) -> Case:
        """As it was expected, unless something was done to it since. Raises UnknownStrategy."""
        case = self._known.pop(strategy_id, None)
        if case is None:
            found = await self._load([strategy_id])
            case = found[0] if found else None
        if case is None or case.strategy.deleted_at is not None:
            raise UnknownStrategy(f"there is no strategy {strategy_id}")
        return case

    async def _settle(self, case: Case, note: str | None = None) -> Settled:
        self._acts.reconsider_retry(case)
        decision = decide(case.facts(self._now), case.plan, self._now, case.lead)
        if decision.release_intent:
            case.slot.intent = Intent.AUTO
            self._acts.tell(case, IntentChanged, intent=Intent.AUTO)
        if decision.serve:
            self._acts.record(case, decision.serve.start, START, StartState.DONE, detail="it runs")
        if decision.skip:
            self._acts.skip(case, decision.skip)
        match decision.act:
            case Start():
                await self._acts.grant(case, decision.act)
                self._cases.foresee(case)
            case Stop(reason):
                self._acts.stop(case, reason)
            case None:
                if not case.live:
                    case.slot.waiting, case.slot.waiting_since = None, None
                    self._acts.forget_retry(case)
        self._acts.replan(case)
        self.session.add(case.slot)
        return Settled(_standing(case, note), case.dispatch(), self._wake_at(case))

    def _wake_at(self, case: Case) -> tuple[datetime, ...]:
        slot = case.slot
        prepare = slot.next_start - case.lead if slot.next_start else None
        moments = (prepare, slot.next_start, slot.next_stop, slot.retry_at)
        return tuple(moment for moment in moments if moment is not None and moment > self._now)


def _standing(case: Case, note: str | None) -> Standing:
    slot = case.slot
    if note is None and slot.intent == Intent.RUN:
        if slot.waiting:
            note = f"it starts as soon as it can: {slot.waiting}"
        elif case.plan.outlook in {Outlook.SCHEDULED, Outlook.PAUSED}:
            note = _outside_words(case.plan.reason)
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


def _outside_words(reason: str) -> str:
    outside = "outside its window"
    return f"started {outside}" if reason == outside else f"started {outside} ({reason})"


def _doing(run: Run | None) -> str:
    if run is None:
        return "running"
    return "stopping" if run.stop_reason else str(run.state)
