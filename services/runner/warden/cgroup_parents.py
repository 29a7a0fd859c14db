"""Makes the group below which each run gets one, as far as this host permits."""

from __future__ import annotations

import os
import posixpath
import sys
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from errno import EACCES, EBUSY
from pathlib import Path

from . import cgroup1, cgroup2, cgroup_files, cgroup_mounts
from .cgroup import Group
from .host import Bounds

LIMITING = {"memory": "memory", "pids": "processes", "cpu": "cpu"}
"""What a controller limits."""
PROBE = "_probe"
"""No run's name."""
DIVIDE = "it needs a group of its own (systemd: Delegate=yes with DelegateSubgroup=openbell)"


@dataclass(slots=True)
class Parents:
    version: int = 0
    folders: dict[str, str] = field(default_factory=dict[str, str])
    """By controller: one group on v2, under several names."""
    why: list[str] = field(default_factory=list[str])
    """What is missing, and why; for people."""
    undo: ExitStack = field(default_factory=ExitStack)
    """Takes back what was made, and done to groups that are not ours."""

    @property
    def limiting(self) -> int:
        return sum(name in self.folders for name in LIMITING)


def find(name: str) -> Parents:
    """Never raises."""
    try:
        mounted = cgroup_mounts.mounts(Path("/proc/self/mountinfo").read_text())
        member = cgroup_mounts.memberships(Path("/proc/self/cgroup").read_text())
    except (OSError, ValueError) as error:
        return Parents(why=[f"this host tells of no control groups: {error}"])
    own = cgroup_mounts.own_folders(mounted, member, cgroup1.CONTROLLERS)
    if own.keys() & LIMITING.keys():
        return _below_each(own, name)
    places = cgroup_mounts.candidates(mounted, member, root=_is_root())
    return _below_one_of(places, name)


def _below_each(own: Mapping[str, str], name: str) -> Parents:
    """v1: a group of ours below the own one of each controller."""
    parents = Parents(version=1)
    for controller in cgroup1.CONTROLLERS:
        try:
            folder = _made(own[controller], name)
        except KeyError:
            parents.why.append(f"{controller}: no control group of it is seen here")
        except OSError as error:
            parents.why.append(f"{controller}: {_told(error)}")
        else:
            parents.folders[controller] = folder
            parents.undo.callback(_remove, [folder])
    if not parents.folders:
        return Parents(why=parents.why)
    with suppress(KeyError, OSError):  # always so since 5.11
        cgroup_files.write(f"{parents.folders['memory']}/memory.use_hierarchy", "1")
    try:
        _prove(parents, cgroup1.CONTROLLERS)
    except OSError as error:
        parents.undo.close()
        return Parents(why=[*parents.why, _told(error)])
    return parents


def _below_one_of(places: Iterable[str], name: str) -> Parents:
    """v2: below the first place where all can be limited; else where most can."""
    best, place_of_best = Parents(), ""
    why: list[str] = []
    for place in places:
        try:
            parents = _below(place, name)
        except OSError as error:
            why.append(_told(error))
            continue
        if parents.limiting == len(LIMITING):
            return parents
        close(parents)
        if not place_of_best or parents.limiting > best.limiting:
            best, place_of_best = parents, place
    if place_of_best:
        try:
            return _below(place_of_best, name)
        except OSError as error:  # it went while we looked elsewhere
            why.append(_told(error))
    return Parents(why=why[:1] or ["no control groups are mounted here"])


def _below(place: str, name: str) -> Parents:
    """Raises OSError, and then all is as it was."""
    if not os.access(place, os.W_OK):
        raise PermissionError(EACCES, f"no group may be made there: {DIVIDE}", place)
    with ExitStack() as undo:
        wanted = _open_up(place, name, undo)
        folder = _made(place, name)
        undo.callback(_remove, [folder])
        _pass_on(folder, wanted)
        held = [each for each in wanted if each in _passed_on(folder)]
        why = [f"{each}: {place} cannot pass it on" for each in LIMITING if each not in held]
        parents = Parents(2, dict.fromkeys((cgroup2.SELF, *held), folder), why)
        _prove(parents, cgroup2.CONTROLLERS)
        parents.undo = undo.pop_all()
    return parents


