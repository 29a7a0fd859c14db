"""What real interpreters print when a script fails, and what is told of it."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbell.redaction import NOTHING_TO_HIDE, Mask
from services.runner.logs import ending, headline, last_lines

SCRIPTS = {
    "an exception": ("raise ValueError('no price')", "ValueError: no price"),
    "of a function": ("def f():\n  return 1 / 0\nf()", "ZeroDivisionError: division by zero"),
    "in colours": (
        "raise SystemExit('\\x1b[1;31mno price\\x1b[0m')",
        "no price",
    ),
    "without a message": ("raise LookupError", "LookupError"),
    "of a module's class": (
        "import json\njson.loads('{')",
        "json.decoder.JSONDecodeError: Expecting property name enclosed in double quotes:"
        " line 1 column 2 (char 1)",
    ),
    "of a class in a function": (
        "def f():\n  class Bad(Exception): pass\n  raise Bad('x')\nf()",
        "f.<locals>.Bad: x",
    ),
    "of several lines": ("raise RuntimeError('first\\nsecond\\n  third')", "RuntimeError: first"),
    "with a note": (
        "e = ValueError('x')\ne.add_note('a note')\nraise e",
        "ValueError: x",
    ),
    "raised while another was handled": (
        "try:\n  1 / 0\nexcept ZeroDivisionError:\n  raise KeyError('order')",
        "KeyError: 'order'",
    ),
    "raised from another": (
        "try:\n  1 / 0\nexcept ZeroDivisionError as e:\n  raise OSError(5, 'lost') from e",
        "OSError: [Errno 5] lost",
    ),
    "a recursion": ("def f(): f()\nf()", "RecursionError: maximum recursion depth exceeded"),
    "a syntax error": ("print('up'\n", "SyntaxError: '(' was never closed"),
    "an indentation error": (
        "def f():\nreturn 1\n",
        "IndentationError: expected an indented block",
    ),
    "a syntax error of what it imports": (
        "import ast\nast.parse('a b c')",
        "SyntaxError: invalid syntax",
    ),
    "a group": (
        "raise ExceptionGroup('two', [ValueError(1), TypeError(2)])",
        "ExceptionGroup: two (2 sub-exceptions)",
    ),
    "a group whose members have tracebacks": (
        "es = []\nfor n in (1, 2):\n  try:\n    raise ValueError(n)\n"
        "  except ValueError as e:\n    es.append(e)\nraise ExceptionGroup('both', es)",
        "ExceptionGroup: both (2 sub-exceptions)",
    ),
    "a group of groups": (
        "raise ExceptionGroup('outer', [ExceptionGroup('inner', [ValueError(1)])])",
        "ExceptionGroup: outer (1 sub-exception)",
    ),
    "a group raised from another": (
        "try:\n  1 / 0\nexcept ZeroDivisionError as e:\n"
        "  raise ExceptionGroup('g', [ValueError(1)]) from e",
        "ExceptionGroup: g (1 sub-exception)",
    ),
    "another raised from a group": (
        "try:\n  raise ExceptionGroup('g', [ValueError(1)])\n"
        "except ExceptionGroup as e:\n  raise RuntimeError('all failed') from e",
        "RuntimeError: all failed",
    ),
    "an interrupt": ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    "its own words": ("raise SystemExit('no key is set')", "no key is set"),
    "an exit that was printed": (
        "import traceback\ntry:\n  raise SystemExit('no key')\n"
        "except SystemExit:\n  traceback.print_exc()",
        "SystemExit: no key",
    ),
    "of a thread": (
        "import threading\nt = threading.Thread(target=lambda: 1 / 0)\nt.start()\nt.join()",
        "ZeroDivisionError: division by zero",
    ),
    "that was logged, then words": (
        "import logging\ntry:\n  1 / 0\nexcept ZeroDivisionError:\n"
        "  logging.exception('order failed')\nprint('going on', flush=True)",
        "ZeroDivisionError: division by zero",
    ),
    "of another process": (
        "import concurrent.futures as f, math\nif __name__ == '__main__':\n"
        "  with f.ProcessPoolExecutor(1) as p:\n    p.submit(math.sqrt, -1).result()",
        "ValueError: ",
    ),
    "a crash of the interpreter": (
        "import faulthandler, os, signal\nfaulthandler.enable()\n"
        "os.kill(os.getpid(), signal.SIGABRT)",
        "Fatal Python error: Aborted",
    ),
    "no exception": ("print('one')\nprint('  the last  ')\nprint()", "the last"),
    "nothing": ("", None),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_real_interpreters_output_tells_how_it_ended(name: str, tmp_path: Path) -> None:
    source, wanted = SCRIPTS[name]
    (tmp_path / "s.py").write_text(source)
    log = tmp_path / "s.log"
    with log.open("wb") as output:
        command = [sys.executable, "s.py"]
        subprocess.run(command, cwd=tmp_path, stdout=output, stderr=output, check=False)
    told = headline(last_lines(log, NOTHING_TO_HIDE))
    if wanted is None:
        assert told is None
    else:
        assert told is not None
        assert told.startswith(wanted), log.read_text()


def test_a_traceback_that_was_cut_falls_back_on_the_last_line() -> None:
    assert headline(["Traceback (most recent call last):", '  File "s.py", line 1']) is not None
    assert headline(['  File "s.py", line 9, in f', "    f()", "ValueError: x", "more"]) == (
        "ValueError: x"
    )


def test_a_long_line_is_cut() -> None:
    assert headline(["Traceback (most recent call last):", "E: " + "x" * 9000]) == "E: " + "x" * 497
    assert headline(["y" * 9000]) == "y" * 500


def test_last_lines_are_masked_and_bounded(tmp_path: Path) -> None:
    log = tmp_path / "s.log"
    assert last_lines(log, NOTHING_TO_HIDE) == ()
    log.write_bytes(b"".join(b"line %d of token-1234\n" % n for n in range(9000)))
    lines = last_lines(log, Mask(["token-1234"]))
    assert len(lines) == 50
    assert lines[-1] == "line 8999 of **********"
    log.write_bytes(b"\xff" * 10 + b"x" * 100_000 + b"\n")
    (line,) = last_lines(log, NOTHING_TO_HIDE)
    assert line == "\ufffd" * 10 + "x" * 1526 + " ... " + "x" * 512
    log.write_bytes(b"\xff" * 100_000)
    assert len("".join(last_lines(log, NOTHING_TO_HIDE)).encode()) <= 16_384
    log.write_bytes(b"\0" * 5000 + b"after it was cleared\n")
    assert last_lines(log, NOTHING_TO_HIDE) == ("after it was cleared",)
    log.write_bytes(b"\0" * 5000 + b"1234 is the rest of it\n")
    assert last_lines(log, Mask(["token-1234"])) == ("**** is the rest of it",)
    assert last_lines(log, NOTHING_TO_HIDE, 0) == ()


LONG = 1_000_000
CRASHES = {
    "after its traceback": (
        f"try:\n  1 / 0\nfinally:\n  import atexit\n  atexit.register(print, 'x' * {LONG}, end='')",
        "ZeroDivisionError: division by zero",
    ),
    "as its message": (f"raise ValueError('no price' + 'x' * {LONG})", "ValueError: no pricexxx"),
    "without a traceback": (
        f"print('no price', 'x' * {LONG}, end='')\nraise SystemExit(1)",
        "no price xxx",
    ),
}


@pytest.mark.parametrize("name", CRASHES)
def test_a_line_of_a_megabyte_hides_nothing(name: str, tmp_path: Path) -> None:
    source, wanted = CRASHES[name]
    (tmp_path / "s.py").write_text(source)
    log = tmp_path / "s.log"
    with log.open("wb") as output:
        command = [sys.executable, "s.py"]
        subprocess.run(command, cwd=tmp_path, stdout=output, stderr=output, check=False)
    lines = last_lines(log, NOTHING_TO_HIDE)
    told = headline(lines)
    assert told is not None
    assert told.startswith(wanted)
    assert len(told) <= 500
    assert len("".join(lines)) <= 16_384


def told_of_all(data: bytes, mask: Mask, n: int) -> tuple[str, ...]:
    """The same, by reading and masking the whole log."""
    masked = mask.masked(data)
    half = mask.unfinished(data)
    if half >= 4:
        masked = masked[:-half] + b"*" * half
    begins = [0, *(at + 1 for at, byte in enumerate(data[:-1]) if byte == 10)]
    ends = [*(begin - 1 for begin in begins[1:]), len(data.removesuffix(b"\n"))]
    told = b""
    for begin, end in list(zip(begins, ends, strict=True))[max(0, len(begins) - n) :]:
        whole = end - begin <= 7
        told += (
            masked[begin:end]
            if whole
            else masked[begin : begin + 5] + b" ... " + masked[end - 2 : end]
        )
        told += masked[end : end + 1]
    return tuple(told.decode().splitlines()[-n:]) if n else ()


@given(
    st.lists(st.sampled_from(["\n", "a", "b", "abab", "secretsecre", "long " * 3]), max_size=40),
    st.integers(0, 9),
)
def test_what_is_told_is_the_same_however_it_is_read(words: list[str], n: int) -> None:
    data, mask = "".join(words).encode(), Mask(["secretsecret", "abab\nabab", "baba"])
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "s.log"
        log.write_bytes(data)
        patch.setattr(ending, "HEAD", 5)
        patch.setattr(ending, "TAIL", 2)
        patch.setattr(ending, "BLOCK", 7)
        assert last_lines(log, mask, n) == told_of_all(data, mask, n)


def test_what_was_dropped_is_no_line(tmp_path: Path) -> None:
    """Wherever the blocks end in which it is read."""
    log = tmp_path / "s.log"
    for text in (b"x" * 100, b"x" * (2 * 65536 - 100), b"one\n" * 10):
        for dropped in (4096, 65536, 200_000):
            log.write_bytes(b"\0" * dropped + b"1234 is the rest of it\n" + text)
            lines = last_lines(log, Mask(["token-1234"]))
            assert lines[0] == "**** is the rest of it"
            assert len(lines) == 1 + len(text.splitlines())


def test_only_so_far_back_a_line_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ending, "FURTHEST", 1_000_000)
    log = tmp_path / "s.log"
    log.write_bytes(b"before\n" + b"x" * 1_000_001)
    assert last_lines(log, NOTHING_TO_HIDE) == ("x" * 1536 + " ... " + "x" * 512,)
    log.write_bytes(b"before\n" + b"x" * 999_000)
    assert last_lines(log, NOTHING_TO_HIDE)[0] == "before"
