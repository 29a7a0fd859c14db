"""Environments, built by uv of wheels that lie in a folder: once, whole, and running nothing."""

import asyncio
import hashlib
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest

from openbell.contracts.commands import LockEnvironment
from openbell.contracts.errors import EnvironmentRefused, ServiceUnavailable
from services.runner import environments as module
from services.runner import locking
from services.runner.environments import READY, BuildFailed, Environments
from services.runner.locking import Locking
from services.runner.pythons import Python, Pythons, base_interpreter
from services.runner.uv_process import UvFailed
from tests.fixtures.wheelhouse import flavours, of_uv, wheel

MINOR = f"{sys.version_info[0]}.{sys.version_info[1]}"


class Store:
    """The artifacts that there are, and who asked for them."""

    def __init__(self) -> None:
        self.bodies: dict[str, bytes] = {}
        self.asked: list[str] = []

    async def get(self, sha256: str) -> bytes:
        self.asked.append(sha256)
        if sha256 not in self.bodies:
            raise ServiceUnavailable("nobody has it")
        return self.bodies[sha256]


class Shop:
    """A wheelhouse, and a runner's folder of environments."""

    def __init__(self, folder: Path) -> None:
        self.wheels = flavours(folder / "wheels")
        self.folder = folder / "environments"
        self.store = Store()

    def environments(self) -> Environments:
        """As a new runner has them."""
        pythons = Pythons()
        own = Python((*sys.version_info[:2], sys.version_info[2]), Path(base_interpreter()))
        pythons._found = (own,)  # pyright: ignore[reportPrivateUsage]
        return Environments(self.folder, None, pythons, cast("Any", self.store))

    async def lock(self, *requirements: str) -> str:
        """Returns its hash; the artifact store has it."""
        found = self.environments()
        told = Locking(found._pythons, cast("Any", Idle()))  # pyright: ignore[reportPrivateUsage]
        answer = await told.answer(LockEnvironment(requirements=requirements))
        assert answer.lock is not None
        body = answer.lock.encode()
        sha256 = hashlib.sha256(body).hexdigest()
        self.store.bodies[sha256] = body
        return sha256

    def whole(self) -> list[Path]:
        return [file.parent for file in self.folder.glob(f"*/{READY}")]


class Idle:
    """Builds nothing ahead."""

    async def build_ahead(self, lock: str | None, python: str) -> None: ...


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    made = Shop(tmp_path.resolve())
    for name, value in of_uv(made.wheels).items():
        monkeypatch.setenv(name, value)
    return made


