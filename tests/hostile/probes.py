"""A strategy that tries what it must not be able to do, and prints what came of each, as JSON.

Each probe has a process of its own. `done` is a success of the attacker's, with what it got;
else it is told what kept it out: the name of an errno, or words. PLACES names what an attacker
might have learned of the host: Openbell's home, pids, ports, other strategies' folders; `only`,
how the names begin of those that are to be made.
"""

import ctypes
import errno
import json
import os
import platform
import resource
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

assert sys.platform == "linux"

if os.getuid() == 0 or os.getppid() != 1:
    sys.exit("this is no cell: here it might do harm")

PLACES: dict[str, Any] = json.loads(os.environ["PLACES"])
HOME = Path(PLACES["home"])
SECONDS = 5
KEEPER = 1

CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = (
    *(0x20000, 0x2000000, 0x10000000),
    *(0x20000000, 0x40000000),
)
MS_BIND, MS_REMOUNT, MS_REC = 4096, 32, 16384
PTRACE_ATTACH = 16
READV = {"x86_64": 310, "aarch64": 270}

libc = ctypes.CDLL(None, use_errno=True)
PROBES: dict[str, Callable[[], object]] = {}
pipes_of_ours: set[int] = set()


class KeptOut(Exception):
    """By something that is no error of the kernel's."""


def probe(tried: Callable[[], object]) -> Callable[[], object]:
    PROBES[tried.__name__] = tried
    return tried


def checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return result


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def processes(proc: Path) -> set[int]:
    return {int(name) for name in names(proc) if name.isdigit()}


def first_byte(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(1)


def mount(source: str, target: str, kind: str, flags: int = 0, options: str = "") -> None:
    words = (source.encode(), target.encode(), kind.encode())
    checked(libc.mount(*words, flags, options.encode() or None))


# ---- other processes


@probe
def see_others() -> object:
    mine = {os.getpid(), os.getppid(), KEEPER}
    others = processes(Path("/proc")) - mine
    if others:
        return sorted(others)
    raise KeptOut("alone")


def of_keeper(what: str) -> Callable[[], object]:
    def tried() -> object:
        path = Path(f"/proc/{KEEPER}/{what}")
        if what in {"cwd", "root", "exe"}:
            return path.readlink()
        return names(path) if what == "fd" else first_byte(path)

    return tried


for what in ("environ", "mem", "maps", "fd", "cwd", "root", "exe"):
    PROBES[f"keeper_{what}"] = of_keeper(what)
for whose, pid in PLACES["pids"].items():
    PROBES[f"environ_of_{whose}"] = lambda pid=pid: Path(f"/proc/{pid}/environ").read_bytes()
    PROBES[f"signal_{whose}"] = lambda pid=pid: os.kill(pid, 0)


@probe
def signal_keeper() -> object:
    """As long as we can tell what came of it, it lives: with it the kernel would end us."""
    for number in (signal.SIGSTOP, signal.SIGKILL):
        os.kill(KEEPER, number)
    raise KeptOut("ignored")


@probe
def ptrace_keeper() -> object:
    return checked(libc.ptrace(PTRACE_ATTACH, KEEPER, None, None))


@probe
def ptrace_warden() -> object:
    return checked(libc.ptrace(PTRACE_ATTACH, PLACES["pids"]["warden"], None, None))


@probe
def read_memory_of_keeper() -> object:
    class Vector(ctypes.Structure):
        _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))

    held = ctypes.create_string_buffer(8)
    ours = Vector(ctypes.addressof(held), 8)
    theirs = Vector(0x400000, 8)
    one, none = ctypes.c_ulong(1), ctypes.c_ulong(0)
    vectors = (ctypes.byref(ours), one, ctypes.byref(theirs), one, none)
    return checked(libc.syscall(READV[platform.machine()], KEEPER, *vectors))


@probe
def hold_a_descriptor_of_the_wardens() -> object:
    held = {int(name) for name in names(Path("/proc/self/fd"))} - {0, 1, 2} - pipes_of_ours
    found = {fd: link for fd in held if (link := Path(f"/proc/self/fd/{fd}")).is_symlink()}
    if found:
        return {fd: link.readlink() for fd, link in found.items()}
    raise KeptOut("none")


