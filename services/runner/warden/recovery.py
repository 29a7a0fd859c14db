"""What a new warden makes of the runs that an earlier one left unfinished."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence, Set

from .host import End, Host, Identity
from .journal import Journal
from .protocol import Entry
from .runs import Run, exit_reason, runs_until

UNSTARTED = "the warden ended while starting it; if it ran, it ended unseen"
DROPPED = "the warden ended while it held the start, whose variables are kept nowhere"
REBOOTED = "the host was restarted"


def recover(
    journal: Journal,
    host: Host,
    now: float,
    clock: Callable[[], float] = time.time,
    held: Set[str] = frozenset(),
) -> Iterator[Run]:
    """`held` are those that are still prepared, since the warden was replaced without dying."""
    unfinished = {run: told for run, told in journal.unfinished().items() if run not in held}
    _seek(unfinished.values(), journal, host)
    for run, told in unfinished.items():
        started = _last(journal.of(run), "started")
        if started is None:
            _exit(journal, told[0], "start_failed", End(detail=_why_not(told[0], clock())))
        elif resumed := _resume(started, told, journal, host, now, clock):
            yield resumed


def _resume(
    started: Entry,
    told: Sequence[Entry],
    journal: Journal,
    host: Host,
    now: float,
    clock: Callable[[], float],
) -> Run | None:
    stopping = _last(told, "stopping")
    if started.boot_id != host.boot_id:
        asked = stopping.reason if stopping else None
        end = host.epitaph(started.run) or End(detail=REBOOTED)
        _exit(journal, told[0], exit_reason(asked, end), end)
        return None
    main = Identity(started.pid or 0, started.start_ticks or 0)
    run = Run(
        started.run,
        started.strategy,
        started.epoch,
        main,
        started.at,
        frozenset({main}),
        own=False,
        until=runs_until(started.at, told[0].lifetime),
    )
    if stopping is not None:
        ago = max(0.0, clock() - stopping.at)
        run.stop(stopping.reason or "", stopping.ladder or (), now, stopping.detail, ago)
    end = host.adopt(run.run, main)
    if end is not None:
        # Its pid may be a stranger's by now: only marks tell who is left of it.
        run.known = frozenset()
        run.ended(end, now)
    return run


def _seek(unfinished: Iterable[Sequence[Entry]], journal: Journal, host: Host) -> None:
    """Of those that may have been executed, and were not said to be: which live?

    One look for all: at an opening bell there may be hundreds.
    """
    unborn = {
        told[0].run: told[0]
        for told in unfinished
        if told[0].boot_id == host.boot_id and _last(told, "started") is None
    }
    if not unborn:
        return
    for run, main in host.find(unborn.keys()).items():
        of = unborn[run]
        journal.append(
            "started",
            of.run,
            of.strategy,
            of.epoch,
            pid=main.pid,
            start_ticks=main.ticks,
            boot_id=host.boot_id,
            keeper=host.has_keeper(run),
        )


def _why_not(told: Entry, now: float) -> str:
    return DROPPED if told.start_at is not None and now < told.start_at else UNSTARTED


def _exit(journal: Journal, of: Entry, reason: str, end: End) -> None:
    journal.append(
        "exited",
        of.run,
        of.strategy,
        of.epoch,
        reason=reason,
        exit_code=end.exit_code,
        signal=end.signal,
        detail=end.detail,
    )


def _last(told: Sequence[Entry], kind: str) -> Entry | None:
    return next((entry for entry in reversed(told) if entry.kind == kind), None)
