"""What is masked does not depend on how a log is cut, and never moves a byte."""

import time
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbell import redaction
from openbell.contracts.logs import LogChunk
from openbell.redaction import SHORTEST, Mask
from services.runner import logs as runner_logs
from services.runner.logs.ranges import Window
from services.runner.logs.reading import HOLD_S, masked
from services.runner.logs.secrets import Hidden

LETTERS = st.text("abc\n", max_size=60)
SECRETS = st.lists(st.text("abc\n", min_size=1, max_size=12), max_size=4)


def slow(data: bytes, patterns: tuple[bytes, ...]) -> bytes:
    """The rule itself: a byte is masked when it lies in any occurrence of any value."""
    hidden = {
        at + n
        for pattern in patterns
        for at in range(len(data))
        if data[at : at + len(pattern)] == pattern
        for n in range(len(pattern))
    }
    return bytes(ord("*") if n in hidden else byte for n, byte in enumerate(data))


def as_ended(data: bytes, mask: Mask) -> bytes:
    """What is told of all of an ended log."""
    half = mask.unfinished(data)
    told = mask.masked(data)
    return told if half < SHORTEST else told[:-half] + b"*" * half


def read(
    data: bytes,
    mask: Mask,
    offset: int,
    limit: int,
    *,
    live: bool = False,
    quiet_s: float = 0,
    first: int = 0,
) -> LogChunk:
    """Of a log of which what lies before `first` was dropped."""
    wanted = min(offset, len(data)) if offset >= 0 else len(data) + offset
    start = max(first, wanted)
    begin, end = max(first, start - mask.reach), min(len(data), start + limit + mask.reach)
    found = Window(
        begin=begin,
        data=data[begin:end],
        start=start,
        size=len(data),
        first=first,
        generation=0,
        written_at=0,
    )
    return masked(found, Hidden(mask, "v1"), limit=limit, live=live, quiet_s=quiet_s)


@given(LETTERS, SECRETS)
def test_every_byte_of_a_value_is_masked_and_no_other(text: str, values: list[str]) -> None:
    mask = Mask(values)
    assert mask.masked(text.encode()) == slow(text.encode(), mask.patterns)


@given(LETTERS, SECRETS)
def test_many_values_are_masked_as_few_are(text: str, values: list[str]) -> None:
    mask = Mask(values)
    with patch.object(redaction, "FEW", 0):
        assert mask.masked(text.encode()) == slow(text.encode(), mask.patterns)


@given(LETTERS, SECRETS, st.lists(st.integers(1, 9), min_size=1))
def test_the_pieces_make_the_whole(text: str, values: list[str], sizes: list[int]) -> None:
    mask, data = Mask(values), text.encode()
    pieces, offset, turn = b"", 0, 0
    while offset < len(data):
        chunk = read(data, mask, offset, sizes[turn % len(sizes)])
        assert (chunk.offset, chunk.next_offset) == (offset, offset + len(chunk.data))
        assert chunk.next_offset > offset
        pieces, offset, turn = pieces + chunk.data, chunk.next_offset, turn + 1
    assert pieces == as_ended(data, mask)


@given(LETTERS, SECRETS, st.lists(st.integers(1, 9), min_size=1), st.integers(1, 70))
def test_a_log_that_is_followed_as_it_grows_makes_the_whole(
    text: str, values: list[str], steps: list[int], limit: int
) -> None:
    """Whoever reads after each write sees what one who reads it all in the end sees."""
    mask, data = Mask(values), text.encode()
    seen, offset, written, turn = b"", 0, 0, 0
    while written < len(data):
        written, turn = min(len(data), written + steps[turn % len(steps)]), turn + 1
        chunk = read(data[:written], mask, offset, limit, live=True)
        seen, offset = seen + chunk.data, chunk.next_offset
    while (chunk := read(data, mask, offset, limit)).data:
        seen, offset = seen + chunk.data, chunk.next_offset
    assert seen == as_ended(data, mask)


@given(LETTERS, SECRETS, st.integers(-70, 70), st.integers(1, 70))
def test_any_piece_is_that_piece_of_the_whole(
    text: str, values: list[str], offset: int, limit: int
) -> None:
    mask, data = Mask(values), text.encode()
    chunk = read(data, mask, offset, limit)
    assert chunk.data == as_ended(data, mask)[chunk.offset : chunk.offset + limit]
    assert chunk.size == len(data)


def test_half_a_secret_is_held_back_then_masked_but_never_for_ever() -> None:
    mask, data = Mask(["kite-token-4711"]), b"key kite-tok"
    chunk = read(data, mask, 0, 100, live=True)
    assert (chunk.data, chunk.next_offset) == (b"key ", 4)
    assert read(data, mask, 4, 100, live=True, quiet_s=HOLD_S).data == b"*" * 8
    assert read(data, mask, 8, 100, live=True).next_offset == 8


