"""Starts that wait for their instant, with the clock passed in and no process at all."""

import errno
import json
import os
import time
from collections.abc import Generator, Iterable, Mapping, Set
from pathlib import Path

import pytest

from services.runner.warden import warden as module
from services.runner.warden.host import End, Host, Identity, Order, Root
from services.runner.warden.journal import Journal
from services.runner.warden.protocol import (
    Json,
    RefusedError,
    Start,
    Stop,
    request_from_json,
)
from services.runner.warden.recovery import DROPPED, UNSTARTED, recover
from services.runner.warden.warden import RECALLED, UNWRITTEN, Warden

KILL = (("SIGKILL", 0.0),)
BELL = 1_000_000.0
HOUR = 3600.0
HELD: Json = {}


class Clock:
    """The wall clock, which anybody may set."""

    def __init__(self) -> None:
        self.now = BELL - 10

    def __call__(self) -> float:
        return self.now


class NoHost(Host):
    """Remembers what it was told, and what earlier wardens have left."""

    boot_id = "b"

    def __init__(self) -> None:
        self.prepared: dict[str, Order] = {}
        self.spawned: list[str] = []
        self.forgotten: list[str] = []
        self.kept: Set[str] | None = None
        self.left: dict[str, Identity] = {}
        self.looks = 0
        self.leftovers = False
        self.slow: set[str] = set()
        """What takes its time to be prepared."""
        self.broken: dict[str, Exception | None] = {}

    @property
    def poll(self) -> float | None:
        return None

    @property
    def untidy(self) -> bool:
        return self.leftovers

    def is_prepared(self, run: str, /) -> bool:
        return run not in self.slow

    def outcomes(self) -> Iterable[tuple[str, Exception | None]]:
        broken, self.broken = self.broken, {}
        return broken.items()

    def prepare(self, order: Order, /) -> None:
        if order.argv[0] == "/missing":
            raise FileNotFoundError(order.argv[0])
        self.prepared[order.run] = order

    def release(self, run: str, /) -> Identity:
        if self.prepared.pop(run).argv[0] == "/vanished":
            raise FileNotFoundError("/vanished")
        self.spawned.append(run)
        return Identity(100 + len(self.spawned), 7)

    def recall(self, run: str, /) -> None:
        del self.prepared[run]

    def adopt(self, run: str, main: Identity, /) -> End | None:
        return None if self.left.get(run) == main else End(detail="gone")

    def find(self, runs: Set[str], /) -> Mapping[str, Identity]:
        self.looks += 1
        return {run: self.left[run] for run in runs & self.left.keys()}

    def ended(self) -> Iterable[tuple[int, End]]:
        return ()

    def trees(self, roots: Mapping[str, Root], /) -> Mapping[str, Set[Identity]]:
        return {run: root.known for run, root in roots.items()}

    def send(self, run: str, members: Set[Identity], signal: str, /) -> None: ...

    def forget(self, run: str, /) -> None:
        self.forgotten.append(run)

    def forget_strangers(self, runs: Set[str], /) -> None:
        self.kept = set(runs)


