"""Strategies that are forked from an interpreter which has imported what they need."""

import asyncio
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from services.runner.backends.warden_client import BOOT, ROOT, WardenUnavailable
from services.runner.warden.protocol import Start, Upgrade
from tests.fixtures.default_environment import base_interpreter
from tests.fixtures.processes import name_of
from tests.fixtures.unchanged import PROGRAMS
from tests.fixtures.wardens import KILL, House, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks are Linux's here")


def order(
    house: House,
    script: str,
    run: str = "a",
    epoch: int = 1,
    python: Path | None = None,
    at: float | None = None,
    env: Mapping[str, str] | None = None,
    **facts: Any,
) -> Start:
    """Of a script, to be forked when it is due in a second."""
    python = python or base_interpreter()
    own = house.folder.parent / "strategies" / run.partition("-")[0]
    own.mkdir(parents=True, exist_ok=True)
    (own / "script.py").write_text(script)
    usual: dict[str, Any] = {
        "cwd": str(own),
        "preload": (),
        "readable": (str(python.parents[1]), sys.prefix, sys.base_prefix),
    }
    at = time.time() + 1 if at is None else at
    env = {"LANG": "C.UTF-8"} if env is None else env
    return house.order((str(python), "script.py"), run, epoch, at, env=env, **{**usual, **facts})


def test_unchanged_programs_say_and_do_the_same(house: House):
    """Side by side, as they are executed and as they are forked."""
    names = dict(enumerate(PROGRAMS))

    left: dict[str, tuple[str | int | None, ...]] = {}

    async def scene() -> None:
        async with house.client() as client:
            for epoch, preload in enumerate((None, ()), 1):
                at = time.time() + 2
                for number, name in names.items():
                    run = f"s{number}-{epoch}"
                    await client.start(
                        order(house, PROGRAMS[name], run, epoch, preload=preload, at=at)
                    )
                exits = await house.exits(*(f"s{n}-{epoch}" for n in names))
                for run, end in ((f"s{n}-{epoch}", exits[f"s{n}-{epoch}"]) for n in names):
                    left[run] = (left_by(house, run), end.reason, end.exit_code, end.signal)

    asyncio.run(scene())
    different: list[str] = []
    for number, name in names.items():
        executed, (said, *end) = left[f"s{number}-1"], left[f"s{number}-2"]
        forked = (str(said).replace(f"s{number}-2", f"s{number}-1"), *end)
        if executed != forked:
            different.append(f"--- {name}\n{executed}\n{forked}")
    assert not different, "\n".join(different)


def left_by(house: House, run: str) -> str:
    """Its log, and the files that it has written, which are taken away."""
    own = house.folder.parent / "strategies" / run.partition("-")[0]
    files = [path for path in sorted(own.iterdir()) if path.is_file() and path.suffix != ".py"]
    written = {path: path.read_text() for path in files}
    for path in written:
        path.unlink()
    said = {path.name: text for path, text in written.items()}
    return f"{house.log(run).read_text()}{said or ''}"


HELD = """\
import threading, time
class Holding:
    def __del__(self):
        pass
def hold(held):
    time.sleep(99)
threading.Thread(target=hold, args=(Holding(),), daemon=True).start()
"""


@pytest.mark.parametrize(
    ("script", "taken_apart"),
    [
        ("import shared\n", False),
        ("import shared, sys\nf = open('x', 'w')\ndef g(): f.write('x')\nsys.exit(3)\n", False),
        ("import shared\nraise KeyboardInterrupt\n", False),
        (f"import shared\n{HELD}", True),
    ],
)
def test_what_is_shared_is_not_taken_apart_unless_something_is_left(
    house: House, script: str, taken_apart: bool
):
    library = house.folder.parent / "strategies"
    library.mkdir(parents=True)
    (library / "shared.py").write_text(
        "import os\n"
        "class Shared:\n"
        "    def __del__(self, write=os.write):\n        write(1, b'taken apart')\n"
        "shared = Shared()\n"
    )
    env = {"LANG": "C.UTF-8", "PYTHONPATH": str(library)}

    async def scene() -> None:
        async with house.client() as client:
            at = time.time() + 1.5
            await client.start(order(house, script, env=env, preload=("shared",), at=at))
            await house.exit()
        assert ("taken apart" in house.log("a").read_text()) is taken_apart

    asyncio.run(scene())


WAITS_AND_ENDS = """\
import os, sys, time
print("up", flush=True)
while not os.path.exists("go"):
    time.sleep(0.02)
print("last line")
sys.exit(int(os.path.basename(os.getcwd())[1:]))
"""
FORKED = "print('forked' if 'socket' in __import__('sys').modules else 'executed')\n"
"""A zygote has imported it for itself."""


