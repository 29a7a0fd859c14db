"""What a run in a cell is said to use: of its own processes, never of its keeper."""

import json
import sys
from dataclasses import dataclass

import pytest

from openbell.contracts.limits import Limits
from openbell.contracts.model import RunState
from services.runner.backends.base import Process
from services.runner.backends.process import ProcessBackend
from services.runner.monitor.samples import Group
from services.runner.monitor.sources import Reader
from tests.fixtures.wardens import House, play

if sys.platform != "linux":
    pytest.skip("cells are Linux's", allow_module_level=True)

BARE = """
from services.runner.warden import cells
cells.Cells.try_one = lambda self: setattr(self, "why_bare", "a test")
from services.runner.warden import uids
uids.available = lambda: False
"""
GROUPLESS = """
from services.runner.warden import cgroup_parents
cgroup_parents.find = lambda name: cgroup_parents.Parents(0, {}, ["a test"])
"""


@dataclass(frozen=True, slots=True)
class Run:
    pid: int
    keeper: bool
    group: Group | None
    limits: Limits = Limits()  # noqa: RUF009


@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize("groupless", [False, True])
def test_one_script_is_one_process(house: House, bare: bool, groupless: bool) -> None:
    async def started(backend: ProcessBackend) -> Process:
        """As it is told to whoever watches."""
        async for observations in backend.observations(0):
            for one in observations:
                if one.state is RunState.RUNNING:
                    assert one.process is not None
                    return one.process
        raise AssertionError

    async def scene() -> None:
        async with house.client() as client:
            whole = client.host["namespaces"]
            await house.run(client, "echo up; exec sleep 100")
            await house.said("up")
        backend = ProcessBackend(house.folder)
        try:
            [handle] = (await backend.recover()).live
            assert handle.process is not None
            assert handle.process == await started(backend)
            assert handle.process.keeper == whole
            run = Run(handle.process.pid, handle.process.keeper, backend.group("a"))
            for _ in range(2):
                reading = Reader().read({"a": run})["a"]
                assert (reading.processes, reading.grouped) == (1, run.group is not None)
        finally:
            await backend.close()

    with house.warden(patch=(BARE if bare else "") + (GROUPLESS if groupless else "")):
        play(scene())


def test_a_warden_that_found_no_groups_leaves_its_runs_to_be_counted(house: House) -> None:
    """The next one, which finds some, looks for them where they are not."""

    async def begin() -> None:
        async with house.client() as client:
            await house.run(client, "echo up; exec sleep 100")
            await house.said("up")

    async def find() -> None:
        backend = ProcessBackend(house.folder)
        try:
            [handle] = (await backend.recover()).live
            assert handle.process is not None
            run = Run(handle.process.pid, handle.process.keeper, backend.group("a"))
            reading = Reader().read({"a": run})["a"]
            assert (reading.processes, reading.grouped) == (1, False)
            assert reading.memory > 0
        finally:
            await backend.close()

    with house.warden(patch=GROUPLESS):
        play(begin())
    (house.folder / "groups.json").unlink()
    with house.warden():
        play(find())
    assert "version" in json.loads((house.folder / "groups.json").read_text())
