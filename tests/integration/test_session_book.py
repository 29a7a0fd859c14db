"""What the scheduler knows of sessions while its calendar is slow, silent, or just changing.

Time is the loop's, and goes on by itself to the next thing that is to happen: nothing sleeps.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, cast

import pytest

from openbell.bus import Bus
from openbell.contracts.commands import ListSessions, Sessions
from openbell.contracts.errors import NoAnswer, OpenbellError, ServiceUnavailable, UnknownExchange
from services.scheduler.sessions import FRESH, USABLE, SessionBook
from tests.fixtures.sessions import sessions

NOW = datetime(2026, 11, 19, 3, 45, tzinfo=UTC)
TODAY = date(2026, 11, 19)
STALE = NOW + FRESH
REQUEST_S = 5.0


class Time(selectors.SelectSelector):
    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        assert timeout is not None, "everybody waits for something that will never happen"
        self.now += max(timeout, 0)
        return super().select(0)


def play(scene: Coroutine[Any, Any, None]) -> None:
    time = Time()

    def loop() -> asyncio.AbstractEventLoop:
        made = asyncio.SelectorEventLoop(time)
        made.time = lambda: time.now
        return made

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(scene)


async def soon() -> None:
    """Whatever can happen without time passing has happened."""
    for _ in range(20):
        await asyncio.sleep(0)


@dataclass
class Question:
    command: ListSessions
    reply: asyncio.Future[Sessions] = field(default_factory=asyncio.Future[Sessions])

    def answer(self, holiday: str | None = None, *, segment: str = "NSE") -> None:
        holidays = {TODAY: holiday} if holiday else {}
        first, last = self.command.first, self.command.last
        self.reply.set_result(sessions(first, last, segment=segment, holidays=holidays))


class Calendar:
    """In place of the bus. Answers when a test says so, or by itself; else the request ends."""

    def __init__(self) -> None:
        self.asked: list[Question] = []
        self.by_itself: Callable[[Question], None] = lambda _question: None
        self.changed: list[str] = []
        self.book = SessionBook(cast("Bus", self), changed=self.changed.append)

    async def request(self, command: ListSessions) -> Sessions:
        question = Question(command)
        self.asked.append(question)
        self.by_itself(question)
        try:
            async with asyncio.timeout(REQUEST_S):
                return await question.reply
        except TimeoutError:
            raise NoAnswer("the calendar did not answer within 5 s") from None

    @property
    def names(self) -> list[str]:
        return [question.command.segment for question in self.asked]

    @contextmanager
    def answering(self, holiday: str | None = None) -> Generator[None]:
        self.by_itself = lambda it: it.answer(holiday, segment=it.command.segment)
        yield
        self.by_itself = lambda _question: None

    @contextmanager
    def failing(self, error: Exception) -> Generator[None]:
        self.by_itself = lambda it: it.reply.set_exception(error)
        yield
        self.by_itself = lambda _question: None

    async def look(self, *segments: str, now: datetime = NOW) -> float:
        """Returns how long it took."""
        began = asyncio.get_running_loop().time()
        await self.book.refresh(set(segments), now)
        return asyncio.get_running_loop().time() - began

    async def tell(self, *segments: str) -> None:
        with self.answering():
            assert await self.look(*segments) == 0
        self.asked.clear()

    def closed(self, now: datetime = NOW, segment: str = "NSE") -> str | None:
        """Why there is no session today, as the book has it."""
        known = self.book.known(segment, now)
        assert known is not None
        return known.why_closed(TODAY)


async def passes(seconds: float) -> None:
    """Of the loop's time, which is made up."""
    await asyncio.sleep(seconds)


# ---- what was never told


def test_what_was_never_told_is_waited_for() -> None:
    async def scene() -> None:
        calendar = Calendar()
        look = asyncio.create_task(calendar.look("NSE"))
        await soon()
        assert not look.done()
        assert calendar.book.known("NSE", NOW) is None
        calendar.asked[0].answer()
        await look
        assert calendar.closed() is None
        assert await calendar.look("NSE") == 0
        assert calendar.names == ["NSE"]
        assert calendar.changed == []  # who asked has it, and looks

    play(scene())


