"""Who follows a log gets each line once, and who is too slow is let go."""

import asyncio
from datetime import UTC, datetime

from openbell.contracts.logs import LogChunk
from openbell.contracts.model import RunState
from openbell.db.models import Run
from services.api.log_relay import MOST_BEHIND, Frame, Viewer, framed
from services.api.log_stream import Cursor, cursor_of

RUN = Run(
    id="s-1",
    strategy_id="s",
    owner="ann",
    epoch=1,
    runner="local",
    version=1,
    state=RunState.RUNNING,
    granted_at=datetime(2026, 8, 3, tzinfo=UTC),
)


def frame(offset: int, data: bytes, generation: int = 0) -> Frame:
    end = offset + len(data)
    chunk = LogChunk.model_construct(
        offset=offset,
        next_offset=end,
        size=end + 1,
        data=data,
        first=0,
        generation=generation,
        reset=False,
        secrets="",
    )
    return framed(RUN, chunk)


def test_a_viewer_who_is_too_far_behind_is_dropped() -> None:
    viewer = Viewer()
    viewer.reading = viewer.missed = False
    piece = frame(0, b"x" * 65_536)
    for _ in range(MOST_BEHIND // len(piece.encoded)):
        viewer.offer(piece)
    assert not viewer.dropped.is_set()
    viewer.offer(piece)
    assert viewer.dropped.is_set()


def test_one_who_reads_what_was_before_is_not_dropped_but_reads_on() -> None:
    viewer = Viewer()
    viewer.missed = False
    for _ in range(40):
        viewer.offer(frame(0, b"x" * 65_536))
    assert viewer.missed
    assert not viewer.dropped.is_set()


def test_lines_are_handed_in_order_and_reading_goes_first() -> None:
    async def scenario() -> None:
        viewer = Viewer()
        viewer.missed = False
        one, two = frame(0, b"one\n"), frame(4, b"two\n")
        viewer.offer(one)
        viewer.offer(two)
        assert await viewer.next(1) is one
        viewer.must_read()
        assert await viewer.next(1) is None
        viewer.missed = False
        assert await viewer.next(1) is two
        assert await viewer.next(0.01) is None

    asyncio.run(scenario())


def test_a_cursor_tells_what_follows_from_what_was_missed() -> None:
    cursor = Cursor(4, 0)
    assert cursor.meets(frame(4, b"two\n"))
    assert not cursor.is_behind(frame(0, b"one\n"))
    assert cursor.is_behind(frame(8, b"three\n"))
    assert cursor.is_behind(frame(0, b"six\n", 1))
    cursor.move(frame(4, b"two\n"))
    assert (cursor.offset, cursor.generation) == (8, 0)


def test_a_cursor_comes_from_where_a_stream_ended() -> None:
    assert cursor_of("2-17", 0) == Cursor(17, 2)
    for nonsense in ("", "17", "2-", "-2-17", "a-b", "2-17\n", "9" * 30 + "-1"):
        assert cursor_of(nonsense, -5) == Cursor(-5, None)


def test_a_character_that_is_cut_is_left_for_the_next_frame() -> None:
    cut = frame(0, "a₹".encode()[:-1])
    assert cut.next_offset == 1
    assert '"content":"a"' in cut.encoded.decode()
