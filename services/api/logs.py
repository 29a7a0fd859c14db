"""A piece of a log as text."""

import codecs

from pydantic import BaseModel, Field

from openbell.contracts.commands import LogChunk
from openbell.db.models import Run


class LogView(BaseModel):
    run_id: str
    offset: int = Field(description="Where `content` begins, in bytes.")
    next_offset: int = Field(description="Where to read on.")
    size: int = Field(description="Bytes that the log has by now.")
    ended: bool = Field(description="Whether the run has ended, so that nothing will follow.")
    content: str


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