def test_a_hung_calendar_holds_up_one_look_and_for_a_short_while() -> None:
    async def scene() -> None:
        calendar = Calendar()
        assert await calendar.look("NSE") == pytest.approx(2)
        for _ in range(100):  # at the same question, after its failure, at the next question
            assert await calendar.look("NSE") == 0
            await passes(0.1)
        assert calendar.names == ["NSE"] * 3
        await calendar.book.close()

    play(scene())


def test_looks_at_once_share_one_question() -> None:
    async def scene() -> None:
        calendar = Calendar()
        looks = [asyncio.create_task(calendar.look("NSE")) for _ in range(3)]
        await passes(1)
        assert await calendar.look("NSE") == pytest.approx(1)
        assert [await look for look in looks] == pytest.approx([2, 2, 2])
        assert calendar.names == ["NSE"]
        await calendar.book.close()

    play(scene())


def test_a_hung_calendar_holds_up_nothing_that_does_not_need_it() -> None:
    async def scene() -> None:
        calendar = Calendar()
        await calendar.tell("NSE", "MCX")
        with calendar.answering():
            assert await calendar.look(now=STALE) == 0
            await soon()
        assert sorted(calendar.names) == ["MCX", "NSE"]
        calendar.asked.clear()
        later = STALE + FRESH
        assert await calendar.look(now=later) == 0
        assert await calendar.look("NSE", now=later) == 0
        await soon()
        assert sorted(calendar.names) == ["MCX", "NSE"]
        assert await calendar.look("NSE", "BSE", now=later) == pytest.approx(2)  # for BSE
        assert calendar.closed(later) is None
        await calendar.book.close()

    play(scene())


def test_nobody_waits_right_after_a_failure_and_it_is_asked_again() -> None:
    async def scene() -> None:
        calendar = Calendar()
        with calendar.failing(ServiceUnavailable("no calendar is connected")):
            assert await calendar.look("NSE") == 0
        assert await calendar.look("NSE") == 0
        await soon()
        calendar.asked[1].answer()
        await soon()
        assert calendar.closed() is None
        assert calendar.changed == ["NSE"]

    play(scene())


def test_some_time_after_a_failure_it_is_waited_for_again() -> None:
    async def scene() -> None:
        calendar = Calendar()
        with calendar.failing(ServiceUnavailable("no calendar is connected")):
            await calendar.look("NSE")
        await passes(2)
        look = asyncio.create_task(calendar.look("NSE"))
        await passes(1.5)
        calendar.asked[1].answer()
        assert await look == pytest.approx(1.5)
        assert calendar.closed() is None
        assert calendar.changed == ["NSE"]  # for the look that went on without

    play(scene())


def test_an_answer_that_comes_after_the_look_went_on_is_told() -> None:
    async def scene() -> None:
        calendar = Calendar()
        assert await calendar.look("NSE") == pytest.approx(2)
        await passes(2.5)
        calendar.asked[0].answer()
        await soon()
        assert calendar.changed == ["NSE"]
        assert calendar.closed() is None

    play(scene())


@pytest.mark.parametrize("pause_s", [0.5, 10])
def test_a_calendar_that_is_loaded_for_longer_than_a_request_lasts(pause_s: float) -> None:
    """The next look has it, or is told of it right after."""

    async def scene() -> None:
        calendar = Calendar()
        await calendar.look("NYSE")
        await passes(3.5)
        assert calendar.book.known("NYSE", NOW) is None
        await passes(pause_s)
        with calendar.answering():
            assert await calendar.look("NYSE") == 0
            assert (calendar.book.known("NYSE", NOW) is not None) == (pause_s > 2)
            await soon()
        assert calendar.book.known("NYSE", NOW) is not None
        assert calendar.names == ["NYSE", "NYSE"]
        assert calendar.changed == ["NYSE"]

    play(scene())