def test_half_a_secret_at_the_end_of_an_ended_log_is_masked(tmp_path: Path) -> None:
    mask, file = Mask(["kite-token-4711"]), tmp_path / "run.log"
    assert read(b"key kite-tok", mask, 0, 100).data == b"key " + b"*" * 8
    assert read(b"key kite-tok", mask, 6, 3).data == b"***"
    assert read(b"a kit", mask, 0, 100).data == b"a kit"
    file.write_bytes(b"key kite-tok")
    assert runner_logs.last_lines(file, mask) == ("key ********",)
    file.write_bytes(b"a kit")
    assert runner_logs.last_lines(file, mask) == ("a kit",)


@given(LETTERS, SECRETS, st.integers(1, 70), st.integers(1, 9))
def test_of_a_secret_whose_beginning_was_dropped_the_rest_is_masked(
    text: str, values: list[str], first: int, limit: int
) -> None:
    """Whatever is told then is what was told before, or a star."""
    mask, data = Mask(values), text.encode()
    first = min(first, len(data))
    before, offset = mask.masked(data), first
    while (chunk := read(data, mask, offset, limit, first=first)).data:
        there = before[offset : chunk.next_offset]
        pairs = zip(there, chunk.data, strict=True)
        assert all(now in (was, ord("*")) for was, now in pairs)
        offset = chunk.next_offset


def test_short_values_are_not_masked() -> None:
    assert Mask(["abc", "", " ", "    ", " ab \n"]).masked(b"abc ab     x") == b"abc ab     x"
    assert Mask(["1234"]).masked(b"pin 1234.") == b"pin ****."


def test_the_space_around_a_value_is_not_part_of_it() -> None:
    assert Mask([" token-1 \n"]).masked(b"<token-1>") == b"<*******>"


def test_the_lines_of_a_value_are_masked_by_themselves() -> None:
    key = "-----BEGIN KEY-----\nabcdefgh\nshort\n-----END KEY-----\n"
    mask = Mask([key])
    assert mask.masked(b"> abcdefgh\n> short\n") == b"> ********\n> short\n"
    assert mask.masked(key.encode()) == b"*" * (len(key) - 1) + b"\n"


def test_letters_of_several_bytes_keep_their_length() -> None:
    assert Mask(["₹₹₹₹"]).masked("a₹₹₹₹b".encode()) == b"a" + b"*" * 12 + b"b"
    assert Mask(["₹₹₹₹"]).text("a₹₹₹₹b") == "a" + "*" * 12 + "b"


@pytest.mark.parametrize("secret", ["a" * 32_768, "ab" * 16_000, "a" * 30_000 + "b"])
def test_a_value_that_repeats_itself_costs_no_more(secret: str) -> None:
    mask = Mask([secret])
    begun = time.perf_counter()
    mask.masked(b"a" * 500_000)
    mask.masked(b"ab" * 250_000)
    for log in (b"a" * 500_000, b"ab" * 250_000):
        mask.unfinished(log)
        mask.beheaded(log)
    assert time.perf_counter() - begun < 5


@pytest.mark.parametrize("turned", [False, True])
def test_half_of_a_value_that_repeats_itself_costs_no_more(*, turned: bool) -> None:
    secret, log = "a" * 130_000 + "b" + "a" * 120_000, b"a" * 119_000 + b"c" + b"a" * 130_000
    mask = Mask([secret[::-1] if turned else secret])
    begun = time.perf_counter()
    half = mask.beheaded(log[::-1]) if turned else mask.unfinished(log)
    assert time.perf_counter() - begun < 1
    assert half == 130_000


@given(st.text("ab", max_size=80), st.text("ab", min_size=4, max_size=40))
def test_half_of_a_value_is_found_the_same_however_often_it_repeats_itself(
    text: str, value: str
) -> None:
    data, mask = text.encode(), Mask([value])
    with patch.object(redaction, "TRIES", 1):
        halves = mask.unfinished(data), mask.beheaded(data)
    lengths = range(min(len(data), len(value) - 1), 0, -1)
    begins = (n for n in lengths if value.encode().startswith(data[len(data) - n :]))
    ends = (n for n in lengths if value.encode().endswith(data[:n]))
    assert halves == (next(begins, 0), next(ends, 0))


def test_values_of_many_lines_cost_no_more() -> None:
    """Both the lines that are in the log, and the many more that are not."""
    mask = Mask("\n".join(f"{part}-{n:08}" for n in range(3_600)) for part in range(8))
    log = b"".join(b"2026-08-03 09:15:00 order %d placed\n" % n for n in range(14_000))
    begun = time.perf_counter()
    masked = mask.masked(log + b"3-00000007\n")
    assert time.perf_counter() - begun < 1.5
    assert masked == log + b"*" * 10 + b"\n"


def test_the_last_lines_are_masked_before_they_are_cut(tmp_path: Path) -> None:
    """The beginning of the secret lies before what is told."""
    file = tmp_path / "run.log"
    secret = "q" * 2_000 + "w" * 16_380
    file.write_text(f"{secret}tail\n")
    (line,) = runner_logs.last_lines(file, Mask([secret]))
    assert line.endswith("*tail")
    assert "w" not in line
