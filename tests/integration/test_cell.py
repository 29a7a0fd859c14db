"""What a strategy sees from inside its cell, and what works there as it does by hand."""

from __future__ import annotations

import json
import os
import re
import resource
import socket
import subprocess
import sys
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from services.runner.backends.warden_client import WardenClient
from tests.fixtures.wardens import WAITS, House, play

if sys.platform != "linux":
    pytest.skip("reads /proc", allow_module_level=True)
assert sys.platform == "linux"


async def whole(client: WardenClient) -> None:
    if not client.host["namespaces"]:
        pytest.skip(client.host["why_no_namespaces"])


def told_by(house: House, source: str, *arguments: str, **facts: Any) -> Any:
    """What the script prints as JSON, run as `python script.py`."""
    house.work.mkdir(parents=True, exist_ok=True)
    (house.work / "script.py").write_text(source)

    async def scene() -> None:
        async with house.client() as client:
            await whole(client)
            order = house.order([sys.executable, "script.py", *arguments], **facts)
            await client.start(order)
            entry = await house.exit()
            assert entry.exit_code == 0, house.log("a").read_text()

    play(scene())
    return json.loads(house.log("a").read_text())


STATUS = """
import json, os
status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
processes = {}
for pid in filter(str.isdigit, os.listdir("/proc")):
    processes[pid] = open(f"/proc/{pid}/comm").read().strip()
print(json.dumps({
    "uid": os.getresuid(), "gid": os.getresgid(), "groups": os.getgroups(),
    "status": {name: text.strip() for name, text in status.items()},
    "adjusted": int(open("/proc/self/oom_score_adj").read()),
    "processes": processes,
    "descriptors": {n: os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")
                    if os.path.lexists(f"/proc/self/fd/{n}")},
    "umask": os.umask(0),
    "session": os.getsid(0) == os.getpid(),
    "cwd": os.getcwd(),
}))
"""


def test_it_is_nobody_else_s_and_has_no_rights(house: House):
    told = told_by(house, STATUS)
    status = told["status"]
    if os.getuid() == 0:
        (uid,) = set(told["uid"] + told["gid"])
        assert uid >= 40_000
        assert told["groups"] == []
    for capabilities in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(status[capabilities], 16) == 0
    assert status["NoNewPrivs"] == "1"
    assert told["adjusted"] == 500
    assert int(status["SigBlk"], 16) == 0
    python_ignores = 1 << 12 | 1 << 24  # SIGPIPE, SIGXFSZ
    of_the_c_library = 1 << 31 | 1 << 32  # no program can name them, or has them otherwise
    assert int(status["SigIgn"], 16) & ~of_the_c_library == python_ignores
    assert told["umask"] == 0o022
    assert told["session"]
    assert told["cwd"] == str(house.work)


def test_it_sees_no_processes_and_no_descriptors_but_its_own(house: House):
    told = told_by(house, STATUS)
    assert sorted(told["processes"].values()) == ["openbell-keeper", "python"]
    assert told["processes"]["1"] == "openbell-keeper"
    descriptors = told["descriptors"]
    assert set(descriptors) == {"0", "1", "2"}
    assert descriptors["0"] == "/dev/null"
    assert descriptors["1"].endswith("/a.log")


LOOKS = """
import json, os, sys
def refused(action, *arguments):
    try:
        action(*arguments)
    except OSError as error:
        return type(error).__name__
def kept(path):
    with open(path, "w"):
        pass
    os.unlink(path)
print(json.dumps({
    "seen": {path: refused(os.stat, path) for path in sys.argv[1:]},
    "written": {path: refused(kept, f"{path}/x") for path in
                [".", "/tmp", "/dev/shm", "/var/tmp", "/", "/etc", "/usr", "/dev", "/proc", "/sys",
                 "/sys/devices/system", sys.prefix, sys.base_prefix, os.path.expanduser("~root")]},
    "root": sorted(os.listdir("/")),
    "keeper": refused(open, "/proc/1/mem", "rb"),
    "signalled": refused(os.kill, 1, 15),
    "devices": sorted(os.listdir("/dev")),
}))
"""


