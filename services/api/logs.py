"""A piece of a log as text, without the secrets of its strategy."""

import asyncio
import codecs

from pydantic import BaseModel, Field

from openbell.bus import Bus
from openbell.contracts.commands import LogChunk, ReadLog
from openbell.db.models import Run
from openbell.redaction import STAR, Mask
from services.api.variables.masks import Masks

MOST_READ = 524_288
HOLD_S = 10.0
"""How long the beginning of what may become a secret is held back from those who follow a log."""
RETRY_S = 0.2


class LogView(BaseModel):
    run_id: str
    offset: int = Field(description="Where `content` begins, in bytes.")
    next_offset: int = Field(description="Where to read on.")
    size: int = Field(description="Bytes that the log has by now.")
    ended: bool = Field(description="Whether the run has ended, so that nothing will follow.")
    content: str


async def read_masked(
    bus: Bus, masks: Masks, run: Run, *, offset: int, limit: int, wait_s: float
) -> LogChunk:
    """What the log holds from there. Waits for more only while the run may write it.

    Raises UnknownRun, ServiceUnavailable, SealBroken: a log whose secrets are not known is not
    served.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + (wait_s if run.live else 0)
    while True:
        mask = await masks.of(run.owner, run.strategy_id)
        most = min(limit, MOST_READ - 2 * mask.reach)
        command = ReadLog(
            strategy_id=run.strategy_id,
            run_id=run.id,
            offset=offset,
            limit=most,
            around=mask.reach,
            wait_s=max(0, deadline - loop.time()),
        )
        window = await bus.request(command, run.runner)
        if (await masks.of(run.owner, run.strategy_id)).patterns != mask.patterns:
            continue  # a secret was set, and may have been printed, while we read
        chunk = await asyncio.to_thread(
            masked, window, mask, offset=offset, limit=most, live=run.live
        )
        if chunk.data or loop.time() >= deadline:
            return chunk
        await asyncio.sleep(RETRY_S)


def masked(window: LogChunk, mask: Mask, *, offset: int, limit: int, live: bool) -> LogChunk:
    """What was asked for, of what was read around it.

    While the run is live, the end of its log may be half of a secret: it is held back until more
    is written, or masked once nothing was written for a while.
    """
    start = min(offset, window.size) if offset >= 0 else max(0, window.size + offset)
    end = min(start + limit, window.next_offset)
    data = bytearray(mask.masked(window.data))
    if live and window.next_offset >= window.size:
        half = mask.unfinished(window.data)
        if window.quiet_s < HOLD_S:
            end = max(start, min(end, window.next_offset - half))
        elif half:
            data[-half:] = STAR * half
    return LogChunk.model_construct(
        offset=start,
        next_offset=end,
        size=window.size,
        data=bytes(data[start - window.offset : end - window.offset]),
    )


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
        ended=not run.live,
        content=content,
    )
