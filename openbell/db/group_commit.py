"""One transaction for all changes that are asked for while another one is being committed."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

AskedT = TypeVar("AskedT")
AnswerT = TypeVar("AnswerT")


class GroupCommit(Generic[AskedT, AnswerT]):
    """A change that comes alone is committed at once, as it would be without this.

    What breaks a transaction of several is found by doing each in one of its own.
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
        """Returns once it is committed. It is, also when who waits for it is cancelled."""
        answer: asyncio.Future[AnswerT] = asyncio.get_running_loop().create_future()
        self._waiting.append((asked, answer))
        if self._working is None:
            self._working = asyncio.create_task(self._work())
        return await answer

    async def _work(self) -> None:
        try:
            while self._waiting:
                group, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
                if not await self._do(group) and len(group) > 1:
                    for one in group:
                        await self._do([one])
        finally:
            self._working = None

    async def _do(self, group: Sequence[tuple[AskedT, asyncio.Future[AnswerT]]]) -> bool:
        """False when a transaction of several came to nothing: nobody was told anything yet."""
        try:
            answers = await self._commit([asked for asked, _ in group])
        except Exception as error:  # noqa: BLE001 - it is its asker's
            if len(group) > 1:
                return False
            answers = [error]
        for (_, waiter), answer in zip(group, answers, strict=True):
            if waiter.done():
                continue
            if isinstance(answer, Exception):
                waiter.set_exception(answer)
            else:
                waiter.set_result(answer)
        return True
