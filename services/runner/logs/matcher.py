"""The child process of a search by expression: finds the lines of a text that match.

An expression can take for ever, and what it then holds is this process, which is killed when its
time is over. It needs the standard library alone, and is run as a file, apart from all else. A
line that takes too long by itself is passed over, so that a search can go on behind it.

It reads a line of JSON, {"text", "ignore_case"}; and answers {} or {"error"}. Then for each block,
its length and how many lines are wanted as a line, and its bytes, a line of JSON:
{"hits": [[begin, end], ...], "passed_over", "left"}, newest first.
"""

import json
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

LINE_S = 0.1
"""Of the processor: what a busy host takes away does not count."""
TURN_S = 0.3
MOST_MEMORY = 512 * 1024**2


class TooLong(Exception):
    """One line takes longer than it may."""


class Matcher:
    def __init__(self, pattern: "re.Pattern[str]") -> None:
        self._pattern = pattern
        self._line = 0
        """Which line is looked at, none between two; and which was at the last tick."""
        self._at_tick = 0
        self._lines = 0

    def tick(self, _number: int, _frame: FrameType | None) -> None:
        """`re` lets signals in while it searches."""
        line, self._at_tick = self._at_tick, self._line
        if self._line and line == self._line:
            self._line = 0
            raise TooLong

    def search(self, block: bytes, most: int) -> dict[str, Any]:
        """From the end of the block on, for a while: `left` tells how much was not looked at."""
        until = time.monotonic() + TURN_S
        hits: list[tuple[int, int]] = []
        passed_over, left = 0, len(block)
        for begin, end in lines_backwards(block):
            text = block[begin:end].decode("utf-8", "replace")
            self._lines += 1
            try:
                self._line = self._lines
                found = self._pattern.search(text)
                self._line = 0
            except TooLong:
                found = None
                passed_over += 1
            left = begin
            if found:
                hits.append((begin, end))
            if len(hits) >= most or time.monotonic() >= until:
                break
        return {"hits": hits, "passed_over": passed_over, "left": left}


def lines_backwards(block: bytes) -> Iterator[tuple[int, int]]:
    """From where to where each line lies, the last one first, without what ends it."""
    end = len(block)
    while end > 0:
        stop = end - 1 if block[end - 1 : end] == b"\n" else end
        begin = block.rfind(b"\n", 0, stop) + 1
        yield begin, stop
        end = begin


def main() -> None:
    """It has no files to write and no memory to fill, and works when nobody else does: what limits
    there are, it sets itself.
    """
    if sys.platform != "win32":
        import resource  # noqa: PLC0415 - Windows has none

        resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
        os.nice(19)  # strategies come first
    asked = json.loads(sys.stdin.buffer.readline())
    try:
        pattern = re.compile(asked["text"], re.IGNORECASE if asked["ignore_case"] else 0)
    except (re.error, OverflowError, RecursionError, MemoryError) as error:
        _answer({"error": str(error) or type(error).__name__})
        return
    _answer({})
    matcher = Matcher(pattern)
    if sys.platform != "win32":
        signal.signal(signal.SIGVTALRM, matcher.tick)
        signal.setitimer(signal.ITIMER_VIRTUAL, LINE_S, LINE_S)
    while head := sys.stdin.buffer.readline():
        length, most = map(int, head.split())
        _answer(matcher.search(sys.stdin.buffer.read(length), most))


def _answer(value: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