def _open_up(place: str, name: str, undo: ExitStack) -> list[str]:
    """Lets groups below this place have controllers; tells which."""
    # The root of all groups may hold processes, too, and has no type; the one that a container
    # takes for it has one, and may not.
    if cgroup_files.lacks(place, ["cgroup.type"]):
        # What else is enabled there concerns the whole host, and stays when we are gone.
        wanted = [each for each in cgroup2.CONTROLLERS if each in {*LIMITING, *_passed_on(place)}]
        _pass_on(place, wanted)
        return wanted
    _step_aside(place, name, undo)
    before = _passed_on(place)
    undo.callback(_keep_back, place, before)
    _pass_on(place, cgroup2.CONTROLLERS)
    return list(cgroup2.CONTROLLERS)


def _step_aside(place: str, name: str, undo: ExitStack) -> None:
    """A group with processes passes no controllers on: out we go, if nobody else is in it."""
    members = set(cgroup_files.read(f"{place}/cgroup.procs").split())
    others = members - {str(os.getpid())}
    if others:
        named = ", ".join(sorted(others)[:3])
        raise OSError(EBUSY, f"has other processes ({named}): {DIVIDE}", f"{place}/cgroup.procs")
    if members:
        leaf = _made(place, f"{name}.warden")
        undo.callback(_remove, [leaf])
        undo.callback(_enter, place)
        cgroup_files.write(f"{leaf}/cgroup.procs", "0")


def _pass_on(folder: str, controllers: Iterable[str]) -> None:
    """As many as can be: each by itself, since the kernel takes all of a line or nothing."""
    available = _words(f"{folder}/cgroup.controllers")
    for controller in controllers:
        if controller in available and controller not in _passed_on(folder):
            with suppress(OSError):
                cgroup_files.write(f"{folder}/cgroup.subtree_control", f"+{controller}")


def _keep_back(folder: str, before: Iterable[str]) -> None:
    for controller in _passed_on(folder).difference(before):
        with suppress(OSError):
            cgroup_files.write(f"{folder}/cgroup.subtree_control", f"-{controller}")


def _passed_on(folder: str) -> set[str]:
    return _words(f"{folder}/cgroup.subtree_control")


def _words(path: str) -> set[str]:
    return set(cgroup_files.read(path).split())


def _prove(parents: Parents, needed: Mapping[str, Iterable[str]]) -> None:
    """By a group below them that a process enters. Drops controllers whose files are not there.

    Raises OSError when no process can.
    """
    group = Group(parents.version, {c: f"{f}/{PROBE}" for c, f in parents.folders.items()})
    group.remove()  # of a warden that was killed just then
    group.create(Bounds())
    try:
        for controller, folder in group.folders.items():
            if lacking := cgroup_files.lacks(folder, needed.get(controller, ())):
                parents.why.append(f"{controller}: this kernel has no {lacking[0]}")
                del parents.folders[controller]
        _let_enter(group)
    finally:
        group.remove()


def _let_enter(group: Group) -> None:
    if sys.platform == "win32":
        return
    child = os.fork()
    if child == 0:
        status = 255
        try:
            group.enter()
            status = 0
        except OSError as error:
            status = error.errno or status
        finally:
            os._exit(status)
    _, ended = os.waitpid(child, 0)
    if status := os.waitstatus_to_exitcode(ended):
        where = cgroup_files.distinct(group.folders)[0]
        raise OSError(status, f"no process can enter: {os.strerror(abs(status))}", where)


def _made(place: str, name: str) -> str:
    folder = posixpath.join(place, f"openbell-{name}")
    with suppress(FileExistsError):
        os.mkdir(folder)  # noqa: PTH102
    return folder


def _remove(folders: Iterable[str]) -> None:
    """Those that are empty, of groups also."""
    for folder in folders:
        with suppress(OSError):
            os.rmdir(folder)  # noqa: PTH106


def _enter(folder: str) -> None:
    with suppress(OSError):
        cgroup_files.write(f"{folder}/cgroup.procs", "0")


def _is_root() -> bool:
    if sys.platform == "win32":
        return False
    return os.geteuid() == 0


def _told(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}"


def close(parents: Parents) -> None:
    """Removes them when no run's group is left, and undoes what was done for them."""
    _remove(cgroup_files.distinct(parents.folders))
    parents.undo.close()
