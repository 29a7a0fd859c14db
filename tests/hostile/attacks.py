"""Scripts that mean harm, each in its own way. They do none outside of a cell.

What would go on for ever has a bound beyond all limits, lest a defect fill this machine.
"""

GUARD = """\
import os, signal, sys, time
if os.getuid() == 0 or os.getppid() != 1:
    sys.exit("this is no cell: here it would do harm")
"""

TICKER = """\
import time
due = time.monotonic()
while True:
    due = max(due + 0.05, time.monotonic())
    time.sleep(max(0, due - time.monotonic()))
    print(f"{time.monotonic() - due:.6f}", flush=True)
"""
"""What behaves: each 50 ms it prints by how many seconds that was late."""

# ---- more than there is

FORKS = (
    GUARD
    + """
while True:
    try:
        os.fork()
    except OSError:
        pass
"""
)
MEMORY = (
    GUARD
    + """
held = [bytearray(b"x") * (8 << 20) for _ in range(256)]
"""
)
MEMORY_OF_CHILDREN = (
    GUARD
    + """
for _ in range(8):
    if os.fork() == 0:
        held = bytearray(b"x") * (48 << 20)
        time.sleep(600)
time.sleep(600)
"""
)
CHILDREN = (
    GUARD
    + """
for _ in range(200):
    if os.fork() == 0:
        time.sleep(600)
time.sleep(600)
"""
)
THREADS = (
    GUARD
    + """
import threading
for _ in range(30_000):
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
"""
)
THREADS_AGAIN_AND_AGAIN = (
    GUARD
    + """
import threading
print("begun", flush=True)
while True:
    try:
        threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
    except RuntimeError:
        pass
"""
)
DESCRIPTORS = (
    GUARD
    + """
held = [open("/dev/null") for _ in range(100_000)]
"""
)
DISK = (
    GUARD
    + """
with open("full", "wb") as file:
    for _ in range(1024):
        file.write(b"x" * (1 << 20))
time.sleep(600)
"""
)
UNLINKED = (
    GUARD
    + """
with open("full", "wb") as file:
    os.unlink("full")
    for _ in range(1024):
        file.write(b"x" * (1 << 20))
    time.sleep(600)
"""
)
DEEP = (
    GUARD
    + """
for _ in range(40):
    os.mkdir("deeper" * 40)
    os.chdir("deeper" * 40)
with open("full", "wb") as file:
    for _ in range(256):
        file.write(b"x" * (1 << 20))
time.sleep(600)
"""
)
"""A file whose path is longer than a path may be."""
SCRATCH = (
    GUARD
    + """
with open("/tmp/full", "wb") as file:
    for _ in range(1024):
        file.write(b"x" * (1 << 20))
time.sleep(600)
"""
)
CROWD = (
    GUARD
    + """
for number in range(100_000):
    os.close(os.open(str(number), os.O_CREAT))
print("crowded", flush=True)
time.sleep(600)
"""
)

# ---- to stay

IGNORE = """
for number in signal.valid_signals():
    if number not in (signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_IGN)
"""
DEAF = (
    GUARD
    + IGNORE
    + """
print("deaf", flush=True)
time.sleep(600)
"""
)
ESCAPED = (
    GUARD
    + IGNORE
    + """
if os.fork() == 0:
    os.setsid()
    time.sleep(600)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execve("/bin/sleep", ["sleep", "600"], {})
    os._exit(0)
os.wait()
print("away", flush=True)
"""
)
"""A child in a session of its own, and a daemon with nothing of its run in its environment."""
ESCAPED_AND_STAYING = ESCAPED + "time.sleep(600)\n"
FROZEN = (
    GUARD
    + """
print("frozen", flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
time.sleep(600)
"""
)
ANOTHER_PROGRAM = (
    GUARD
    + """
print("leaving", flush=True)
os.execve("/bin/sleep", ["sleep", "600"], {})
"""
)
ZOMBIES = (
    GUARD
    + """
for _ in range(200):
    if os.fork() == 0:
        os._exit(0)
print("undead", flush=True)
time.sleep(600)
"""
)

# ---- to harm others

EVERYBODY = (
    GUARD
    + """
for _ in range(3):
    if os.fork() == 0:
        time.sleep(600)
for number in (signal.SIGTERM, signal.SIGKILL):
    os.kill(-1, number)
for _ in range(3):
    os.wait()
print("alone", flush=True)
time.sleep(600)
"""
)
PLANTED = (
    GUARD
    + """
kind, pid = os.environ["KIND"], os.environ["RUNNER"]
for trap in ("script.py", ".openbell-heartbeat", f"script.{pid}.draft"):
    if os.path.lexists(trap):
        os.rename(trap, f"{trap}.{time.time_ns()}")
    if kind == "link":
        os.symlink("/etc/shadow", trap)
    elif kind == "pipe":
        os.mkfifo(trap)
    elif kind == "folder":
        os.mkdir(trap)
        os.mkdir(trap + "/deeper")
        os.symlink("/etc", trap + "/deeper/etc")
print("planted", flush=True)
time.sleep(600)
"""
)
"""Where its runner will write its source, and look for its heartbeat."""

# ---- with its log

FLOOD = (
    GUARD
    + """
block = (b"x" * 99 + b"\\n") * 10_000
for _ in range(int(os.environ.get("MEGABYTES", "200"))):
    os.write(1, block)
print("flooded", flush=True)
time.sleep(600)
"""
)
INFLATED = (
    GUARD
    + """
os.ftruncate(1, 1 << 42)
print("inflated", flush=True)
time.sleep(600)
"""
)
CUT = (
    GUARD
    + """
print("before\\n" * 1000, flush=True)
while not os.path.exists("seen"):
    time.sleep(0.01)
os.ftruncate(1, 0)
open("/proc/self/fd/1", "w").close()
os.fchmod(1, 0)
print("after", flush=True)
time.sleep(600)
"""
)
TWISTED = (
    GUARD
    + """
os.write(1, b"\\x1b]0;owned\\x07\\x1b[2J" + bytes(range(256)) * 100 + b"\\n")
os.write(1, b"long" * (8 << 20) + b"\\n")
sys.exit("\\x1b[31mred\\x1b]0;owned\\x07 \\u202e")
"""
)
"""What a terminal obeys, what is no text, and a line of 32 MB."""
ENDLESS = (
    GUARD
    + """
block = (b"x" * 99 + b"\\n") * 10_000
written = 0
while written < 20 << 30:
    written += os.write(1, block)
time.sleep(600)
"""
)
"""Faster than anybody can compress it."""
