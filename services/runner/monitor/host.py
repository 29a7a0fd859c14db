"""What the machine has, and how much of it is in use."""

from __future__ import annotations

from pathlib import Path

import psutil

from openbell.contracts.metrics import HostMetrics

MB = 1024**2
LEAST_MB, STEP_MB, MOST_MB = 128, 128, 1024
IDLE = ("idle", "iowait")
TWICE = ("guest", "guest_nice")
"""They are in `user` and `nice` as well."""

Times = dict[str, float]


def default_memory_mb(total_bytes: int) -> int:
    """What a run may use whose owner says nothing: an eighth of the machine's memory, 1024 MB at
    most. In steps of 128, rounded up: a machine of 4 GB reports somewhat less than it has.
    """
    eighth = total_bytes // (8 * MB)
    steps = -(-eighth // STEP_MB)
    return min(MOST_MB, max(LEAST_MB, steps * STEP_MB))


class Machine:
    """Told again and again. `disk` is a folder on the disk that is told of."""

    def __init__(self, disk: Path) -> None:
        self._disk = disk
        # psutil keeps these by thread: we are called by any.
        self._times: Times = {}

    def look(self) -> HostMetrics:
        """Of processors since the look before; at first, since they started. Raises OSError."""
        before, self._times = self._times, processor_times()
        memory = psutil.virtual_memory()
        room = psutil.disk_usage(str(self._disk))
        return HostMetrics(
            cpu_percent=busy_percent(before, self._times),
            processors=psutil.cpu_count() or 1,
            memory_bytes=memory.total - memory.available,
            memory_total_bytes=memory.total,
            disk_free_bytes=room.free,
            disk_total_bytes=room.total,
            load=psutil.getloadavg()[0],
        )


def busy_percent(before: Times, now: Times) -> float:
    """What processors did between two looks besides waiting, with two digits."""
    spent = {name: max(0.0, seconds - before.get(name, 0)) for name, seconds in now.items()}
    total = sum(spent.values())
    idle = sum(spent.get(name, 0) for name in IDLE)
    return round(100 * (total - idle) / total, 2) if total else 0.0


def processor_times() -> Times:
    """Seconds since the start of the machine, of all processors together."""
    told: Times = psutil.cpu_times()._asdict()
    return {name: seconds for name, seconds in told.items() if name not in TWICE}
