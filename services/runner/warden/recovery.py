"""What a new warden makes of the runs that an earlier one left unfinished."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .host import End, Host, Identity
from .journal import Journal
from .protocol import Entry
from .runs import Run

UNSTARTED = "the warden ended while starting it; if it ran, it ended unseen"
UNWATCHED = "it ended while no warden was watching"
REBOOTED = "the host was restarted"


def recover(journal: Journal, host: Host, now: float) -> Iterator[Run]:
    for told in journal.unfinished().values():
        run = _resume(told, journal, host, now)
        if run is not None:
            yield run


def _resume(told: Sequence[Entry], journal: Journal, host: Host, now: float) -> Run | None:
    started = _last(told, "started") or _seek(told[0], journal, host)
    if started is None:
        _exit(journal, told[0], "start_failed", UNSTARTED)
        return None
    stopping = _last(told, "stopping")
    if started.boot_id != host.boot_id:
        reason = (stopping and stopping.reason) or "lost"
        _exit(journal, told[0], reason, REBOOTED)
        return None
    main = Identity(started.pid or 0, started.start_ticks or 0)
    run = Run(
        started.run, started.strategy, started.epoch, main, started.at, frozenset({main}), own=False
    )
    if stopping is not None:
        run.stop(stopping.reason or "", stopping.ladder or (), now)
    if not host.adopt(run.run, main):
        # Its pid may be a stranger's by now: only marks tell who is left of it.
        run.known = frozenset()
        run.ended(End(detail=UNWATCHED), now)
    return run


def _seek(starting: Entry, journal: Journal, host: Host) -> Entry | None:
    main = host.find(starting.run) if starting.boot_id == host.boot_id else None
    if main is None:
        return None
    return journal.append(
        "started",
        starting.run,
        starting.strategy,
        starting.epoch,
        pid=main.pid,
        start_ticks=main.ticks,
        boot_id=host.boot_id,
    )


def _exit(journal: Journal, of: Entry, reason: str, detail: str) -> None:
    journal.append("exited", of.run, of.strategy, of.epoch, reason=reason, detail=detail)


def _last(told: Sequence[Entry], kind: str) -> Entry | None:
    return next((entry for entry in reversed(told) if entry.kind == kind), None)
