"""What runs during the soak: what people's strategies do, and what they do wrong."""

from tests.hostile.attacks import GUARD

ENDS = """\
import random, time
print("for a moment", flush=True)
time.sleep(random.uniform(0, 8))
"""
CRASHES = """\
import random, time
time.sleep(random.uniform(0, 8))
print(1 / 0)
"""
FAULTS = """\
import ctypes, random, time
print("about to fault", flush=True)
time.sleep(random.uniform(0, 8))
ctypes.string_at(0)
"""
DEAF = """\
import signal, time
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
print("deaf", flush=True)
while True:
    time.sleep(60)
"""
FORKS = (
    GUARD
    + """
import random
for number in range(5):
    if os.fork() == 0:
        if number % 2:
            os.setsid()
        if number == 0:
            os.execve("/bin/sleep", ["sleep", "600"], {})
        time.sleep(random.uniform(0, 60))
        os._exit(0)
print("a family", flush=True)
time.sleep(random.uniform(0, 20))
"""
)
"""Some of its children outlive it, some stay as zombies."""
HOLDS = """\
import time
held = bytearray(b"x") * (50 << 20)
print("holding", flush=True)
while True:
    time.sleep(60)
"""
WRITES = """\
import time
line = "x" * 199
for _ in range(100_000):
    print(line)
while True:
    print(line, flush=True)
    time.sleep(0.05)
"""
SCRIPTS = {
    "ends": ENDS,
    "crashes": CRASHES,
    "faults": FAULTS,
    "deaf": DEAF,
    "forks": FORKS,
    "holds": HOLDS,
    "writes": WRITES,
}