def counted(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Each environment that is made, as often as it is."""
    made: list[Path] = []
    make = module._make  # pyright: ignore[reportPrivateUsage]

    async def counting(folder: Path, lock: Path, base: Path) -> None:
        made.append(folder)
        await make(folder, lock, base)

    monkeypatch.setattr(module, "_make", counting)
    return made


def play(scene: Callable[[], Awaitable[None]]) -> None:
    async def scenes() -> None:
        await scene()

    asyncio.run(scenes())


def says(python: Path, code: str) -> str:
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_it_is_built_once_for_all_who_ask(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one runner, and of two that share a folder."""
    made = counted(monkeypatch)

    async def scene() -> None:
        sha256 = await shop.lock("flavour<2")
        one, two = shop.environments(), shop.environments()
        told: list[str] = []

        async def tell(detail: str) -> None:
            told.append(detail)

        asks = [one.interpreter(sha256, MINOR, tell) for _ in range(50)]
        found = await asyncio.gather(*asks, two.interpreter(sha256, MINOR))
        assert len(set(found)) == len(made) == 1
        assert says(found[0], "import flavour; print(flavour.VERSION)") == "1.0"
        assert set(told) == {f"building its environment, with Python {sys.version.split()[0]}"}
        assert shop.store.asked.count(sha256) <= 2

    play(scene)


def test_once_built_it_needs_nobody(shop: Shop) -> None:
    async def scene() -> None:
        sha256 = await shop.lock("flavour")
        first = await shop.environments().interpreter(sha256, MINOR)
        shop.store.bodies.clear()
        for file in shop.wheels.iterdir():
            file.unlink()
        assert await shop.environments().interpreter(sha256, MINOR) == first
        assert says(first, "import flavour; print(flavour.VERSION)") == "2.0"

    play(scene)


def test_its_bytecode_is_compiled_and_each_line_is_written_when_it_ends(shop: Shop) -> None:
    async def scene() -> None:
        python = await shop.environments().interpreter(await shop.lock("flavour"), MINOR)
        environment = python.parent.parent
        assert list(environment.rglob("flavour/__pycache__/__init__.*.pyc"))
        assert module.writes_by_lines(python)

    play(scene)


def test_a_build_that_was_cut_short_is_begun_anew(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    compile_ = module._compile  # pyright: ignore[reportPrivateUsage]

    async def cut_short(folder: Path, base: Path) -> None:
        (folder / "left behind").touch()
        raise KeyError("kill -9")

    async def scene() -> None:
        sha256 = await shop.lock("flavour")
        monkeypatch.setattr(module, "_compile", cut_short)
        with pytest.raises(KeyError):
            await shop.environments().interpreter(sha256, MINOR)
        assert shop.whole() == []
        monkeypatch.setattr(module, "_compile", compile_)
        python = await shop.environments().interpreter(sha256, MINOR)
        assert shop.whole() == [python.parent.parent]
        assert not (python.parent.parent / "left behind").exists()

    play(scene)


def test_who_leaves_takes_no_build_with_them(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    made = counted(monkeypatch)

    async def scene() -> None:
        sha256 = await shop.lock("flavour")
        found = shop.environments()
        leaving = asyncio.create_task(found.interpreter(sha256, MINOR))
        while not made:
            await asyncio.sleep(0.001)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        await found.interpreter(sha256, MINOR)
        assert len(made) == 1

    play(scene)


def test_a_wheel_that_is_another_by_now_is_refused(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene() -> None:
        sha256 = await shop.lock("flavour<2")
        monkeypatch.setenv("UV_CACHE_DIR", str(shop.folder.parent / "another-cache"))
        wheel(shop.wheels, "flavour", "1.0", {"flavour/__init__.py": "VERSION = 'evil'\n"})
        with pytest.raises(BuildFailed, match="Hash mismatch"):
            await shop.environments().interpreter(sha256, MINOR)
        assert shop.whole() == []

    play(scene)


def test_no_code_of_a_package_runs_while_it_is_built(shop: Shop) -> None:
    """A `.pth` is executed by every interpreter that comes up with its `site`."""
    mark = shop.folder.parent / "executed"
    line = f"import pathlib; pathlib.Path({str(mark)!r}).touch()\n"
    wheel(shop.wheels, "sly", "1.0", {"sly.pth": line, "sly.py": line})

    async def scene() -> None:
        python = await shop.environments().interpreter(await shop.lock("sly"), MINOR)
        assert not mark.exists()
        says(python, "pass")
        assert mark.exists(), "else this test shows nothing"

    play(scene)


@pytest.mark.parametrize("place", ["data/pyvenv.cfg", "data/bin/python", "scripts/python"])
def test_a_package_cannot_replace_the_interpreter(shop: Shop, place: str) -> None:
    wheel(shop.wheels, "sly", "1.0", {f"sly-1.0.data/{place}": "#!/bin/sh\n"})

    async def scene() -> None:
        with pytest.raises(BuildFailed, match=r"replaces pyvenv.cfg|reserved name `python`"):
            await shop.environments().interpreter(await shop.lock("sly"), MINOR)
        assert shop.whole() == []

    play(scene)


def test_a_python_that_is_gone_says_so(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing() -> tuple[Python, ...]:
        return ()

    monkeypatch.setattr("services.runner.pythons.find", nothing)

    async def scene() -> None:
        with pytest.raises(BuildFailed, match=r"no Python 3\.99 here"):
            await shop.environments().interpreter("5f" * 32, "3.99")

    play(scene)


def test_what_was_locked_is_built_ahead(shop: Shop) -> None:
    async def scene() -> None:
        found = shop.environments()
        locks = Locking(found._pythons, found)  # pyright: ignore[reportPrivateUsage]
        answer = await locks.answer(LockEnvironment(requirements=("flavour",), python=MINOR))
        assert answer.packages == 1
        async with asyncio.timeout(20):
            while not shop.whole():
                await asyncio.sleep(0.01)
        assert shop.store.asked == []
        await found.close()

    play(scene)


def test_the_default_packages_for_a_chosen_python_are_built_ahead_too(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []

    async def make(folder: Path, lock: Path, base: Path) -> None:
        made.append(lock)

    async def scene() -> None:
        monkeypatch.setattr(module, "_make", make)
        found = shop.environments()
        locks = Locking(found._pythons, found)  # pyright: ignore[reportPrivateUsage]
        answer = await locks.answer(LockEnvironment(python=MINOR))
        assert (answer.lock, answer.python) == (None, MINOR)
        async with asyncio.timeout(5):
            while not made:
                await asyncio.sleep(0.001)
        assert made == [module.DEFAULT_LOCK]
        await found.close()

    play(scene)


def test_a_full_disk_refuses_no_lock(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: Path, body: bytes) -> None:
        raise OSError(28, "No space left on device")

    async def scene() -> None:
        found = shop.environments()
        monkeypatch.setattr(module, "_write", full)
        locks = Locking(found._pythons, found)  # pyright: ignore[reportPrivateUsage]
        assert (await locks.answer(LockEnvironment(requirements=("flavour",)))).packages == 1

    play(scene)


def test_what_is_yanked_is_refused_and_an_index_that_is_away_is_no_fault_of_yours(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def yanked(*_: str, **__: object) -> tuple[bytes, str]:
        return b"attrs==21.1.0\n", 'warning: `attrs==21.1.0` is yanked (reason: "broken")'

    async def away(*_: str, **__: object) -> tuple[bytes, str]:
        raise UvFailed("error: Failed to fetch", 2)

    async def scene() -> None:
        monkeypatch.setattr(locking, "uv_telling", yanked)
        with pytest.raises(EnvironmentRefused, match=r"`attrs==21\.1\.0` is yanked .*broken"):
            await shop.lock("attrs==21.1.0")
        monkeypatch.setattr(locking, "uv_telling", away)
        with pytest.raises(ServiceUnavailable, match="Failed to fetch"):
            await shop.lock("attrs")

    play(scene)


def test_resolving_takes_no_longer_than_its_asker_waits(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def endless(*_: str, **__: object) -> tuple[bytes, str]:
        await asyncio.Event().wait()
        raise AssertionError

    async def scene() -> None:
        monkeypatch.setattr(locking, "uv_telling", endless)
        monkeypatch.setattr(locking, "LOCK_S", 0.05)
        with pytest.raises(ServiceUnavailable, match="within"):
            await shop.lock("flavour")

    play(scene)