class House:
    """One journal, and the wardens that follow each other on it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = Clock()
        self.host = NoHost()
        self.come_up()

    def come_up(self) -> None:
        self.journal = Journal(self.path)
        now = time.monotonic()
        runs = recover(self.journal, self.host, now, self.clock)
        self.warden = Warden(self.journal, self.host, runs, self.clock)
        self.warden.commit()

    def killed(self) -> None:
        """kill -9: what was not committed is gone."""
        os.close(self.journal._file)  # pyright: ignore[reportPrivateUsage]

    def start(
        self, run: str = "a", at: float | None = BELL, epoch: int = 1, argv: str = "x"
    ) -> Json:
        strategy = run.partition("-")[0]
        environment = {"TOKEN": "kite-live-0a1b2c3d"}
        request = Start(run, strategy, epoch, (argv,), "/", environment, "/log", KILL, at)
        return self.warden.start(request)

    def turn_at(self, now: float) -> list[str]:
        """What has been spawned once it has turned at this time."""
        self.clock.now = now
        self.warden.attend()
        return self.host.spawned

    def told(self, run: str = "a") -> list[str]:
        """What is on disk."""
        lines = [json.loads(line) for line in self.path.read_text().splitlines()]
        return [line["kind"] for line in lines if line["run"] == run]

    def end(self, run: str = "a") -> tuple[str | None, str | None]:
        last = self.journal.of(run)[-1]
        assert last.kind == "exited"
        return last.reason, last.detail

    def states(self) -> dict[object, object]:
        runs = self.warden.list_runs()["runs"]
        assert isinstance(runs, list)
        return {run["run"]: run["state"] for run in runs}  # pyright: ignore[reportUnknownVariableType]


@pytest.fixture
def house(tmp_path: Path) -> Generator[House]:
    house = House(tmp_path / "journal.jsonl")
    yield house
    house.killed()


def test_a_start_is_held_until_its_instant_and_written_down_before(house: House):
    assert house.start() == HELD
    assert list(house.host.prepared) == ["a"]
    assert house.warden.busy
    assert house.turn_at(BELL - 5) == []
    assert house.told() == ["preparing", "parked"]
    assert house.states() == {"a": "parked"}
    assert house.turn_at(BELL - 0.001) == []
    assert house.turn_at(BELL) == ["a"]
    assert house.told() == ["preparing", "parked", "started"]
    assert house.states() == {"a": "running"}


def test_a_start_without_an_instant_is_not_held(house: House):
    assert house.start(at=None)["pid"] == 101
    house.warden.attend()
    assert house.told() == ["starting", "started"]


@pytest.mark.parametrize("at", [BELL - 11, BELL - 10])
def test_a_start_whose_instant_has_come_is_held_until_it_is_prepared(house: House, at: float):
    """Hundreds may be: nothing waits while each is made."""
    assert house.start(at=at) == HELD
    assert house.turn_at(BELL - 10) == ["a"]
    assert house.told() == ["preparing", "parked", "started"]


def test_a_held_start_is_repeated_without_effect(house: House):
    house.start()
    house.warden.attend()
    assert house.start() == HELD
    house.turn_at(BELL)
    assert house.start()["pid"] == 101
    assert house.host.spawned == ["a"]
    assert house.told() == ["preparing", "parked", "started"]


def test_a_strategy_with_a_held_start_gets_no_second_one(house: House):
    house.start("a-1")
    with pytest.raises(RefusedError, match="busy"):
        house.start("a-2", epoch=2)
    house.warden.attend()
    with pytest.raises(RefusedError, match="fenced"):
        house.start("a-0", epoch=1)


def test_a_stop_of_a_held_start_is_the_end_of_it(house: House):
    house.start()
    house.warden.attend()
    house.warden.stop(Stop("a", "stopped_by_user", KILL))
    house.warden.stop(Stop("a", "stopped_by_schedule", KILL))
    assert house.turn_at(BELL) == []
    assert house.told() == ["preparing", "parked", "exited"]
    assert house.end() == ("stopped_by_user", RECALLED)
    assert (house.host.prepared, house.host.forgotten) == ({}, ["a"])
    assert not house.warden.busy
    with pytest.raises(RefusedError, match=RECALLED):
        house.start()


def test_a_clock_that_is_set_neither_starts_early_nor_loses_a_start(house: House):
    house.start()
    house.start("b", at=BELL + HOUR)
    assert house.turn_at(BELL - 10 - HOUR) == []
    assert house.warden.next_turn() - time.monotonic() <= 1, "it may be set forward again"
    assert house.turn_at(BELL - 1) == []
    assert house.turn_at(BELL + HOUR - 1) == ["a"], "a suspend: late, and not lost"
    assert house.turn_at(BELL - HOUR) == ["a"]
    assert house.turn_at(BELL + HOUR) == ["a", "b"]


def test_the_next_turn_is_the_instant_and_nothing_is_due_when_nothing_is_held(house: House):
    assert house.warden.next_turn() == float("inf")
    house.start(at=BELL - 9.75)
    assert 0.2 < house.warden.next_turn() - time.monotonic() <= 0.25


def test_a_host_that_has_something_left_to_remove_is_asked_again_soon(house: House):
    house.host.leftovers = True
    assert house.warden.next_turn() - time.monotonic() <= 0.25


def test_of_many_the_earlier_instant_is_first_and_one_instant_goes_as_it_came(house: House):
    for n in range(500):
        house.start(f"late{n}", at=BELL + 0.001)
    house.start("early", at=BELL)
    house.warden.attend()
    while len(house.turn_at(BELL + 1)) < 501:
        assert house.warden.next_turn() <= time.monotonic()
    assert house.host.spawned == ["early", *(f"late{n}" for n in range(500))]
    assert set(house.states().values()) == {"running"}


def test_those_who_are_stopped_while_others_start_are_not_waited_for(
    house: House, monkeypatch: pytest.MonkeyPatch
):
    """Starting hundreds takes seconds, in which a stop must not stand in line."""
    monkeypatch.setattr(module, "SPELL", 0.0)
    for name in "abc":
        house.start(name)
    assert house.turn_at(BELL) == ["a"]
    assert house.told("a") == ["preparing", "parked", "started"]
    house.warden.stop(Stop("b", "stopped_by_user", KILL))
    house.turn_at(BELL)
    assert house.turn_at(BELL) == ["a", "c"]


def test_what_cannot_be_prepared_says_so_at_once(house: House):
    with pytest.raises(RefusedError, match="/missing"):
        house.start(argv="/missing")
    house.warden.attend()
    assert house.told() == ["preparing", "exited"]
    assert house.end() == ("start_failed", "/missing")
    assert house.host.forgotten == ["a"]
    assert not house.warden.busy


def test_what_cannot_be_executed_at_its_instant_says_so(house: House):
    house.start(argv="/vanished")
    house.start("b")
    assert house.turn_at(BELL) == ["b"]
    assert house.end() == ("start_failed", "/vanished")
    assert house.host.forgotten == ["a"]


def test_what_is_left_of_others_is_forgotten_once_what_became_of_them_is_on_disk(
    house: House, monkeypatch: pytest.MonkeyPatch
):
    def full(_file: int, _data: bytes) -> int:
        raise OSError(errno.ENOSPC, "full")

    house.start("over")
    house.start("lives")
    house.warden.attend()
    house.host.left = {"lives": Identity(1000, 7)}
    house.killed()
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        house.host.kept = None
        house.come_up()
        house.warden.attend()
        assert house.host.kept is None, "the next warden could not tell how it ended"
    house.warden.attend()
    assert house.host.kept == {"lives"}
    assert house.told("over") == ["preparing", "parked", "exited"]


def test_it_is_calm_when_nothing_is_due_and_nobody_is_on_his_way_out(house: House):
    assert house.warden.is_calm(1)
    house.start()
    assert house.warden.is_calm(9)
    assert not house.warden.is_calm(11)
    house.turn_at(BELL)
    assert house.warden.is_calm(11)
    house.warden.stop(Stop("a", "stopped_by_user", (("SIGINT", 5.0), *KILL)))
    assert not house.warden.is_calm(1)


@pytest.mark.parametrize("run", ["../a", "A", "a b", "", "a" * 101])
def test_what_can_name_no_file_and_no_group_is_refused(house: House, run: str):
    with pytest.raises(RefusedError, match="bad_request"):
        house.start(run)
    assert house.host.prepared == {}


def test_a_run_is_stopped_when_it_has_lived_as_long_as_it_may(house: House):
    request = Start("a", "a", 1, ("x",), "/", {}, "/log", KILL, lifetime=60)
    house.warden.start(request)
    began = house.journal.of("a")[-1].at
    house.turn_at(began + 59)
    assert house.states() == {"a": "running"}
    house.killed()
    house.host.left = {"a": Identity(101, 7)}
    house.come_up()
    house.turn_at(began + 59)
    assert house.states() == {"a": "running"}
    house.turn_at(began + 60)
    assert house.states() == {"a": "stopping"}
    assert house.journal.of("a")[-1].reason == "time_limit"


def test_what_could_not_be_written_down_is_not_started(
    house: House, monkeypatch: pytest.MonkeyPatch
):
    def full(_file: int, _data: bytes) -> int:
        raise OSError(errno.ENOSPC, "full")

    house.start("written")
    house.warden.attend()
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        house.start("unwritten")
        assert house.turn_at(BELL) == ["written"]
        assert house.told("unwritten") == []
        with pytest.raises(RefusedError, match="journal_failed"):
            house.start("later", at=BELL + HOUR)
    assert house.turn_at(BELL + 1) == ["written"]
    assert house.told("unwritten") == ["preparing", "parked", "exited"]
    assert house.end("unwritten") == ("start_failed", UNWRITTEN)
    assert house.told("written") == ["preparing", "parked", "started"]


def test_a_warden_killed_while_holding_says_that_nothing_started(house: House):
    house.start()
    house.warden.attend()
    assert "kite-live" not in house.path.read_text()
    house.killed()
    house.come_up()
    assert house.told() == ["preparing", "parked", "exited"]
    assert house.end() == ("start_failed", DROPPED)
    assert house.start("a-2", epoch=2) == HELD, "it is tried again"
    assert house.turn_at(BELL) == ["a-2"]


def test_a_warden_killed_while_it_starts_many_loses_none_and_starts_none_twice(house: House):
    """All spawned, none committed: some live, and the others are over or were never born."""
    for n in range(500):
        house.start(f"r{n}")
    house.warden.attend()
    house.clock.now = BELL
    house.host.left = {f"r{n}": Identity(1000 + n, 7) for n in range(0, 500, 2)}
    house.killed()
    house.come_up()
    assert house.host.looks == 1, "each look walks over all processes"
    assert house.states() == {f"r{n}": "running" for n in range(0, 500, 2)}
    assert {house.end(f"r{n}") for n in range(1, 500, 2)} == {("start_failed", UNSTARTED)}
    assert house.start("r0")["pid"] == 1000
    assert house.turn_at(BELL + 1) == []


@pytest.mark.parametrize("at", ["soon", True, float("nan"), float("inf")])
def test_an_instant_that_is_none_is_refused(at: object):
    message: Json = {
        "op": "start", "run": "a", "strategy": "a", "epoch": 1, "argv": ["x"],
        "cwd": "/", "env": {}, "log": "/log", "ladder": [["SIGKILL", 0]], "at": at,
    }  # fmt: skip
    with pytest.raises(RefusedError, match="at:"):
        request_from_json(message)


def test_what_is_not_prepared_at_its_instant_keeps_nobody_waiting_and_starts_once_it_is(
    house: House,
) -> None:
    house.host.slow = {"a"}
    house.start("a")
    house.start("b")
    assert house.turn_at(BELL) == ["b"]
    assert house.warden.next_turn() > time.monotonic() + 0.5
    house.host.slow = set()
    assert house.turn_at(BELL + 0.1) == ["b", "a"]


def test_what_cannot_be_prepared_is_told_before_its_instant(house: House) -> None:
    house.host.slow = {"a"}
    house.start("a")
    house.host.broken = {"a": OSError("no room")}
    assert house.turn_at(BELL - 5) == []
    assert house.told() == ["preparing", "exited"]
    assert house.turn_at(BELL) == []
