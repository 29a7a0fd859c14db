"""A run's log, as its runner tells it: masked there, with the secrets that there are now."""

import asyncio
import codecs
import zlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import TypeVar

from pydantic import BaseModel, Field

from openbell.bus import Bus
from openbell.contracts.errors import LogGone, LogWithheld, OpenbellError, UnknownRun
from openbell.contracts.logs import (
    MOST_READ,
    SEARCH_WAIT_S,
    LogChunk,
    LogHits,
    MaskedLogCommand,
    MeasureLogs,
    ReadLog,
    SearchLog,
)
from openbell.db.models import Run
from services.api.variables.masks import Masks
from services.api.view import RunView, run_view

RETRY_S = 0.2
ANSWER_S = 5.0
SIZES_S = 1.0
GZIP = 31
TRIES = 5

AnswerT = TypeVar("AnswerT", LogChunk, LogHits)


class LogView(BaseModel):
    run_id: str
    offset: int = Field(description="Where `content` begins, in bytes.")
    next_offset: int = Field(description="Where to read on.")
    size: int = Field(description="Bytes that the log has by now.")
    first: int = Field(description="The first byte that is still there: what came before is gone.")
    generation: int = Field(
        description="Of which the offsets are: the script cut its log so often."
    )
    reset: bool = Field(description="The generation that was asked for is over; this is another's.")
    ended: bool = Field(description="Whether the run has ended, so that nothing will follow.")
    content: str


class HitView(BaseModel):
    offset: int = Field(description="Where the line begins, in bytes.")
    line: str


class SearchView(BaseModel):
    run_id: str
    hits: list[HitView] = Field(description="Newest first.")
    before: int | None = Field(description="Send it as `before` to go on; none: all was searched.")
    cut_short: bool = Field(description="The time was over before the search was.")
    passed_over: int = Field(description="Lines that alone would have taken too long.")
    first: int
    generation: int


class RunWithLog(RunView):
    log_size: int | None = Field(description="Bytes that it wrote. None: there is no log any more.")
    log_first: int | None = Field(description="The first of them that is still there.")


class Logs:
    """Asks runners for what their runs wrote."""

    def __init__(self, bus: Bus, masks: Masks) -> None:
        self._bus = bus
        self._masks = masks

    async def version(self, run: Run) -> str:
        """Which secrets there are that its log must not show."""
        return await self._masks.version(run.owner, run.strategy_id)

    async def read(
        self,
        run: Run,
        *,
        offset: int,
        limit: int = MOST_READ,
        generation: int | None = None,
        wait_s: float = 0,
    ) -> LogChunk:
        """What the log holds from there; of a live run that has not begun to write, nothing yet.
        Waits for more only while the run may write it.

        Raises UnknownRun, ServiceUnavailable, LogWithheld.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + (wait_s if run.live else 0)

        def command(secrets: str) -> ReadLog:
            return ReadLog(
                strategy_id=run.strategy_id,
                run_id=run.id,
                secrets=secrets,
                offset=offset,
                limit=limit,
                generation=generation,
                live=run.live,
                wait_s=max(0, deadline - loop.time()),
            )

        try:
            return await self._ask(run, command)
        except UnknownRun as error:
            if not run.live:
                raise _gone(error) from error
            await asyncio.sleep(max(0, min(deadline - loop.time(), RETRY_S)))
            return LogChunk(offset=0, next_offset=0, size=0, data=b"")

    async def search(self, run: Run, command: SearchLog) -> LogHits:
        """Raises UnknownRun, ServiceUnavailable, LogWithheld, InvalidRequest."""

        def with_secrets(secrets: str) -> SearchLog:
            return command.model_copy(update={"secrets": secrets})

        return await self._ask(run, with_secrets, SEARCH_WAIT_S + command.budget_s)

    async def _ask(
        self, run: Run, command: Callable[[str], MaskedLogCommand[AnswerT]], takes_s: float = 0
    ) -> AnswerT:
        for _ in range(TRIES):
            asked = command(await self.version(run))
            answer = await self._bus.request(asked, run.runner, timeout_s=ANSWER_S + takes_s)
            if answer.secrets == await self.version(run):
                return answer
            # a secret was set, and may have been printed, while it was looked at
        raise LogWithheld("its runner does not hide what must be hidden by now")

    async def download(
        self, run: Run, may: Callable[[], Awaitable[object]]
    ) -> AsyncGenerator[bytes]:
        """All that is there by now, as gzip, piece by piece; `may` is asked before each."""
        packer = zlib.compressobj(wbits=GZIP)
        offset, end, generation = 0, None, None
        while end is None or offset < end:
            chunk = await self.read(run, offset=offset, generation=generation)
            if not chunk.data or chunk.reset:
                break
            await may()
            end, generation = end or chunk.size, chunk.generation
            offset = chunk.next_offset
            yield await asyncio.to_thread(packer.compress, chunk.data)
        yield packer.flush()

    async def with_sizes(self, runs: Sequence[Run]) -> list[RunWithLog]:
        """Of those whose runner does not answer, without."""
        runners = {run.runner for run in runs}
        sizes: dict[str, tuple[int, int]] = {}
        for runner in runners:
            its = tuple(run for run in runs if run.runner == runner)
            ask = MeasureLogs(strategy_id=its[0].strategy_id, run_ids=tuple(run.id for run in its))
            try:
                answer = await self._bus.request(ask, runner, timeout_s=SIZES_S)
            except OpenbellError:
                continue
            sizes |= {one.run_id: (one.size, one.first) for one in answer.sizes}
        return [_with_log(run, sizes.get(run.id)) for run in runs]


def log_view(run: Run, chunk: LogChunk) -> LogView:
    """A character that is cut in two at the end of the chunk is left for the next one."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    more = chunk.next_offset < chunk.size or run.live
    content = decoder.decode(chunk.data, final=not more)
    rest = len(decoder.getstate()[0])
    return LogView(
        run_id=run.id,
        offset=chunk.offset,
        next_offset=chunk.next_offset - rest,
        size=chunk.size,
        first=chunk.first,
        generation=chunk.generation,
        reset=chunk.reset,
        ended=not run.live,
        content=content,
    )


def search_view(run: Run, found: LogHits) -> SearchView:
    hits = [HitView(offset=hit.offset, line=hit.line) for hit in found.hits]
    return SearchView(
        run_id=run.id,
        hits=hits,
        before=found.before,
        cut_short=found.cut_short,
        passed_over=found.passed_over,
        first=found.first,
        generation=found.generation,
    )


def _with_log(run: Run, told: tuple[int, int] | None) -> RunWithLog:
    size, first = told or (None, None)
    return RunWithLog(**run_view(run).model_dump(), log_size=size, log_first=first)


def _gone(error: UnknownRun) -> LogGone:
    why = "it was cleared, or dropped for its age or its size, or the run never wrote one"
    return LogGone(f"{error.detail}: {why}")
