"""What the machine has, and how much of it is in use."""

from __future__ import annotations

from pathlib import Path

import psutil

from openbell.contracts.metrics import HostMetrics

MB = 1024**2
LEAST_MB, STEP_MB, MOST_MB = 128, 128, 1024


def default_memory_mb(total_bytes: int) -> int:
    """What a run may use whose owner says nothing: an eighth of the machine's memory, 1024 MB at
    most. In steps of 128, rounded up: a machine of 4 GB reports somewhat less than it has.
    """
    eighth = total_bytes // (8 * MB)
    steps = -(-eighth // STEP_MB)
    return min(MOST_MB, max(LEAST_MB, steps * STEP_MB))


def look(disk: Path) -> HostMetrics:
    """Of processors since the call before; of the disk that holds this folder. Raises OSError."""
    memory = psutil.virtual_memory()
    room = psutil.disk_usage(str(disk))
    return HostMetrics(
        cpu_percent=psutil.cpu_percent(),
        processors=psutil.cpu_count() or 1,
        memory_bytes=memory.total - memory.available,
        memory_total_bytes=memory.total,
        disk_free_bytes=room.free,
        disk_total_bytes=room.total,
        load=psutil.getloadavg()[0],
    )