def test_what_nobody_has_and_nobody_names_is_not_asked_for() -> None:
    async def scene() -> None:
        calendar = Calendar()
        with calendar.failing(UnknownExchange("there is no exchange XYZ")):
            await calendar.look("XYZ")
        for _ in range(3):
            await calendar.look()
            await soon()
        assert calendar.names == ["XYZ"]

    play(scene())


def test_one_calendar_that_fails_takes_no_other_with_it() -> None:
    async def scene() -> None:
        calendar = Calendar()

        def answer(question: Question) -> None:
            if question.command.segment == "NSE":
                question.answer()
            else:
                question.reply.set_exception(UnknownExchange("there is no exchange XYZ"))

        calendar.by_itself = answer
        assert await calendar.look("NSE", "XYZ") == 0
        assert calendar.closed() is None
        assert calendar.book.known("XYZ", NOW) is None

    play(scene())


# ---- what is no longer fresh


def test_what_is_no_longer_fresh_is_asked_for_beside() -> None:
    async def scene() -> None:
        calendar = Calendar()
        await calendar.tell("NSE")
        assert await calendar.look("NSE", now=STALE - timedelta(microseconds=1)) == 0
        await soon()
        assert calendar.names == []
        for _ in range(3):
            assert await calendar.look("NSE", now=STALE) == 0
            await soon()
        assert calendar.names == ["NSE"]
        assert calendar.closed(STALE) is None
        calendar.asked[0].answer("a cyclone")
        await soon()
        assert calendar.closed(STALE) == "NSE is closed: a cyclone"
        assert calendar.changed == ["NSE"]

    play(scene())


def test_what_is_as_it_was_is_not_told() -> None:
    async def scene() -> None:
        calendar = Calendar()
        await calendar.tell("NSE")
        now = NOW
        with calendar.answering():
            for _ in range(3):
                now += FRESH
                await calendar.look("NSE", now=now)
                await soon()
        assert calendar.names == ["NSE"] * 3
        assert calendar.changed == []

    play(scene())


def test_a_failure_leaves_what_there_was_and_its_end_is_told() -> None:
    async def scene() -> None:
        calendar = Calendar()
        await calendar.tell("NSE")
        with calendar.failing(ServiceUnavailable("no calendar is connected")):
            for _ in range(3):
                assert await calendar.look("NSE", now=STALE) == 0
                await soon()
        assert calendar.closed(STALE) is None
        with calendar.answering("a cyclone"):
            assert await calendar.look("NSE", now=STALE) == 0
            await soon()
        assert calendar.closed(STALE) == "NSE is closed: a cyclone"
        assert calendar.changed == ["NSE"]

    play(scene())


def test_an_answer_that_cannot_be_read_is_a_failure() -> None:
    async def scene() -> None:
        calendar = Calendar()
        await calendar.tell("NSE")
        with calendar.failing(ValueError("not what a calendar says")):
            await calendar.look("NSE", now=STALE)
            assert await calendar.look("BSE", now=STALE) == 0
        assert calendar.closed(STALE) is None
        with calendar.answering():
            await calendar.look("BSE", now=STALE)
            await soon()
        assert calendar.book.known("BSE", STALE) is not None

    play(scene())


# ---- clocks


@pytest.mark.parametrize("jump", [timedelta(hours=-3), timedelta(hours=3)])
def test_a_clock_that_is_set_makes_nothing_fresh_for_ever(jump: timedelta) -> None:
    async def scene() -> None:
        calendar = Calendar()
        await calendar.tell("NSE")
        with calendar.answering("a cyclone"):
            assert await calendar.look("NSE", now=NOW + jump) == 0
            await soon()
        assert calendar.closed(NOW + jump) == "NSE is closed: a cyclone"
        assert calendar.changed == ["NSE"]
        calendar.asked.clear()
        await calendar.look("NSE", now=NOW + jump)
        await soon()
        assert calendar.asked == []

    play(scene())