def test_it_sees_its_own_folder_and_writes_nowhere_else(house: House, tmp_path: Path):
    hidden = tmp_path / "hidden"
    hidden.write_text("x")
    others = house.folder / "others"
    others.mkdir(parents=True)
    unseen = [hidden, others, house.folder / "journal.jsonl", house.folder / "log", "/proc/2000000"]
    told = told_by(house, LOOKS, *map(str, unseen))
    assert set(told["seen"].values()) == {"FileNotFoundError"}
    writable = {path for path, why in told["written"].items() if why is None}
    assert writable == {".", "/tmp", "/dev/shm"}
    assert not {"home", "root", "var", "run", "old", "boot"} & {
        name for name in told["root"] if not sys.prefix.startswith(f"/{name}/")
        and not sys.base_prefix.startswith(f"/{name}/")
    }  # fmt: skip
    assert told["keeper"] in {"PermissionError", "FileNotFoundError"}
    assert told["devices"] == sorted(
        ["fd", "full", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout",
         "urandom", "zero"]
    )  # fmt: skip
    if os.getuid() == 0:
        assert told["signalled"] == "PermissionError"


def test_one_owner_s_strategies_share_a_user_and_two_owners_do_not(house: House):
    async def scene() -> None:
        async with house.client() as client:
            if not client.host["own_user"]:
                pytest.skip("needs root")
            for run, owner in {"a": "ann", "b": "bob", "c": "ann"}.items():
                folder = house.folder / run
                folder.mkdir(mode=0o700)
                (folder / "old").write_text("x")
                (folder / "link").symlink_to(house.folder / "journal.jsonl")
                await house.run(client, "id -u; id -u >new", run, owner=owner, cwd=str(folder))
            await house.exits("a", "b", "c")
            os.kill(client.pid, 9)
        async with house.client() as client:
            await house.run(client, "id -u", "d", owner="bob")
            await house.exits("d")
        uids = {run: int(house.log(run).read_text()) for run in "abcd"}
        assert uids["a"] == uids["c"] != uids["b"] == uids["d"]
        for run in "abc":
            for path in (house.folder / run, *(house.folder / run).iterdir()):
                assert path.lstat().st_uid == uids[run]
        assert (house.folder / "journal.jsonl").stat().st_uid == 0

    play(scene())


def test_two_cells_have_nothing_in_common(house: House):
    """Not even of one owner: neither /tmp nor shared memory, nor each other's processes."""

    async def scene() -> None:
        async with house.client() as client:
            await whole(client)
            marks = "echo $$ >/tmp/mark; echo >/dev/shm/mark; echo up"
            await house.run(client, f"{marks}; {WAITS}", "a")
            await house.said("up", "a")
            looks = "ls /tmp /dev/shm; ls -d /proc/[0-9]* | wc -l; kill -9 -1; echo on"
            await house.run(client, looks, "b")
            await house.exits("b")
            assert [run.run for run in await client.list()] == ["a"]
            house.go.touch()
            assert (await house.exit("a")).exit_code == 0
        said = house.log("b").read_text().split()
        assert "mark" not in said
        assert said[-1] == "on"

    play(scene())


WORKS = """
import ctypes, json, multiprocessing, os, pty, socket, ssl, subprocess, sys, tempfile, threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import shared_memory

def doubled(n):
    return 2 * n

if __name__ == "__main__":
    told = {"cpus": [os.cpu_count(), len(os.sched_getaffinity(0))]}
    for method in ("fork", "spawn", "forkserver"):
        with ProcessPoolExecutor(1, multiprocessing.get_context(method)) as pool:
            told[method] = pool.submit(doubled, 21).result()
    with ThreadPoolExecutor(4) as pool:
        told["threads"] = list(pool.map(doubled, range(3)))
    told["subprocess"] = subprocess.run(
        [sys.executable, "-c", "print(6 * 7)"], capture_output=True, text=True).stdout
    told["shell"] = subprocess.check_output("echo $((6 * 7))", shell=True, text=True)
    memory = shared_memory.SharedMemory(create=True, size=100)
    memory.close()
    memory.unlink()
    multiprocessing.Lock()
    with socket.create_connection(("127.0.0.1", int(sys.argv[1])), 5) as connection:
        told["heard"] = connection.recv(10).decode()
    server = socket.create_server(("127.0.0.1", 0))
    told["bound"] = server.getsockname()[1] > 0
    told["localhost"] = socket.getaddrinfo("localhost", 80)[0][4][0] in ("127.0.0.1", "::1")
    told["resolver"] = os.path.exists("/etc/resolv.conf"), os.path.exists("/etc/nsswitch.conf")
    paths = ssl.get_default_verify_paths()
    told["certificates"] = [path and os.stat(path).st_mode for path in (paths.cafile, paths.capath)]
    with tempfile.TemporaryDirectory() as folder:
        open(os.path.join(folder, "x"), "w").close()
        told["temporary"] = folder
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"x")
    master, slave = pty.openpty()
    os.write(slave, b"x")
    told["pty"] = os.read(master, 1).decode()
    told["random"] = len(os.urandom(8)), len(open("/dev/urandom", "rb").read(8))
    told["null"] = open("/dev/null").read()
    open("/dev/stderr", "w").close()
    libc = ctypes.CDLL(None)
    told["libc"] = libc.getpid() == os.getpid()
    try:
        import numpy
        told["numpy"] = int(numpy.arange(4).sum())
    except ImportError:
        told["numpy"] = None
    print(json.dumps(told))
"""


