"""How late those are that behave, while another strategy does its worst.

Against the same neighbours in quiet just before, with a floor: on a machine of two processors that
others use too, less than that is chance.
"""

import threading
from collections.abc import Iterator

from bench.figure import Figure, percentile
from tests.fixtures.hostile import Answers, Ground, opened
from tests.hostile import attacks

SPELL_S = 5
FLOOR_S = 0.005
LIMITS = {"limits": {"processes": 128, "memory_mb": 256, "disk_mb": 512}}
ATTACKS = {
    "fork bomb": attacks.FORKS,
    "thread bomb": attacks.THREADS_AGAIN_AND_AGAIN,
    "memory bomb": attacks.MEMORY,
    "bomb of children": attacks.MEMORY_OF_CHILDREN,
    "disk filler": attacks.DISK,
    "log flood": attacks.ENDLESS,
}


def measure() -> Iterator[Figure]:
    with opened(fork=True) as ground:
        for name, source in ATTACKS.items():
            quiet, list_before = _spell(ground, f"before {name}", attacks.DEAF)
            worst, list_meanwhile = _spell(ground, name, source)
            print(f"     list p99 {list_before * 1e3:.1f} ms before, {list_meanwhile * 1e3:.1f} ms")
            reference = max(quiet, FLOOR_S)
            yield Figure(f"ticks beside a {name}, p99", worst * 1e3, reference * 1e3, "ms", 2)


def _spell(ground: Ground, name: str, source: str) -> tuple[float, float]:
    """How late ticks, and how long answers, are (p99, s) while it goes on, again and again."""
    before = {neighbour: ground.ticks(neighbour) for neighbour in ground.neighbours}
    strategy = ground.upload(source, name, restart="never", limits=LIMITS)
    enough = threading.Event()
    with Answers(ground.stack) as answers:
        attacking = threading.Thread(target=_go_on, args=(ground, strategy, enough))
        attacking.start()
        enough.wait(SPELL_S)
        enough.set()
        attacking.join()
    late = [s for n in before for s in ground.lateness(n)[before[n] :]]
    ground.stop(strategy)
    ground.is_gone(strategy)
    ground.stack.http.delete(f"/python/delete/{strategy}").raise_for_status()
    return percentile(late, 99), percentile(answers.seconds, 99)


def _go_on(ground: Ground, strategy: str, enough: threading.Event) -> None:
    """Start it whenever it has been ended."""
    while not enough.is_set():
        ground.stack.http.post(f"/python/start/{strategy}", params={"wait": 10})
        enough.wait(0.3)