@pytest.mark.parametrize("jump", [-USABLE, USABLE])
def test_what_was_told_of_another_time_is_as_if_it_was_never_told(jump: timedelta) -> None:
    async def scene() -> None:
        calendar = Calendar()
        await calendar.tell("NSE")
        nearly = NOW + jump * 0.999
        assert calendar.book.known("NSE", nearly) is not None
        assert calendar.book.known("NSE", NOW + jump) is None
        look = asyncio.create_task(calendar.look("NSE", now=NOW + jump))
        await passes(1)
        calendar.asked[0].answer()
        assert await look == pytest.approx(1)
        assert calendar.book.known("NSE", NOW + jump) is not None

    play(scene())


# ---- what is no longer so


def test_a_change_is_waited_for_until_it_is_known() -> None:
    async def scene() -> None:
        calendar = Calendar()
        await calendar.tell("NSE", "MCX")
        calendar.book.outdate("NSE")
        assert calendar.closed() is None  # until the calendar was asked again
        look = asyncio.create_task(calendar.look("NSE"))
        await passes(4.5)
        assert not look.done()
        calendar.asked[0].answer("a cyclone")
        assert await look == pytest.approx(4.5)
        assert calendar.closed() == "NSE is closed: a cyclone"
        assert calendar.names == ["NSE"]
        assert calendar.changed == []  # who waits looks

    play(scene())


def test_a_change_that_is_told_while_an_older_answer_is_under_way() -> None:
    """Asked, then changed, then answered: with what was so before."""

    async def scene() -> None:
        calendar = Calendar()
        await calendar.tell("NSE")
        assert await calendar.look("NSE", now=STALE) == 0
        await soon()
        calendar.book.outdate("NSE")
        look = asyncio.create_task(calendar.look("NSE", now=STALE))
        await soon()
        (old,) = calendar.asked
        old.answer()
        await soon()
        assert not look.done()
        _, new = calendar.asked
        new.answer("a cyclone")
        await look
        assert calendar.closed(STALE) == "NSE is closed: a cyclone"
        assert calendar.changed == ["NSE"]  # for the look that did not wait
        assert await calendar.look("NSE", now=STALE) == 0
        assert calendar.names == ["NSE"] * 2

    play(scene())


def test_a_change_that_is_told_while_the_first_answer_is_under_way() -> None:
    """By whichever name: the code is not known yet."""

    async def scene() -> None:
        for name in ("NSE", "XNSE"):
            calendar = Calendar()
            look = asyncio.create_task(calendar.look(name))
            await soon()
            calendar.book.outdate("NSE")
            calendar.asked[0].answer()
            await soon()
            assert not look.done()
            calendar.asked[1].answer("a cyclone")
            await look
            assert calendar.closed(segment=name) == "NSE is closed: a cyclone"

    play(scene())


def test_changes_that_follow_one_another_are_all_known_in_the_end() -> None:
    async def scene() -> None:
        calendar = Calendar()
        await calendar.tell("NSE")
        for number in range(3):
            calendar.book.outdate("NSE")
            look = asyncio.create_task(calendar.look("NSE"))
            await soon()
            calendar.book.outdate("NSE")
            calendar.asked[-1].answer(f"{number}, before")
            await soon()
            assert not look.done()
            calendar.asked[-1].answer(f"{number}, after")
            await look
            assert calendar.closed() == f"NSE is closed: {number}, after"
        assert len(calendar.asked) == 6

    play(scene())


def test_a_question_that_was_lost_before_a_change_is_asked_again_at_once() -> None:
    async def scene() -> None:
        calendar = Calendar()
        await calendar.tell("NSE")
        await calendar.look("NSE", now=STALE)
        await passes(4.5)
        calendar.book.outdate("NSE")
        with calendar.answering("a cyclone"):
            assert await calendar.look("NSE", now=STALE) == pytest.approx(0.5)
        assert calendar.closed(STALE) == "NSE is closed: a cyclone"

    play(scene())


