"""Which process belongs to which run. Pure: a table of processes goes in, owners come out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from .host import Identity, Root


class Process(NamedTuple):
    pid: int
    ticks: int
    parent: int
    session: int
    zombie: bool

    @property
    def identity(self) -> Identity:
        return Identity(self.pid, self.ticks)


Table = Mapping[int, Process]
Marks = Callable[[Process], str | None]


def members(
    table: Table, roots: Mapping[str, Root], mark: Marks, warden: int
) -> dict[str, frozenset[Identity]]:
    owners = attribute(table, roots, mark, warden)
    living: dict[str, set[Identity]] = {run: set() for run in roots}
    for pid, run in owners.items():
        if not table[pid].zombie:
            living[run].add(table[pid].identity)
    return {run: frozenset(found) for run, found in living.items()}


def attribute(table: Table, roots: Mapping[str, Root], mark: Marks, warden: int) -> dict[int, str]:
    """By identity, session and descent; what escaped all three, by its mark; what shed
    even that, because it became our child and only one run can have left it to us.

    Marks come late since anybody can set one: they claim no process of another run.
    """
    owners, sessions = _known(table, roots)
    _spread(table, owners, sessions)
    strangers = [p for p in table.values() if p.pid not in owners and p.pid != warden]
    for process in strangers:
        run = mark(process) or _only_suspect(process, roots, warden)
        if run is not None and run in roots:
            owners[process.pid] = run
    _spread(table, owners, sessions)
    owners.pop(warden, None)
    return owners


def _known(table: Table, roots: Mapping[str, Root]) -> tuple[dict[int, str], dict[int, str]]:
    owners: dict[int, str] = {}
    sessions: dict[int, str] = {}
    for run, root in roots.items():
        for pid, ticks in root.known:
            process = table.get(pid)
            if process is None:
                # It ended since the last look, which is moments ago: the session that
                # it led may live on, and its number cannot have been given again.
                sessions[pid] = run
            elif process.ticks == ticks:
                owners[pid] = run
                if process.session not in table:
                    sessions[process.session] = run
    return owners, sessions


def _spread(table: Table, owners: dict[int, str], sessions: Mapping[int, str]) -> None:
    """Parents and session leaders are older than their children: one pass by age nearly
    always finds all, and the next one proves it.
    """
    by_age = sorted(table.values(), key=lambda p: (p.ticks, p.pid))
    found = -1
    while found != len(owners):
        found = len(owners)
        for process in by_age:
            if process.pid not in owners:
                run = (
                    owners.get(process.parent)
                    or owners.get(process.session)
                    or sessions.get(process.session)
                )
                if run is not None:
                    owners[process.pid] = run


def _only_suspect(process: Process, roots: Mapping[str, Root], warden: int) -> str | None:
    if process.parent != warden:
        return None
    suspects = [run for run, root in roots.items() if root.own and root.main.ticks <= process.ticks]
    return suspects[0] if len(suspects) == 1 else None
