"""Whose process is it? A table of processes goes in."""

from services.runner.warden.host import Identity, Root
from services.runner.warden.tree import Process, members

WARDEN = 50


def a_process(pid: int, parent: int, session: int, *, ticks: int = 0, zombie: bool = False):
    return Process(pid, ticks or pid, parent, session, zombie)


def root(pid: int, *known: int, own: bool = True) -> Root:
    main = Identity(pid, pid)
    return Root(main, {main, *(Identity(each, each) for each in known)}, own)


def found(
    processes: list[Process], roots: dict[str, Root], marks: dict[int, str] | None = None
) -> dict[str, set[int]]:
    table = {process.pid: process for process in processes}
    trees = members(table, roots, lambda process: (marks or {}).get(process.pid), WARDEN)
    return {run: {member.pid for member in tree} for run, tree in trees.items()}


def test_children_and_their_children_belong_whatever_session_they_made():
    processes = [
        a_process(WARDEN, 1, WARDEN),
        a_process(100, WARDEN, 100),
        a_process(101, 100, 100),
        a_process(102, 101, 102),
        a_process(103, 102, 102),
        a_process(200, 1, 200),
    ]
    assert found(processes, {"a": root(100)}) == {"a": {100, 101, 102, 103}}


def test_an_orphan_belongs_by_its_session_though_the_main_process_is_gone():
    processes = [a_process(101, WARDEN, 100), a_process(102, 1, 100)]
    assert found(processes, {"a": root(100)}) == {"a": {101, 102}}


def test_a_session_led_by_a_stranger_with_our_pid_is_not_ours():
    stranger = a_process(100, 1, 100, ticks=900)
    assert found([stranger, a_process(901, 100, 100)], {"a": root(100)}) == {"a": set()}


def test_a_daemon_is_found_by_its_mark_and_brings_its_session():
    processes = [a_process(300, WARDEN, 300), a_process(301, 1, 300), a_process(302, 1, 302)]
    assert found(processes, {"a": root(100)}, {300: "a", 302: "z"}) == {"a": {300, 301}}


def test_a_marked_process_in_a_terminal_does_not_bring_the_terminal():
    processes = [a_process(300, 1, 300), a_process(301, 300, 300), a_process(302, 300, 300)]
    assert found(processes, {"a": root(100)}, {301: "a"}) == {"a": {301}}


def test_a_forged_mark_does_not_move_a_process_into_another_run():
    processes = [a_process(100, WARDEN, 100), a_process(200, WARDEN, 200), a_process(201, 200, 200)]
    trees = found(processes, {"a": root(100), "b": root(200)}, {201: "a"})
    assert trees == {"a": {100}, "b": {200, 201}}


def test_an_orphan_without_any_mark_belongs_to_the_only_run_that_can_have_left_it():
    orphan = a_process(300, WARDEN, 300)
    assert found([orphan], {"a": root(100), "younger": root(400)})["a"] == {300}
    assert found([orphan], {"a": root(100), "adopted": root(99, own=False)})["a"] == {300}


def test_an_orphan_that_either_of_two_runs_may_have_left_waits_for_the_last():
    orphan = a_process(300, WARDEN, 300)
    assert found([orphan], {"a": root(100), "b": root(200)}) == {"a": set(), "b": set()}


def test_a_zombie_is_not_living_but_its_children_are():
    processes = [a_process(100, WARDEN, 100, zombie=True), a_process(101, 100, 101)]
    assert found(processes, {"a": root(100)}) == {"a": {101}}


def test_the_warden_is_nobody_s_though_it_carry_a_mark():
    assert found([a_process(WARDEN, 1, WARDEN)], {"a": root(100)}, {WARDEN: "a"}) == {"a": set()}
