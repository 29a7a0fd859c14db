"""What is found in a log, newest first, in a bounded time, and never a secret."""

import asyncio
import json
import select
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from openbell.contracts.errors import InvalidRequest
from openbell.contracts.logs import LogHit, LogHits, SearchLog
from services.runner.logs import runlog, search
from services.runner.logs.search import Searches
from tests.fixtures.logs import RUN, STRATEGY, Written, known

KEY = "kite-token-4711"
EVIL = "(a+)+$"


@pytest.fixture
def written(tmp_path: Path) -> Generator[Written]:
    made = Written(tmp_path)
    yield made
    made.close()


def sought(text: str, user: str = "ann", **fields: Any) -> SearchLog:
    return SearchLog(strategy_id=STRATEGY, run_id=RUN, user=user, text=text, **fields)


def find(written: Written, text: str, **fields: Any) -> LogHits:
    command = sought(text, **fields)
    searches = Searches(written.reader(KEY), known(KEY))
    return asyncio.run(searches.search(command))


def lines(found: LogHits) -> list[str]:
    return [hit.line for hit in found.hits]


BOTH = pytest.mark.parametrize("regex", [False, True], ids=["text", "regex"])


@BOTH
def test_lines_are_found_newest_first_with_their_offsets(written: Written, *, regex: bool) -> None:
    written.write_lines(60_000)  # more than one block
    text = r"^line \d*999 of" if regex else "999 of"
    seen: list[str] = []
    before: int | None = None
    while True:
        found = find(written, text, regex=regex, limit=25, before=before)
        for hit in found.hits:
            assert written.all[hit.offset :].startswith(hit.line.encode() + b"\n")
        seen, before = seen + lines(found), found.before
        if before is None:
            break
        assert not found.cut_short
    wanted = [n for n in range(60_000) if n % 1000 == 999]
    assert seen == [f"line {n} of what it says" for n in reversed(wanted)]


@BOTH
def test_case_may_be_ignored_also_of_other_letters(written: Written, *, regex: bool) -> None:
    written.write("Ärger one\nÄRGER two\nnothing\nERROR\n".encode())
    assert lines(find(written, "ärger", regex=regex, ignore_case=True)) == [
        "ÄRGER two",
        "Ärger one",
    ]
    assert lines(find(written, "ärger", regex=regex)) == []
    assert lines(find(written, "error", regex=regex, ignore_case=True)) == ["ERROR"]


@pytest.mark.parametrize("text", [KEY, KEY[:6], KEY[-6:], "4711"])
@BOTH
def test_a_search_tells_nothing_of_a_secret(written: Written, text: str, *, regex: bool) -> None:
    written.write(f"login with {KEY} was refused\n".encode())
    assert lines(find(written, text, regex=regex)) == []
    assert lines(find(written, "login", regex=regex)) == ["login with *************** was refused"]


def test_half_a_secret_at_the_end_of_a_live_log_is_not_searched(written: Written) -> None:
    written.write(f"up\nkey {KEY[:8]}".encode())
    assert lines(find(written, "kite", live=True)) == []
    assert lines(find(written, "up", live=True)) == ["up"]


def test_archived_lines_are_found_and_dropped_ones_are_not(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runlog, "STEP", 65_536)
    written.write_lines(9000)
    while written.log.archive(8192):
        pass
    assert lines(find(written, "line 17 of")) == ["line 17 of what it says"]
    written.log.drop(keep=4096)
    found = find(written, "line 17 of")
    assert (lines(found), found.before) == ([], None)
    assert found.first > 0


@pytest.mark.skipif(sys.platform == "win32", reason="a line has no time limit there")
def test_a_line_that_takes_for_ever_is_passed_over(written: Written) -> None:
    written.write(b"aab\n" + b"a" * 60 + b"!\n" + b"aaa\n")
    found = find(written, EVIL, regex=True, budget_s=5)
    assert (lines(found), found.passed_over, found.cut_short) == (["aaa"], 1, False)


