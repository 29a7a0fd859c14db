"""Strategies that do their worst, where all limits are cgroup v2's: what of it concerns groups."""

from __future__ import annotations

import json
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from services.runner.backends.warden_client import WardenClient
from tests.fixtures import attacked, ordinary
from tests.fixtures.cgroup2 import MOUNT, divisible
from tests.fixtures.hostile import Ground
from tests.fixtures.wardens import House, play
from tests.hostile import attacks, verdicts
from tests.hostile.verdicts import not_kept_out, of_ordinary_user

if sys.platform != "linux":
    pytest.skip("cgroups are Linux's", allow_module_level=True)
assert sys.platform == "linux"

pytestmark = pytest.mark.cgroup2

ALL = {"memory": True, "processes": True, "cpu": True}
OF_GROUPS = ("group", "permit", "nested_root_permit")
"""How the names of those probes begin that a warden without a product can make."""


def test_each_limit_is_enforced(ground: Ground) -> None:
    for limit in ("memory_limit", "pids_limit", "cpu_limit"):
        assert ground.able[limit] == "enforced", ground.able
    groups = json.loads((ground.stack.home / "data/warden/groups.json").read_text())
    assert groups["version"] == 2


def test_each_probe_is_kept_out(ground: Ground) -> None:
    expected = ground.expected if ground.forks else verdicts.EXPECTED | verdicts.GROUPS_OF_V2
    assert not_kept_out(attacked.probed(ground), expected) == {}


@pytest.mark.parametrize("name", ["forks", "memory", "memory of children", "threads"])
def test_who_takes_more_than_its_share_is_ended(ground: Ground, name: str) -> None:
    attacked.is_ended(ground, name)


def test_who_leaves_its_session_and_its_parents_is_stopped(ground: Ground) -> None:
    attacked.is_stopped(ground, "escaped")


def test_a_daemon_that_hears_nothing_ends_soon_after_its_run(ground: Ground) -> None:
    attacked.is_outlived_by_nobody(ground)


# ---- where the groups belong to the strategy's own user


@pytest.fixture
def service(cgroup: Path) -> Generator[Path]:
    """A group that was given away, and whoever is started is in the one below it: a unit of
    systemd's with Delegate= and DelegateSubgroup=.
    """
    (cgroup / "cgroup.subtree_control").write_text("+cpu +memory +pids")
    group = divisible(cgroup / "service")
    (divisible(group / "openbell") / "cgroup.procs").write_text("0")
    yield group
    (MOUNT / "cgroup.procs").write_text("0")


@pytest.mark.usefixtures("service")
def test_whose_own_its_groups_are_cannot_lift_its_limits(
    ordinary_house: House, python: str
) -> None:
    home = str(ordinary_house.folder)
    places: dict[str, object] = {"home": home, "only": OF_GROUPS, "pids": {}, "files": {}}
    script = attacked.PROBES.read_text()

    async def scene() -> None:
        async with ordinary_house.client() as client:
            said = await _run(client, ordinary_house, [python, "-c", script], places)
        expected = {k: v for k, v in of_ordinary_user().items() if k.startswith(OF_GROUPS)}
        assert not_kept_out(json.loads(said), expected) == {}

    with ordinary_house.warden(python=python, user=ordinary.user()):
        play(scene())


@pytest.mark.usefixtures("service")
def test_whose_own_its_groups_are_is_held_to_its_limits(ordinary_house: House, python: str) -> None:
    async def scene() -> None:
        async with ordinary_house.client() as client:
            for run, source, limit in (
                ("memory", attacks.MEMORY, {"memory": 32 << 20}),
                ("threads", attacks.THREADS, {"processes": 16}),
            ):
                await ordinary_house.start(client, [python, "-c", source], run, **limit)
            exits = await ordinary_house.exits("memory", "threads")
            assert exits["memory"].signal == "SIGKILL"
            assert exits["memory"].out_of_memory
            assert exits["threads"].exit_code == 1
            assert exits["threads"].refused

    with ordinary_house.warden(python=python, user=ordinary.user()):
        play(scene())


async def _run(
    client: WardenClient, house: House, argv: list[str], places: dict[str, object]
) -> str:
    assert (client.host["enforces"], client.host["groups"]["version"]) == (ALL, 2)
    assert (client.host["namespaces"], client.host["own_user"]) == (True, False)
    await house.start(client, argv, "a", env={"PLACES": json.dumps(places)})
    entry = await house.exit()
    said = house.log("a").read_text()
    assert entry.exit_code == 0, said
    return said