def test_a_change_reaches_what_was_asked_for_by_another_name() -> None:
    """Nobody looks at those schedules but for us."""

    async def scene(*, waits: bool) -> None:
        calendar = Calendar()
        calendar.by_itself = lambda it: it.answer()
        await calendar.look("XNSE", "NSE")
        calendar.by_itself = lambda it: it.answer("a cyclone")
        calendar.asked.clear()
        calendar.changed.clear()
        calendar.book.outdate("NSE")
        await calendar.look("XNSE" if waits else "NSE")
        await soon()
        assert sorted(calendar.names) == ["NSE", "XNSE"]
        assert calendar.closed(segment="XNSE") == "NSE is closed: a cyclone"
        assert "XNSE" in calendar.changed

    play(scene(waits=False))
    play(scene(waits=True))


def test_a_change_of_one_segment_leaves_the_others_fresh() -> None:
    async def scene() -> None:
        calendar = Calendar()
        await calendar.tell("NSE", "MCX")
        calendar.book.outdate("BSE")
        assert await calendar.look("NSE", "MCX") == 0
        await soon()
        assert calendar.names == []
        calendar.book.outdate("NSE")
        assert await calendar.look() == await calendar.look("MCX") == 0
        await soon()
        assert calendar.names == ["NSE"]
        await calendar.book.close()

    play(scene())


def test_a_calendar_that_tells_of_a_change_and_hangs_holds_up_one_look() -> None:
    """What there was stands, and what was changed is told as soon as it is known."""

    async def scene() -> None:
        calendar = Calendar()
        await calendar.tell("NSE")
        calendar.book.outdate("NSE")
        assert await calendar.look("NSE") == pytest.approx(REQUEST_S)
        assert calendar.closed() is None
        for _ in range(100):
            assert await calendar.look("NSE") == 0
            await passes(0.1)
        calendar.asked[-1].answer("a cyclone")
        await soon()
        assert calendar.closed() == "NSE is closed: a cyclone"
        assert calendar.changed == ["NSE"]

    play(scene())


def test_a_change_ends_the_distrust_after_a_failure() -> None:
    """A calendar that tells of it is there."""

    async def scene() -> None:
        calendar = Calendar()
        await calendar.tell("NSE")
        with calendar.failing(ServiceUnavailable("no calendar is connected")):
            await calendar.look("NSE", now=STALE)
            await soon()
        calendar.book.outdate("NSE")
        look = asyncio.create_task(calendar.look("NSE", now=STALE))
        await passes(1)
        calendar.asked[-1].answer("a cyclone")
        assert await look == pytest.approx(1)
        assert calendar.closed(STALE) == "NSE is closed: a cyclone"

    play(scene())


# ---- its end


def test_closing_ends_questions_and_whoever_waits_for_them() -> None:
    async def scene() -> None:
        calendar = Calendar()
        await calendar.tell("NSE")
        look = asyncio.create_task(calendar.look("MCX", now=STALE))
        await soon()
        assert sorted(calendar.names) == ["MCX", "NSE"]
        await calendar.book.close()
        assert all(question.reply.cancelled() for question in calendar.asked)
        assert await look == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}
        await calendar.book.close()

    play(scene())


def test_a_look_that_is_cancelled_leaves_the_question_to_the_others() -> None:
    async def scene() -> None:
        calendar = Calendar()
        looks = [asyncio.create_task(calendar.look("NSE")) for _ in range(2)]
        await soon()
        looks[0].cancel()
        await soon()
        calendar.asked[0].answer()
        assert await looks[1] == 0
        assert calendar.closed() is None

    play(scene())


def test_a_preview_asks_for_itself_and_is_told_what_is_wrong() -> None:
    async def scene() -> None:
        calendar = Calendar()
        with calendar.answering("a cyclone"):
            known = await calendar.book.ask("NSE", TODAY, TODAY)
        assert known.why_closed(TODAY) == "NSE is closed: a cyclone"
        assert calendar.book.known("NSE", NOW) is None
        error: OpenbellError = UnknownExchange("there is no exchange XYZ")
        with calendar.failing(error), pytest.raises(UnknownExchange):
            await calendar.book.ask("XYZ", TODAY, TODAY)

    play(scene())
