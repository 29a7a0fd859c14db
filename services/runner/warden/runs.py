"""A run on its way out: who asked, which signal is next, how it ended. Time is passed in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf

from .host import End, Identity, Root
from .protocol import Steps

LEFTOVERS: Steps = (("SIGTERM", 5.0), ("SIGKILL", 0.0))
CRASHES = frozenset({"SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGTRAP", "SIGSYS"})


class Ladder:
    """Signals with a wait after each; a wait counts from when its signal was really sent."""

    def __init__(self, steps: Steps, now: float, ago: float | None = None) -> None:
        """`ago` is when an earlier warden began it, which has sent the first signal: who cleans
        up upon it must not be interrupted by a second one. A SIGKILL is sent again.
        """
        self._rest = list(steps)
        self._next = now
        if ago is not None and self._rest and self._rest[0][0] != "SIGKILL":
            _, wait = self._rest.pop(0)
            self._next = now - ago + wait

    @property
    def next_at(self) -> float:
        return self._next if self._rest else inf

    @property
    def kills_at(self) -> float:
        at = self._next
        for name, wait in self._rest:
            if name == "SIGKILL":
                return at
            at += wait
        return inf

    def due(self, now: float) -> Iterator[str]:
        while self.next_at <= now:
            name, wait = self._rest.pop(0)
            self._next = now + wait
            yield name


@dataclass(slots=True)
class Run:
    run: str
    strategy: str
    epoch: int
    main: Identity
    started_at: float
    known: frozenset[Identity]
    own: bool = True
    until: float = inf
    """The moment, in Unix seconds, at which it has run for as long as it may."""
    asked: str | None = None
    why: str | None = None
    """Who asked it to stop, or what broke, for people."""
    ladder: Ladder | None = None
    killing: bool = False
    end: End | None = None

    @property
    def state(self) -> str:
        return "running" if self.ladder is None else "stopping"

    @property
    def root(self) -> Root:
        return Root(self.main, self.known, self.own)

    @property
    def next_at(self) -> float:
        return inf if self.ladder is None else self.ladder.next_at

    @property
    def may_be_overdue(self) -> bool:
        return self.asked is None and self.end is None

    @property
    def dying(self) -> bool:
        """Its tree may vanish at any moment, and no event would tell."""
        return self.end is not None or self.killing

    def stop(
        self,
        reason: str,
        steps: Steps,
        now: float,
        why: str | None = None,
        ago: float | None = None,
    ) -> bool:
        """True when this changed anything that a later warden must know. `ago` as a ladder's."""
        first = self.asked is None and self.end is None
        if first:
            self.asked, self.why = reason, why
        return self._take(Ladder(steps, now, ago)) or first

    def hurry(self, steps: Steps, now: float) -> None:
        """It has ended by itself: whoever asks now ends those that it left behind, and is not why
        it ended.
        """
        self.until = inf
        self._take(Ladder(steps, now))

    def ended(self, end: End, now: float) -> None:
        """What a stop has yet to say to the others, it says; else they hear it now."""
        self.end = end
        if self.next_at == inf:
            self._take(Ladder(LEFTOVERS, now))

    def signals(self, now: float) -> tuple[str, ...]:
        """What is due. A SIGKILL goes on being due: a fork may slip past the first."""
        due = () if self.ladder is None else tuple(self.ladder.due(now))
        self.killing = self.killing or "SIGKILL" in due
        return due or (("SIGKILL",) if self.killing else ())

    def _take(self, ladder: Ladder) -> bool:
        old = self.ladder
        sooner = old is None or old.next_at == inf or ladder.kills_at < old.kills_at
        if self.killing or not sooner:
            return False
        self.ladder = ladder
        return True


def exit_reason(asked: str | None, end: End) -> str:
    if asked is not None:
        return asked
    if not end.executed:
        return "start_failed"
    if end.usage.out_of_memory and end.exit_code != 0:
        return "memory_limit"
    if end.signal is not None:
        return "crashed" if end.signal in CRASHES else "killed"
    if end.exit_code is None:
        return "lost"
    return "completed" if end.exit_code == 0 else "crashed"


def runs_until(started_at: float, lifetime: float | None) -> float:
    return inf if lifetime is None else started_at + lifetime
