"""What a runner must know of a live run, kept with the run itself: the next runner asks for it."""

from pathlib import Path

from pydantic import ValidationError

from openbell.contracts.base import Message
from openbell.contracts.commands import StartRun
from openbell.contracts.limits import Limits, Watchdogs

HEARTBEAT = ".openbell-heartbeat"
"""In the strategy's own folder: the file that OPENBELL_HEARTBEAT names."""


class Note(Message):
    """It holds no secret: it is written down."""

    limits: Limits = Limits()
    """With the memory that it may use on this host."""
    watchdogs: Watchdogs = Watchdogs()
    environment: str | None = None
    """The key of the one that it runs in, empty for an interpreter that is none of ours; None in
    the notes of an earlier release, which do not tell."""
    expected_memory_bytes: int = 0
    """What is kept for it until it uses it."""
    expected_as_seen: bool = False
    """Else that is a guess."""

    @staticmethod
    def of(command: StartRun, memory_mb: int, environment: str) -> "Note":
        limits = command.limits
        if limits.memory_mb is None:
            limits = limits.model_copy(update={"memory_mb": memory_mb})
        return Note(
            limits=limits,
            watchdogs=command.watchdogs,
            environment=environment,
            expected_memory_bytes=command.expected_memory_bytes or 0,
            expected_as_seen=command.expected_as_seen,
        )

    @staticmethod
    def read(text: str) -> "Note":
        """Of another release's note, what can be understood."""
        try:
            return Note.model_validate_json(text)
        except ValidationError:
            return Note()


def heartbeat(folder: Path) -> Path:
    return folder / HEARTBEAT
