"""What must come of each of the probes: what keeps it out."""

from collections.abc import Mapping

HIDDEN = (
    *("data", "data/local-token", "data/keys", "data/openbell.db", "data/nats/nats.conf"),
    *("data/runner-key", "data/warden", "data/warden/journal.jsonl", "log", "up.stderr"),
)
"""Below Openbell's home."""
NOT_PERMITTED = {"EPERM", "EACCES", "EROFS"}
ABSENT = {"ENOENT", "ESRCH"}
NONE_TO_BE_HAD = {"ENOSPC"}
"""Namespaces of which so many may be there, here none."""
NO_SUCH_KIND = {"ENODEV", "EINVAL", "EBUSY", "no such group"}
"""Of file system or hierarchy: of this kernel, or of cgroups of the other version."""
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
    "permit_namespaces_of_groups": NOT_PERMITTED,
    "nested_root_reads_shadow": NOT_PERMITTED,
    "nested_root_writes_usr": NOT_PERMITTED,
    "nested_root_uncovers_the_host": NOT_PERMITTED | {"EINVAL"},
    "nested_root_signals_keeper": NOT_PERMITTED,
    "nested_root_mounts_a_disk": NOT_PERMITTED | ABSENT | NO_SUCH_KIND,
    "nested_root_makes_a_device": NOT_PERMITTED,
    "nested_root_permits_namespaces_of_groups": NOT_PERMITTED | ABSENT,
    "nested_root_sees_processes": {"alone"} | NOT_PERMITTED,
}
OF_KEEPER = ("environ", "mem", "maps", "fd", "cwd", "root", "exe")
OTHERS = ("warden", "runner", "sibling", "stranger")
READ_ONLY = (
    *("/", "/usr/lib", "/etc", "/etc/passwd", "/dev", "/proc/sys/kernel/core_pattern"),
    *("/proc/sysrq-trigger", "/sys/devices/system/cpu", "HOME", "HOME/strategies", "PREFIX"),
)
LIFTING: dict[str, tuple[str, ...]] = {
    "v2": (
        *("memory.max", "memory.swap.max", "memory.oom.group", "pids.max", "cpu.max"),
        *("cpu.weight", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control", "mkdir"),
    ),
    "memory": (
        *("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.oom_control"),
        *("cgroup.procs", "tasks", "release_agent", "mkdir"),
    ),
    "pids": ("pids.max", "cgroup.procs", "tasks", "mkdir"),
    "cpu": ("cpu.cfs_quota_us", "cpu.shares", "cgroup.procs", "tasks", "mkdir"),
}
"""By hierarchy, what a script would lift its limits with, were it to have its own group at hand."""
ESCAPING = ("../cgroup.procs", "../cgroup.subtree_control", "../release_agent")
EXPECTED: dict[str, set[str]] = {
    **KEPT_OUT,
    **{f"keeper_{what}": NOT_PERMITTED for what in OF_KEEPER},
    **{f"environ_of_{whose}": ABSENT for whose in OTHERS},
    **{f"signal_{whose}": ABSENT for whose in OTHERS},
    **{f"read {path}": ABSENT for path in (*HIDDEN, "sibling", "stranger")},
    **{f"write {path}": NOT_PERMITTED | ABSENT for path in READ_ONLY},
    **{
        f"group {hierarchy} {name}": NOT_PERMITTED | ABSENT | NO_SUCH_KIND
        for hierarchy, files in LIFTING.items()
        for name in (*files, *ESCAPING)
    },
}
"""By probe, where each owner has a user of their own."""
GROUPS_OF_V2: dict[str, set[str]] = {
    **{f"group v2 {name}": {"EACCES"} for name in LIFTING["v2"]},
    **{f"group v2 {name}": {"EPERM"} for name in ESCAPING},
}
"""Where all limits are v2's: each file is seen in a namespace of the script's own, and is root's;
the host's own groups cannot be mounted."""


def of_ordinary_user() -> dict[str, set[str]]:
    """Where strategies are whoever started Openbell, each in a user namespace."""
    nobody = {"EINVAL", "EPERM"}
    """No other user is known there."""
    lifting = {
        f"group {hierarchy} {name}": NONE_TO_BE_HAD
        for hierarchy, files in LIFTING.items()
        for name in files
    }
    return {
        **EXPECTED,
        **lifting,
        "become_root": nobody,
        "join_groups": nobody,
        "signal_keeper": {"ignored"},
        "nested_root_signals_keeper": {"ignored"},
        "nested_root_permits_namespaces_of_groups": NONE_TO_BE_HAD,
    }


def not_kept_out(
    verdicts: Mapping[str, str], expected: Mapping[str, set[str]]
) -> dict[str, str | None]:
    """What came of those probes that were not kept out as expected, or not made."""
    return {
        name: verdicts.get(name)
        for name in (*expected, *verdicts)
        if verdicts.get(name) not in expected.get(name, set())
    }