def test_kill_9_of_a_zygote_loses_no_exit_code_and_no_line(house: House):
    """Twenty run, ten of them end while it is being killed."""

    async def scene() -> None:
        async with house.client() as client:
            at = time.time() + 1.5
            for n in range(20):
                await client.start(order(house, WAITS_AND_ENDS, f"s{n}", at=at))
            await until(lambda: all("up" in said(house, f"s{n}") for n in range(20)))
            for n in range(20):
                (house.folder.parent / "strategies" / f"s{n}" / "go").touch()
            for zygote in zygotes(client.pid):
                zygote.kill()
            exits = await house.exits(*(f"s{n}" for n in range(20)))
            assert {run: entry.exit_code for run, entry in exits.items()} == {
                f"s{n}": n for n in range(20)
            }
            assert {said(house, f"s{n}") for n in range(20)} == {"up\nlast line\n"}
            await client.start(order(house, FORKED, "next"))
            assert (await house.exit("next")).exit_code == 0
            assert said(house, "next") == "forked\n"

    asyncio.run(scene())


def test_what_a_dead_zygote_was_making_is_made_without_it(house: House):
    async def scene() -> None:
        async with house.client() as client:
            await client.start(order(house, FORKED, "first"))
            await house.exit("first")
            (zygote,) = zygotes(client.pid)
            zygote.suspend()
            await client.start(order(house, FORKED, "second"))
            zygote.kill()
            assert (await house.exit("second")).exit_code == 0
            assert said(house, "second") == "executed\n"

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("preload", "why"),
    [
        (("this",), "prints when it is imported"),
        (("no_such_module",), "No module named 'no_such_module'"),
        (("threaded",), "starts threads when it is imported"),
        (("ends",), "SystemExit"),
    ],
)
def test_what_cannot_be_shared_is_told_and_gets_an_interpreter_of_its_own(
    house: House, preload: tuple[str, ...], why: str
):
    library = house.folder.parent / "strategies"
    library.mkdir(parents=True)
    (library / "threaded.py").write_text(
        "import threading, time\n"
        "threading.Thread(target=time.sleep, args=(99,), daemon=True).start()\n"
    )
    (library / "ends.py").write_text("raise SystemExit(3)\n")
    env = {"LANG": "C.UTF-8", "PYTHONPATH": str(library)}

    async def scene() -> None:
        async with house.client() as client:
            await client.start(order(house, FORKED, preload=preload, env=env))
            assert (await house.exit()).exit_code == 0
            assert said(house, "a") == "executed\n"
            parked = next(entry for entry in house.journal() if entry["kind"] == "parked")
            assert why in parked["detail"]

    asyncio.run(scene())


def test_a_script_that_cannot_be_compiled_is_told_before_its_instant(house: House):
    async def scene() -> None:
        async with house.client() as client:
            await client.start(order(house, "print('x'\n", at=time.time() + 60))
            await until(lambda: "parked" in house.told())
            parked = next(entry for entry in house.journal() if entry["kind"] == "parked")
            assert parked["detail"] == "SyntaxError: '(' was never closed (script.py, line 1)"
            await client.stop("a", "stopped_by_user", KILL)
            assert (await house.exit()).reason == "stopped_by_user"

    asyncio.run(scene())


def test_what_is_forked_and_held_goes_on_through_an_upgrade_of_the_warden(house: House):
    async def scene() -> None:
        async with house.client() as client:
            at = time.time() + 3
            await client.start(order(house, FORKED, at=at))
            await until(lambda: "parked" in house.told())
            with suppress(WardenUnavailable):
                await client._ask(  # pyright: ignore[reportPrivateUsage]
                    Upgrade(sys.executable, BOOT.format(root=str(ROOT)))
                )
                await asyncio.sleep(0.5)
        assert (await house.exit()).exit_code == 0
        assert said(house, "a") == "forked\n"
        assert "becomes another release" in (house.folder / "warden.log").read_text()

    asyncio.run(scene())


def test_a_start_that_is_still_waiting_for_its_zygote_is_taken_back(house: House):
    async def scene() -> None:
        async with house.client() as client:
            await client.start(order(house, FORKED, preload=("asyncio",), at=time.time() + 60))
            await client.stop("a", "stopped_by_user", KILL)
            assert (await house.exit()).reason == "stopped_by_user"
            assert not house.log("a").exists()

    asyncio.run(scene())


def said(house: House, run: str) -> str:
    return house.log(run).read_text() if house.log(run).exists() else ""


def zygotes(warden: int) -> list[psutil.Process]:
    children = psutil.Process(warden).children()
    return [child for child in children if name_of(child) == "openbell-zygote"]
