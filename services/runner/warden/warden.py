"""Owns the runs: starts, stops, watches them until the last process of each is gone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import asdict, replace
from math import inf
from pathlib import Path

from .host import End, Host, Identity
from .journal import Journal
from .parking import GLANCE, Parking
from .protocol import RUN, Entry, Json, RefusedError, Start, Steps, Stop
from .runs import Run, exit_reason, runs_until

LOOK_AGAIN = 0.25
RETRY = 1.0
LEAST_GAP = 0.02
SHARE = 10
SPELL = 0.1
"""How long we start what is due before we hear, reap and write down again."""
UNWRITTEN = "the start could not be written down"
RECALLED = "it was stopped before its instant"
OVERDUE = "it has run for as long as it may"
AT_ONCE: Steps = (("SIGKILL", 0.0),)


class Warden:
    def __init__(
        self,
        journal: Journal,
        host: Host,
        runs: Iterable[Run],
        clock: Callable[[], float] = time.time,
        held: Iterable[Start] = (),
    ) -> None:
        self._journal = journal
        self._host = host
        self._runs = {run.run: run for run in runs}
        self._mains = {run.main.pid: run for run in self._runs.values() if run.end is None}
        self._clock = clock
        self._parking = Parking(clock)
        for request in held:
            self._parking.hold(request)
        self._over_runs: list[str] = []
        """Those whose end is about to be on disk."""
        self._strangers = True
        """Whether something may be left of runs that earlier wardens have ended."""
        self._unsaved = False
        self._look_at = -inf if self._runs else inf
        self._not_before = -inf

    @property
    def held(self) -> Iterator[Start]:
        return iter(self._parking)

    @property
    def busy(self) -> bool:
        """Runs live or are held, or what became of one is not yet on disk."""
        return bool(self._runs) or bool(self._parking) or self._unsaved

    def is_calm(self, for_s: float) -> bool:
        """Whether nothing that is held is due by then, and nobody is in the midst of a ladder."""
        quiet = all(run.next_at == inf for run in self._runs.values())
        quiet = quiet and not self._host.preparing
        return quiet and self._parking.next_in() >= for_s

    def start(self, request: Start) -> Json:
        """What started; nothing, while it is held."""
        if not self._journal.of(request.run):
            self._admit(request)
            if request.at is None:
                self._launch(request)
            else:
                self._park(request)
        if request.run in self._parking:
            return {}
        return _answer(request.run, self._journal.of(request.run))

    def stop(self, request: Stop) -> Json:
        run = self._runs.get(request.run)
        if parked := self._parking.take(request.run):
            self._host.recall(request.run)
            self._never_started(parked, request.reason, RECALLED)
        elif run is not None:
            self._stop(run, request.reason, request.ladder, request.detail)
        elif not self._journal.of(request.run):
            raise RefusedError("unknown_run", request.run)
        return {}

    def list_runs(self) -> Json:
        live: list[Json] = [
            {
                "run": run.run,
                "strategy": run.strategy,
                "epoch": run.epoch,
                "pid": run.main.pid,
                "start_ticks": run.main.ticks,
                "started_at": run.started_at,
                "keeper": self._host.has_keeper(run.run),
                "state": run.state,
                "ladder": self._journal.of(run.run)[0].ladder,
                "note": self._journal.of(run.run)[0].note,
            }
            for run in self._runs.values()
        ]
        held: list[Json] = [
            {
                "run": parked.run,
                "strategy": parked.strategy,
                "epoch": parked.epoch,
                "state": "parked" if self._host.is_prepared(parked.run) else "preparing",
                "ladder": parked.ladder,
                "note": parked.note,
            }
            for parked in self._parking
        ]
        return {"runs": live + held}

    def attend(self) -> None:
        """One turn: starts what is due, notes who ended, sends what is due, journals the runs
        that are over.
        """
        self._hear_of_prepared()
        self._release()
        self._reap()
        self._end_the_overdue()
        now = time.monotonic()
        wanted = min((run.next_at for run in self._runs.values()), default=inf)
        if now >= max(min(wanted, self._look_at), self._not_before):
            self._look(now)
        self.commit()

    def commit(self) -> bool:
        """What was kept of a run, for want of its end on disk, is forgotten after that alone."""
        self._unsaved = not self._journal.commit()
        if not self._unsaved:
            self._forget()
        return not self._unsaved

    def _forget(self) -> None:
        while self._over_runs:
            self._host.forget(self._over_runs.pop())
        if self._strangers:
            held = {parked.run for parked in self._parking}
            self._host.forget_strangers(self._runs.keys() | held)
            self._strangers = False

    def next_turn(self) -> float:
        """The monotonic time at which something is due, whatever else happens."""
        due = min((run.next_at for run in self._runs.values()), default=inf)
        turn = max(min(due, self._look_at), self._not_before) if self._runs else inf
        now = time.monotonic()
        turn = min(turn, now + self._parking.wait(self._host.is_prepared))
        turn = min(turn, now + self._until_overdue())
        if self._unsaved:
            turn = min(turn, now + RETRY)
        if self._host.untidy or self._host.preparing:
            turn = min(turn, now + LOOK_AGAIN)
        if self._runs and self._host.poll is not None:
            turn = min(turn, now + self._host.poll)
        return turn

    def _admit(self, request: Start) -> None:
        if RUN.fullmatch(request.run) is None:
            raise RefusedError("bad_request", f"{request.run!r:.80} cannot name a run")
        for name in ("cwd", "log"):
            if not Path(getattr(request, name)).is_absolute():
                raise RefusedError("bad_request", f"{name} is not absolute")
        last = self._journal.epochs.get(request.strategy, -1)
        if request.epoch <= last:
            raise RefusedError("fenced", f"epoch {request.epoch} is not above {last}")
        for run in self._runs.values():
            if run.strategy == request.strategy:
                raise RefusedError("busy", f"run {run.run} is still {run.state}")
        for parked in self._parking:
            if parked.strategy == request.strategy:
                raise RefusedError("busy", f"run {parked.run} is still parked")

    def _park(self, request: Start) -> None:
        """Its entry is written when the turn ends, together with all that are asked for now."""
        if self._unsaved:
            raise RefusedError("journal_failed", UNWRITTEN)
        self._journal.append(
            "preparing",
            *_subject(request),
            boot_id=self._host.boot_id,
            ladder=request.ladder,
            start_at=request.at,
            lifetime=request.lifetime,
            note=request.note,
        )
        if self._prepare(request, patient=True):
            self._parking.hold(request)
            if self._host.is_prepared(request.run):
                self._journal.append("parked", *_subject(request))

    def _release(self) -> None:
        """Nothing but starting, for all that are due together; what they became is written
        with the turn's one commit.

        Yet not for ever: while hundreds of scripts come up, each start waits for its share of
        the processors, and a stop must not wait for them all. A kill -9 in between leaves
        processes without their `started`: the next warden finds them by their marks.
        """
        due = [one for one in self._parking.due() if self._host.is_prepared(one.run)]
        if not due:
            return
        self._journal.commit()
        until = time.monotonic() + SPELL
        released: list[tuple[Start, Identity]] = []
        for request in due:
            self._parking.take(request.run)
            if self._journal.is_pending(request.run):
                # A later warden would not know of it, and its strategy be started twice.
                self._host.recall(request.run)
                self._never_started(request, "start_failed", UNWRITTEN)
            elif (main := self._released(request)) is not None:
                released.append((request, main))
            if time.monotonic() >= until:
                break
        for request, main in released:
            self._watch(request, main)

    def _hear_of_prepared(self) -> None:
        for run, outcome in self._host.outcomes():
            parked = self._parking.of(run)
            if parked is None:
                continue
            if isinstance(outcome, Exception):
                self._parking.take(run)
                self._never_started(parked, "start_failed", _said(outcome))
            else:
                self._journal.append("parked", *_subject(parked), detail=outcome)

    def _launch(self, request: Start) -> None:
        starting = self._journal.append(
            "starting",
            *_subject(request),
            boot_id=self._host.boot_id,
            ladder=request.ladder,
            lifetime=request.lifetime,
            note=request.note,
        )
        if not self._journal.commit():
            self._journal.withdraw(starting)
            raise RefusedError("journal_failed", UNWRITTEN)
        if self._prepare(request):
            self._execute(request)

    def _prepare(self, request: Start, *, patient: bool = False) -> bool:
        try:
            self._host.prepare(replace(request.order, patient=patient))
        except (OSError, ValueError) as error:
            self._never_started(request, "start_failed", _said(error))
            return False
        return True

    def _execute(self, request: Start) -> None:
        main = self._released(request)
        if main is not None:
            self._watch(request, main)

    def _released(self, request: Start) -> Identity | None:
        try:
            return self._host.release(request.run)
        except (OSError, ValueError) as error:
            self._never_started(request, "start_failed", _said(error))
            return None

    def _never_started(self, request: Start, reason: str, detail: str) -> None:
        self._journal.append("exited", *_subject(request), reason=reason, detail=detail)
        self._over_runs.append(request.run)

    def _watch(self, request: Start, main: Identity) -> None:
        subject = _subject(request)
        started = self._journal.append(
            "started",
            *subject,
            pid=main.pid,
            start_ticks=main.ticks,
            boot_id=self._host.boot_id,
            keeper=self._host.has_keeper(request.run),
        )
        until = runs_until(started.at, request.lifetime)
        run = Run(*subject, main, started.at, frozenset({main}), until=until)
        self._runs[run.run] = run
        self._mains[main.pid] = run

    def _reap(self) -> None:
        now = time.monotonic()
        for pid, end in self._host.ended():
            run = self._mains.pop(pid, None)
            if run is not None and self._host.has_keeper(run.run):
                self._over(run, end)  # nobody outlives a keeper: there is nothing to look for
            elif run is not None:
                run.ended(end, now)
            if run is not None or any(run.dying for run in self._runs.values()):
                self._look_at = now

    def _look(self, now: float) -> None:
        """Costs a walk over every process of the host: never more than a tenth of our time."""
        trees = self._host.trees({name: run.root for name, run in self._runs.items()})
        self._look_at = inf
        for run in [run for run in self._runs.values() if run.ladder is not None]:
            self._escort(run, trees[run.run], now)
        if any(run.dying for run in self._runs.values()):
            self._look_at = now + LOOK_AGAIN
        done = time.monotonic()
        self._not_before = done + max(LEAST_GAP, SHARE * (done - now))

    def _escort(self, run: Run, members: Set[Identity], now: float) -> None:
        if run.end is not None and not members:
            self._over(run, run.end)
            return
        run.known = frozenset({*members, run.main} if run.end is None else members)
        for signal in run.signals(now):
            self._host.send(run.run, members, signal)

    def _until_overdue(self) -> float:
        """Seconds until somebody has run for too long, by a clock that may be set."""
        until = min((run.until for run in self._runs.values() if run.may_be_overdue), default=inf)
        return inf if until == inf else min(max(0.0, until - self._clock()), GLANCE)

    def _end_the_overdue(self) -> None:
        now = self._clock()
        for run in self._runs.values():
            if run.until <= now and run.may_be_overdue:
                told = self._journal.of(run.run)[0]
                self._stop(run, "time_limit", told.ladder or AT_ONCE, OVERDUE)

    def _stop(self, run: Run, reason: str, ladder: Steps, detail: str | None) -> None:
        if run.asked is None and self._host.epitaph(run.run) is not None:
            run.hurry(ladder, time.monotonic())
        elif run.stop(reason, ladder, time.monotonic(), detail) and run.asked:
            self._tell("stopping", run, reason=run.asked, ladder=ladder, detail=run.why)

    def _over(self, run: Run, end: End) -> None:
        del self._runs[run.run]
        usage = self._host.usage(run.run).or_else(end.usage)
        self._tell(
            "exited",
            run,
            reason=exit_reason(run.asked, replace(end, usage=usage)),
            exit_code=end.exit_code,
            signal=end.signal,
            detail=run.why or end.detail,
            **asdict(usage),
        )
        self._over_runs.append(run.run)

    def _tell(self, kind: str, run: Run, **facts: object) -> None:
        self._journal.append(kind, run.run, run.strategy, run.epoch, **facts)


def _subject(request: Start) -> tuple[str, str, int]:
    return request.run, request.strategy, request.epoch


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__


def _answer(run: str, told: Iterable[Entry]) -> Json:
    """A start answers from the journal, so that its repetition says the same."""
    for entry in told:
        if entry.kind == "started":
            return {
                "pid": entry.pid,
                "start_ticks": entry.start_ticks,
                "started_at": entry.at,
            }
    detail = next((entry.detail for entry in told if entry.kind == "exited"), None)
    raise RefusedError("start_failed", detail or run)