# ---- other files


for whose, path in PLACES["files"].items():
    PROBES[f"read {whose}"] = lambda path=Path(path): (
        names(path) if path.is_dir() else first_byte(path)
    )


@probe
def list_other_strategies() -> object:
    others = names(HOME / "strategies") - {os.environ["STRATEGY_ID"]}
    if others:
        return sorted(others)
    raise KeptOut("alone")


@probe
def list_home() -> object:
    others = names(HOME) - {"strategies"}
    if others:
        return sorted(others)
    raise KeptOut("empty")


def writing(path: str) -> Callable[[], object]:
    def tried() -> object:
        if Path(path).is_dir():
            return (Path(path) / "hostile").write_text("x")
        return os.close(os.open(path, os.O_WRONLY))

    return tried


for path in (
    *("/", "/usr/lib", "/etc", "/etc/passwd", "/dev", "/proc/sys/kernel/core_pattern"),
    *("/proc/sysrq-trigger", "/sys/devices/system/cpu"),
):
    PROBES[f"write {path}"] = writing(path)
for name, path in {
    "HOME": HOME,
    "HOME/strategies": HOME / "strategies",
    "PREFIX": sys.prefix,
}.items():
    PROBES[f"write {name}"] = writing(str(path))


@probe
def read_shadow() -> object:
    return Path("/etc/shadow").read_text()


@probe
def raw_disk() -> object:
    disks = [path for path in Path("/dev").iterdir() if stat.S_ISBLK(path.lstat().st_mode)]
    if disks:
        return [str(disk) for disk in disks]
    raise KeptOut("none")


@probe
def make_device() -> object:
    return os.mknod("disk", 0o600 | stat.S_IFBLK, os.makedev(254, 0))


# ---- what the product listens on


@probe
def http_without_credentials() -> object:
    answer = asked("GET /python/ HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n", PLACES["ports"]["http"])
    if " 401 " in answer.partition("\r\n")[0]:
        raise KeptOut("401")
    return answer


@probe
def nats_without_credentials() -> object:
    hello = 'CONNECT {"verbose":true}\r\nSUB > 1\r\nPING\r\n'
    answer = asked(hello, PLACES["ports"]["nats"])
    if "Authorization Violation" in answer:
        raise KeptOut("Authorization Violation")
    return answer


def asked(said: str, port: int) -> str:
    with socket.create_connection(("127.0.0.1", port), SECONDS) as connection:
        connection.sendall(said.encode())
        heard = b""
        with suppress(TimeoutError):
            while piece := connection.recv(1 << 16):
                heard += piece
                if b"-ERR" in heard or b"PONG" in heard or b"HTTP/1.1" in heard:
                    break
    return heard.decode(errors="replace")


@probe
def warden_socket() -> object:
    with socket.socket(socket.AF_UNIX) as connection:
        return connection.connect(PLACES["warden_socket"])


@probe
def hidden_sockets() -> object:
    """Those without a file are seen by the whole network namespace."""
    lines = Path("/proc/net/unix").read_text().splitlines()
    found = [line.split()[-1] for line in lines if "@" in line and "openbell" in line.lower()]
    if found:
        return found
    raise KeptOut("none")


# ---- becoming more