@pytest.fixture
def port() -> Generator[int]:
    """Where somebody says hello to whoever comes."""
    server = socket.create_server(("127.0.0.1", 0))

    def greet() -> None:
        connection, _ = server.accept()
        with connection:
            connection.sendall(b"hello")

    greeter = threading.Thread(target=greet, daemon=True)
    greeter.start()
    yield server.getsockname()[1]
    server.close()


def test_whatever_a_script_does_by_hand_it_does_here(house: House, port: int):
    told = told_by(house, WORKS, str(port))
    assert told["cpus"] == [os.cpu_count(), len(os.sched_getaffinity(0))]
    assert [told[method] for method in ("fork", "spawn", "forkserver")] == [42, 42, 42]
    assert told["threads"] == [0, 2, 4]
    assert told["subprocess"] == told["shell"] == "42\n"
    assert told["heard"] == "hello"
    assert told["bound"]
    assert told["localhost"]
    assert told["resolver"] == [Path(f"/etc/{name}").exists() for name in
                                ("resolv.conf", "nsswitch.conf")]  # fmt: skip
    assert told["certificates"] == certificates()
    assert told["temporary"].startswith("/tmp/")
    assert (told["pty"], told["random"], told["null"], told["libc"]) == ("x", [8, 8], "", True)
    numpy = list(Path(sys.prefix).glob("lib/python*/site-packages/numpy"))
    assert told["numpy"] == (6 if numpy else None)


def certificates() -> list[int | None]:
    """As a script finds them by hand, with as few variables."""
    ask = """if True:
        import json, os, ssl
        paths = ssl.get_default_verify_paths()
        print(json.dumps([path and os.stat(path).st_mode for path in (paths.cafile, paths.capath)]))
    """
    return json.loads(subprocess.check_output([sys.executable, "-I", "-c", ask], env={}))


def test_a_traceback_and_its_arguments_are_as_by_hand(house: House):
    house.work.mkdir(parents=True)
    source = "import sys\nprint(sys.argv, __file__, sys.stdin.read())\ndef f():\n    1 / 0\nf()\n"
    (house.work / "my script.py").write_text(source)

    async def scene() -> None:
        async with house.client() as client:
            argv = [sys.executable, "my script.py", "one", "", "zwölf"]
            await client.start(house.order(argv))
            assert (await house.exit()).exit_code == 1

    play(scene())
    said = house.log("a").read_text()
    assert said.startswith("['my script.py', 'one', '', 'zwölf'] ")
    traceback = said[said.index("Traceback") :]
    assert re.sub(r"[~^ ]+\n", "", traceback).startswith(
        "Traceback (most recent call last):\n"
        f'  File "{house.work}/my script.py", line 5, in <module>\n    f()\n'
    )
    assert "warden" not in traceback.replace(str(house.work), "")
    assert traceback.endswith("ZeroDivisionError: division by zero\n")


def test_it_is_held_to_its_open_files_and_leaves_no_core(house: House):
    source = """
import json
from resource import RLIMIT_CORE, RLIMIT_NOFILE, getrlimit
print(json.dumps([getrlimit(RLIMIT_NOFILE), getrlimit(RLIMIT_CORE)]))
"""
    assert told_by(house, source, open_files=100) == [[100, 100], [0, 0]]
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[1] > 100
