"""What a strategy must not be able to see, reach or become: it tries all of it, on a real host."""

import json
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.fixtures.hostile import Ground
from tests.fixtures.processes import main_of
from tests.fixtures.stack import processes_of

SOURCE = Path(__file__).parents[1] / "hostile" / "probes.py"
HIDDEN = (
    *("data", "data/local-token", "data/keys", "data/openbell.db", "data/nats/nats.conf"),
    *("data/runner-key", "data/warden", "data/warden/journal.jsonl", "log", "up.stderr"),
)
"""Below Openbell's home."""
NOT_PERMITTED = {"EPERM", "EACCES", "EROFS"}
ABSENT = {"ENOENT", "ESRCH"}
KEPT_OUT: dict[str, set[str]] = {
    "see_others": {"alone"},
    "signal_keeper": NOT_PERMITTED,
    "ptrace_keeper": NOT_PERMITTED,
    "ptrace_warden": ABSENT,
    "read_memory_of_keeper": NOT_PERMITTED,
    "hold_a_descriptor_of_the_wardens": {"none"},
    "list_other_strategies": {"alone"},
    "list_home": {"empty"},
    "read_shadow": NOT_PERMITTED,
    "raw_disk": {"none"},
    "make_device": NOT_PERMITTED,
    "http_without_credentials": {"401"},
    "nats_without_credentials": {"Authorization Violation"},
    "warden_socket": ABSENT,
    "hidden_sockets": {"none"},
    "capabilities": {"none"},
    "become_root": NOT_PERMITTED,
    "join_groups": NOT_PERMITTED,
    "setuid_program": {"refused"},
    "mount_program": {"refused"},
    "more_descriptors": {"refused"},
    "last_to_be_ended": NOT_PERMITTED,
    "nicer_to_oneself": NOT_PERMITTED,
    "first_at_the_processor": NOT_PERMITTED,
    "change_root": NOT_PERMITTED,
    "mount_something": NOT_PERMITTED,
    "new_mounts": NOT_PERMITTED,
    "leave_the_network": NOT_PERMITTED,
    "name_the_host": NOT_PERMITTED,
    "set_the_clock": NOT_PERMITTED,
    "packets_of_others": NOT_PERMITTED,
    "groups_of_the_host": ABSENT,
    "nested_root_reads_shadow": NOT_PERMITTED,
    "nested_root_writes_usr": NOT_PERMITTED,
    "nested_root_uncovers_the_host": NOT_PERMITTED | {"EINVAL"},
    "nested_root_signals_keeper": NOT_PERMITTED,
    "nested_root_mounts_a_disk": NOT_PERMITTED | ABSENT,
    "nested_root_makes_a_device": NOT_PERMITTED,
    "nested_root_raises_its_limits": NOT_PERMITTED | {"no limits there"},
    "nested_root_sees_processes": {"alone"} | NOT_PERMITTED,
}
OF_KEEPER = ("environ", "mem", "maps", "fd", "cwd", "root", "exe")
OTHERS = ("warden", "runner", "sibling", "stranger")
READ_ONLY = (
    *("/", "/usr/lib", "/etc", "/etc/passwd", "/dev", "/proc/sys/kernel/core_pattern"),
    *("/proc/sysrq-trigger", "/sys/devices/system/cpu", "HOME", "HOME/strategies", "PREFIX"),
)
EXPECTED: dict[str, set[str]] = {
    **KEPT_OUT,
    **{f"keeper_{what}": NOT_PERMITTED for what in OF_KEEPER},
    **{f"environ_of_{whose}": ABSENT for whose in OTHERS},
    **{f"signal_{whose}": ABSENT for whose in OTHERS},
    **{f"read {path}": ABSENT for path in (*HIDDEN, "sibling", "stranger")},
    **{f"write {path}": NOT_PERMITTED | ABSENT for path in READ_ONLY},
}
"""By probe, what keeps it out."""


@pytest.fixture(scope="module")
def verdicts(ground: Ground) -> dict[str, str]:
    """Of all probes, made by one strategy."""
    ground.needs("own_user", "namespaces")
    places = json.dumps(_places(ground))
    with ground.at_peace():
        strategy = ground.start(SOURCE.read_text(), "probes", parameters={"PLACES": places})
        run = ground.ended(strategy)
        assert run["reason"] == "completed", ground.stack.log(strategy)
    ground.is_gone(strategy)
    return json.loads(ground.stack.log(strategy))


def _places(ground: Ground) -> dict[str, Any]:
    """What an attacker knows at the most."""
    stack = ground.stack
    (nats,) = [p for p in processes_of(stack.home) if "nats-server" in p.name()]
    neighbours = ground.neighbours.items()
    return {
        "home": str(stack.home),
        "disk": next((part.device for part in psutil.disk_partitions()), "/dev/sda"),
        "warden_socket": str(stack.home / "data" / "warden" / "warden.sock"),
        "pids": {
            "warden": ground.warden().pid,
            "runner": stack.processes[0].pid,
            **{name: main_of(stack, strategy).pid for name, strategy in neighbours},
        },
        "ports": {
            "http": int(stack.url.rpartition(":")[2]),
            "nats": nats.net_connections("tcp4")[0].laddr[1],
        },
        "files": {
            **{path: str(_existing(stack.home / path)) for path in HIDDEN},
            **{name: str(stack.home / "strategies" / strategy) for name, strategy in neighbours},
        },
    }


def _existing(path: Path) -> Path:
    """What is not there proves nothing by being hidden."""
    assert path.exists(), path
    return path


@pytest.mark.parametrize("probe", EXPECTED)
def test_it_is_kept_out(verdicts: dict[str, str], probe: str) -> None:
    assert verdicts[probe] in EXPECTED[probe]


def test_each_probe_is_judged(verdicts: dict[str, str]) -> None:
    assert verdicts.keys() == EXPECTED.keys()
