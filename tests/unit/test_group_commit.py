"""Changes that come while another is committed share a transaction, and not each other's fate."""

import asyncio
from collections.abc import Sequence

import pytest

from openbell.db.group_commit import GroupCommit


class Commits:
    """Of numbers: even ones are doubled, odd ones refused, 13 breaks its whole transaction."""

    def __init__(self) -> None:
        self.groups: list[Sequence[int]] = []
        self.go_on = asyncio.Event()

    async def __call__(self, asked: Sequence[int]) -> Sequence[int | Exception]:
        self.groups.append(asked)
        await self.go_on.wait()
        if 13 in asked:
            raise OSError("the disk")
        return [number * 2 if number % 2 == 0 else ValueError(number) for number in asked]


async def begun(commits: GroupCommit[int, int], *numbers: int) -> list[asyncio.Task[int]]:
    tasks = [asyncio.create_task(commits.add(number)) for number in numbers]
    await asyncio.sleep(0)
    return tasks


def test_one_alone_is_committed_at_once_and_those_that_come_meanwhile_together() -> None:
    async def scenario() -> None:
        done = Commits()
        commits = GroupCommit(done, most=3)
        tasks = await begun(commits, 2)
        await asyncio.sleep(0)
        assert done.groups == [[2]]
        tasks += await begun(commits, 4, 6, 8, 10)
        done.go_on.set()
        assert await asyncio.gather(*tasks) == [4, 8, 12, 16, 20]
        assert done.groups == [[2], [4, 6, 8], [10]]
        assert await commits.add(12) == 24

    asyncio.run(scenario())


def test_a_refusal_is_of_its_asker_alone() -> None:
    async def scenario() -> None:
        done = Commits()
        done.go_on.set()
        tasks = await begun(GroupCommit(done, most=10), 2, 3, 4)
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert [str(answer) for answer in answers] == ["4", "3", "8"]
        assert isinstance(answers[1], ValueError)

    asyncio.run(scenario())


def test_what_breaks_a_transaction_breaks_no_other_change() -> None:
    async def scenario() -> None:
        done = Commits()
        done.go_on.set()
        tasks = await begun(GroupCommit(done, most=10), 2, 13, 4)
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert [str(answer) for answer in answers] == ["4", "the disk", "8"]
        assert done.groups == [[2, 13, 4], [2], [13], [4]]

    asyncio.run(scenario())


def test_who_does_not_wait_for_it_any_more_has_taken_it_back() -> None:
    async def scenario() -> None:
        done = Commits()
        commits = GroupCommit(done, most=10)
        first = await begun(commits, 2)
        await asyncio.sleep(0)
        left, waits = await begun(commits, 4, 6)
        left.cancel()
        done.go_on.set()
        assert await asyncio.gather(*first, waits) == [4, 12]
        assert done.groups == [[2], [6]]
        with pytest.raises(asyncio.CancelledError):
            await left

    asyncio.run(scenario())


def test_of_a_broken_database_nobody_waits_for_a_turn_of_his_own() -> None:
    async def scenario() -> None:
        tried = 0

        async def commit(_asked: Sequence[int]) -> Sequence[int]:
            nonlocal tried
            tried += 1
            raise OSError("locked")

        tasks = await begun(GroupCommit(commit, most=50), *range(40))
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert {str(answer) for answer in answers} == {"locked"}
        assert tried == 3

    asyncio.run(scenario())
