"""One transaction for all changes that are asked for while another one is being committed."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

AskedT = TypeVar("AskedT")
AnswerT = TypeVar("AnswerT")
Waiting = tuple[AskedT, asyncio.Future[AnswerT]]
ENOUGH = 2
"""Failures, one after another."""


class GroupCommit(Generic[AskedT, AnswerT]):
    """A change that comes alone is committed at once, as it would be without this.

    What breaks a transaction of several is found by doing each in one of its own; unless that
    fails as well, again and again: then it is the database that is broken, and nobody waits for it
    in a queue.
    """

    def __init__(
        self,
        commit: Callable[[Sequence[AskedT]], Awaitable[Sequence[AnswerT | Exception]]],
        most: int,
    ) -> None:
        """`commit` answers each, in their order; an exception that it returns is of one alone, and
        one that it raises of its whole transaction. `most` go into one.
        """
        self._commit = commit
        self._most = most
        self._waiting: list[tuple[AskedT, asyncio.Future[AnswerT]]] = []
        self._working: asyncio.Task[None] | None = None

    async def add(self, asked: AskedT) -> AnswerT:
        """Returns once it is committed. Who is cancelled takes it back, unless it is under way."""
        answer: asyncio.Future[AnswerT] = asyncio.get_running_loop().create_future()
        self._waiting.append((asked, answer))
        if self._working is None:
            self._working = asyncio.create_task(self._work())
        return await answer

    async def _work(self) -> None:
        try:
            while self._waiting:
                wanted = [one for one in self._waiting if not one[1].done()]
                group, self._waiting = wanted[: self._most], wanted[self._most :]
                if group and (error := await self._do(group)) and len(group) > 1:
                    await self._do_apart(group, error)
        finally:
            self._working = None

    async def _do_apart(self, group: Sequence[Waiting[AskedT, AnswerT]], error: Exception) -> None:
        failures = 0
        for one in group:
            if failures < ENOUGH:
                failures = failures + 1 if await self._do([one]) else 0
            elif not one[1].done():
                one[1].set_exception(error)

    async def _do(self, group: Sequence[Waiting[AskedT, AnswerT]]) -> Exception | None:
        """Why the transaction came to nothing. If it was one of several, nobody was told yet."""
        failed: Exception | None = None
        answers: Sequence[AnswerT | Exception] = ()
        try:
            answers = await self._commit([asked for asked, _ in group])
        except Exception as error:  # noqa: BLE001 - it is its asker's
            if len(group) > 1:
                return error
            failed, answers = error, [error]
        for (_, waiter), answer in zip(group, answers, strict=True):
            if waiter.done():
                continue
            if isinstance(answer, Exception):
                waiter.set_exception(answer)
            else:
                waiter.set_result(answer)
        return failed