def test_a_search_that_is_cancelled_as_it_ends_leaves_no_process(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    written.write(b"up\n")
    processes: list[asyncio.subprocess.Process] = []
    ending, go_on = asyncio.Event(), asyncio.Event()
    wait = asyncio.subprocess.Process.wait

    async def held(process: asyncio.subprocess.Process) -> int:
        processes.append(process)
        ending.set()
        await go_on.wait()
        return await wait(process)

    async def scenario() -> None:
        searches = Searches(written.reader(KEY), known(KEY))
        searching = asyncio.ensure_future(searches.search(sought("up", regex=True)))
        await ending.wait()
        searching.cancel()
        await asyncio.sleep(0)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await searching
        assert [process.returncode is None for process in processes] == [False]

    monkeypatch.setattr(asyncio.subprocess.Process, "wait", held)
    asyncio.run(scenario())


def test_a_search_ends_when_its_time_is_over_and_says_where_to_go_on(written: Written) -> None:
    """The loop is free all the while, and the child is gone afterwards."""
    written.write((b"a" * 60 + b"!\n") * 500 + b"aaa\n")
    ticks = 0

    async def scenario() -> LogHits:
        nonlocal ticks
        searches = Searches(written.reader(), known())
        searching = asyncio.create_task(searches.search(sought(EVIL, regex=True, budget_s=2)))
        while not searching.done():
            await asyncio.sleep(0.02)
            ticks += 1
        return await searching

    begun = time.monotonic()
    found = asyncio.run(scenario())
    assert time.monotonic() - begun < 10
    assert ticks > 20
    assert found.cut_short
    assert found.before is not None
    assert 0 < found.before < len(written.all)
    assert lines(found) == ["aaa"]


@BOTH
def test_a_search_looks_at_something_however_little_time_there_was(
    written: Written, *, regex: bool
) -> None:
    """A busy host gives the child no processor within the budget."""
    written.write(b"not this\n" * 60_000 + b"aaa\n")
    found = find(written, "aaa", regex=regex, budget_s=0.000_001)
    assert (lines(found), found.cut_short) == (["aaa"], True)
    assert found.before is not None
    assert found.before < len(written.all)


@pytest.mark.parametrize("text", ["(", "*a", "(?P<x", "a{99999999999}", "[" * 150])
def test_what_is_no_expression_is_refused(written: Written, text: str) -> None:
    written.write(b"a\n")
    with pytest.raises(InvalidRequest, match="text"):
        find(written, text, regex=True)


def test_an_answer_is_no_larger_than_a_message(written: Written) -> None:
    written.write(("₹" * 5000 + "\n").encode() * 400)
    found = find(written, "₹", limit=500)
    assert 20 < len(found.hits) < 400
    assert all(len(line) == search.LONGEST_LINE for line in lines(found))
    assert len(found.encode()) < 2**20
    assert found.before == found.hits[-1].offset


def test_what_was_dropped_does_not_lead_a_search_astray(written: Written) -> None:
    """Page by page, each line once, though what is left is less than a block."""
    written.write_lines(9000)
    written.log.drop(keep=100_000)
    seen: list[LogHit] = []
    found = find(written, "7 of", limit=30, before=len(written.all) - 50_000)
    seen += found.hits
    while found.before is not None:
        found = find(written, "7 of", limit=30, before=found.before)
        seen += found.hits
    offsets = [hit.offset for hit in seen]
    assert offsets == sorted(set(offsets), reverse=True)
    assert offsets[0] < len(written.all) - 50_000
    there = written.all[found.first : len(written.all) - 50_000]
    assert len(seen) == there.count(b"7 of")


def test_a_line_longer_than_a_block_is_searched_in_pieces(written: Written) -> None:
    written.write(b"x" * 1_500_000 + b"needle" + b"y" * 300_000 + b"\nlast\n")
    assert len(find(written, "needle").hits) == 1
    assert lines(find(written, "last")) == ["last"]


def test_who_searches_without_end_keeps_nobody_else_waiting(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their own next search waits, and is told that its time was over."""
    written.write((b"a" * 60 + b"!\n") * 500 + b"aaa\n")
    monkeypatch.setattr(search, "SEARCH_WAIT_S", 2)
    real = search._matching  # pyright: ignore[reportPrivateUsage]

    async def scenario() -> tuple[LogHits, LogHits]:
        begun = asyncio.Event()

        def matching(command: SearchLog) -> Any:
            begun.set()
            return real(command)

        monkeypatch.setattr(search, "_matching", matching)
        searches = Searches(written.reader(), known())
        endless = [
            asyncio.create_task(searches.search(sought(EVIL, user="eve", regex=True, budget_s=10)))
            for _ in range(3)
        ]
        await begun.wait()
        others = await searches.search(sought("^aaa$", user="bob", regex=True, limit=1))
        await asyncio.wait(endless, return_when=asyncio.FIRST_COMPLETED)
        (waited, *_) = [one.result() for one in endless if one.done()]
        for task in endless:
            task.cancel()
        await asyncio.gather(*endless, return_exceptions=True)
        return others, waited

    others, waited = asyncio.run(scenario())
    assert lines(others) == ["aaa"]
    assert (lines(waited), waited.cut_short, waited.before) == ([], True, len(written.all))


@pytest.mark.skipif(sys.platform == "win32", reason="a line has no time limit there")
def test_a_host_that_stands_still_loses_no_line() -> None:
    """The matcher has the processor for 3 ms of every 120."""
    assert sys.platform != "win32"
    block = b"a" * 19 + b"!aaa\n"
    asked = json.dumps({"text": "^(a+)+$|!aaa", "ignore_case": False}).encode() + b"\n"
    with subprocess.Popen(
        [sys.executable, "-I", "-S", str(search.MATCHER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as matcher:
        assert matcher.stdin is not None
        assert matcher.stdout is not None
        matcher.stdin.write(asked)
        matcher.stdin.flush()
        assert json.loads(matcher.stdout.readline()) == {}
        matcher.send_signal(signal.SIGSTOP)
        matcher.stdin.write(b"%d 10\n" % len(block) + block)
        matcher.stdin.flush()
        while not select.select([matcher.stdout], [], [], 0.117)[0]:
            matcher.send_signal(signal.SIGCONT)
            time.sleep(0.003)
            matcher.send_signal(signal.SIGSTOP)
        matcher.send_signal(signal.SIGCONT)
        told = json.loads(matcher.stdout.readline())
        matcher.stdin.close()
    assert told == {"hits": [[0, len(block) - 1]], "passed_over": 0, "left": 0}