@probe
def capabilities() -> object:
    told = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines())
    held = {name: told[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")}
    if any(int(mask, 16) for mask in held.values()) or told["NoNewPrivs"] != "1":
        return held
    raise KeptOut("none")


@probe
def become_root() -> object:
    return os.setuid(0)


@probe
def join_groups() -> object:
    return os.setgroups([0])


@probe
def setuid_program() -> object:
    """`su` is root's by its file's mode, and asks for no password of root's."""
    done = subprocess.run(
        ["/bin/su", "-c", "id -u"],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    if done.stdout.strip() == "0":
        return done.stdout
    raise KeptOut("refused")


@probe
def mount_program() -> object:
    done = subprocess.run(
        ["/bin/mount", "-t", "tmpfs", "none", "."], capture_output=True, check=False
    )
    if done.returncode == 0:
        return done.stdout
    raise KeptOut("refused")


@probe
def more_descriptors() -> object:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        return resource.setrlimit(resource.RLIMIT_NOFILE, (most + 1, most + 1))
    except ValueError:
        raise KeptOut("refused") from None


@probe
def last_to_be_ended() -> object:
    """By the kernel, when the host's memory is out."""
    score = Path("/proc/self/oom_score_adj")
    before = score.read_text()
    score.write_text("-1000")
    return before, score.read_text()


@probe
def nicer_to_oneself() -> object:
    return os.nice(-10)


@probe
def first_at_the_processor() -> object:
    return os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))


@probe
def change_root() -> object:
    return os.chroot(".")


@probe
def mount_something() -> object:
    return mount("none", ".", "tmpfs")


@probe
def new_mounts() -> object:
    return checked(libc.unshare(CLONE_NEWNS))


@probe
def leave_the_network() -> object:
    return checked(libc.unshare(CLONE_NEWNET))


@probe
def name_the_host() -> object:
    return socket.sethostname("hostile")


@probe
def set_the_clock() -> object:
    return os.times() if checked(libc.settimeofday(None, ctypes.byref(ctypes.c_int64(0)))) else 0


@probe
def packets_of_others() -> object:
    return socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close()


@probe
def groups_of_the_host() -> object:
    return names(Path("/sys/fs/cgroup"))


# ---- a user namespace of its own: where that is to be had at all, it is of no use


def in_user_namespace(more: int, act: Callable[[], object]) -> object:
    user, group = os.getuid(), os.getgid()
    checked(libc.unshare(CLONE_NEWUSER | more))
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    return act()


@probe
def nested_root_reads_shadow() -> object:
    return in_user_namespace(0, lambda: Path("/etc/shadow").read_text())


@probe
def nested_root_writes_usr() -> object:
    def remount() -> object:
        mount("none", "/usr", "", MS_REMOUNT | MS_BIND)
        return Path("/usr/hostile").write_text("x")

    return in_user_namespace(CLONE_NEWNS, remount)


@probe
def nested_root_uncovers_the_host() -> object:
    """What lies below our root's own mount would be the host's."""

    def uncover() -> object:
        checked(libc.umount2(b"/", 2))
        return names(Path("/"))

    return in_user_namespace(CLONE_NEWNS, uncover)


@probe
def nested_root_signals_keeper() -> object:
    return in_user_namespace(0, signal_keeper)


@probe
def nested_root_mounts_a_disk() -> object:
    return in_user_namespace(CLONE_NEWNS, lambda: mount(PLACES["disk"], ".", "ext4"))


@probe
def nested_root_makes_a_device() -> object:
    return in_user_namespace(CLONE_NEWNS, make_device)


@probe
def nested_root_sees_processes() -> object:
    def look() -> object:
        Path("proc").mkdir(exist_ok=True)
        pid = os.fork()
        if pid:
            _, status = os.waitpid(pid, 0)
            return see_fewer(status)
        with suppress(OSError):
            mount("none", "proc", "proc")
            os._exit(len(processes(Path("proc"))))
        os._exit(0)

    return in_user_namespace(CLONE_NEWNS | CLONE_NEWPID, look)


def see_fewer(status: int) -> object:
    seen = os.waitstatus_to_exitcode(status)
    if seen > 1:
        return seen
    raise KeptOut("alone")


# ---- the groups that hold it: each file by itself, for one that could be written would be enough

GROUPS = {
    "v2": {
        "memory.max": "max",
        "memory.swap.max": "max",
        "memory.oom.group": "0",
        "pids.max": "max",
        "cpu.max": "max",
        "cpu.weight": "10000",
        "cgroup.procs": "0",
        "cgroup.threads": "0",
        "cgroup.subtree_control": "-memory",
    },
    "memory": {
        "memory.limit_in_bytes": "-1",
        "memory.memsw.limit_in_bytes": "-1",
        "memory.oom_control": "1",
        "cgroup.procs": "0",
        "tasks": "0",
        "release_agent": "/bin/true",
    },
    "pids": {"pids.max": "max", "cgroup.procs": "0", "tasks": "0"},
    "cpu": {"cpu.cfs_quota_us": "-1", "cpu.shares": "10000", "cgroup.procs": "0", "tasks": "0"},
}
"""By hierarchy (that of v2, or one of a controller of v1), what would lift a limit."""
ABOVE = {"cgroup.procs": "0", "cgroup.subtree_control": "-memory", "release_agent": "/bin/true"}


def groups_seen(hierarchy: str, more: int, act: Callable[[Path], object]) -> object:
    """They can be mounted in a user namespace only as its own cgroup namespace shows them."""

    def mounted() -> object:
        place = Path("groups")
        place.mkdir(exist_ok=True)
        if hierarchy == "v2":
            mount("none", str(place), "cgroup2")
        else:
            mount("none", str(place), "cgroup", options=hierarchy)
        return act(place)

    return in_user_namespace(CLONE_NEWNS | more, mounted)


def lifting(hierarchy: str, name: str) -> Callable[[], object]:
    """In a cgroup namespace of our own, where our group is the root of all."""

    def write(place: Path) -> object:
        return written(place / name, GROUPS[hierarchy][name])

    return lambda: groups_seen(hierarchy, CLONE_NEWCGROUP, write)


def escaping(hierarchy: str, name: str) -> Callable[[], object]:
    """To the group above ours, in the namespace that we were given."""

    def write(place: Path) -> object:
        above = place / own_group(hierarchy).parent.relative_to("/")
        return written(above / name, ABOVE[name])

    return lambda: groups_seen(hierarchy, 0, write)


def dividing(hierarchy: str) -> Callable[[], object]:
    def make(place: Path) -> object:
        return (place / "deeper").mkdir()

    return lambda: groups_seen(hierarchy, CLONE_NEWCGROUP, make)


def own_group(hierarchy: str) -> Path:
    wanted = "" if hierarchy == "v2" else hierarchy
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if wanted in controllers.split(","):
            return Path(path)
    raise KeptOut("no such group")


def written(path: Path, text: str) -> object:
    """Never makes the file."""
    descriptor = os.open(path, os.O_WRONLY)
    return os.write(descriptor, text.encode())


for hierarchy, files in GROUPS.items():
    PROBES[f"group {hierarchy} mkdir"] = dividing(hierarchy)
    for name in files:
        PROBES[f"group {hierarchy} {name}"] = lifting(hierarchy, name)
    for name in ABOVE:
        PROBES[f"group {hierarchy} ../{name}"] = escaping(hierarchy, name)


@probe
def permit_namespaces_of_groups() -> object:
    """What forbids them where the groups are its own user's."""
    return written(Path("/proc/sys/user/max_cgroup_namespaces"), "1000")


@probe
def nested_root_permits_namespaces_of_groups() -> object:
    """Its own number it may write; that of the cell holds as well."""

    def permit() -> object:
        written(Path("/proc/sys/user/max_cgroup_namespaces"), "1000")
        Path("groups").mkdir(exist_ok=True)
        checked(libc.unshare(CLONE_NEWNS | CLONE_NEWCGROUP))
        mount("none", "groups", "cgroup2")
        return written(Path("groups/memory.max"), "max")

    return in_user_namespace(0, permit)


def verdict(tried: Callable[[], object]) -> str:
    """In a process of its own, so that no probe changes the next one's place."""
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        pipes_of_ours.update((tell, told))
        signal.alarm(2 * SECONDS)
        os.write(tell, outcome(tried).encode())
        os._exit(0)
    os.close(tell)
    with os.fdopen(told) as said:
        text = said.read()
    os.waitpid(child, 0)
    return text or "ended"


def outcome(tried: Callable[[], object]) -> str:
    try:
        return f"done: {tried()!r:.200}"
    except KeptOut as kept:
        return str(kept)
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    except BaseException as error:  # noqa: BLE001 - of whatever kind, it is told
        return f"{type(error).__name__}: {error}"


wanted = tuple(PLACES.get("only", [""]))
print(json.dumps({name: verdict(PROBES[name]) for name in PROBES if name.startswith(wanted)}))
