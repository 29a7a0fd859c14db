"""The one line that says how a script ended. Pure.

Of a traceback it is that of the exception: the first line behind its last frame that is not
indented, as CPython's `traceback` prints it. Of chained exceptions the last one counts, of a group
the group itself, of a message its first line.
"""

import re
from collections.abc import Sequence

GROUP = "  | "
"""What the lines of a group's own traceback begin with; those of its members have more."""
FRAME = re.compile(r'(?P<margin>|  \| )  File ".*", line \d+(, in .*)?$')
HEADER = re.compile(r"(?:(?P<group>  \+ Exception Group )|)Traceback \(most recent call last\):$")
FATAL = "Fatal Python error: "
LONGEST = 500
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
ORDERS = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""What a terminal obeys rather than shows, and what turns text around."""


def headline(lines: Sequence[str]) -> str | None:
    """Of the last traceback the exception, else the last line that says something.

    It is shown in lists, also to others: what would give orders to a terminal is replaced.
    """
    told = _told(lines)
    return (
        None
        if told is None
        else ORDERS.sub("\ufffd", COLOUR.sub("", told).replace("\t", " "))[:LONGEST]
    )


def _told(lines: Sequence[str]) -> str | None:
    for at in range(len(lines) - 1, -1, -1):
        line = lines[at].rstrip()
        if line.startswith(FATAL):
            return line
        margin = _margin(line)
        if margin is not None:
            exception = _exception(lines[at + 1 :], margin)
            return exception or _last(lines)
    return _last(lines)


def _margin(line: str) -> str | None:
    """What begins each line of the traceback that this line is of, if it is of one."""
    if frame := FRAME.match(line):
        return frame["margin"]
    if header := HEADER.match(line):
        return GROUP if header["group"] else ""
    return None


def _exception(lines: Sequence[str], margin: str) -> str | None:
    for line in lines:
        told = line.removeprefix(margin).rstrip()
        if line.startswith(margin) and told and not told[0].isspace():
            return told
    return None


def _last(lines: Sequence[str]) -> str | None:
    said = [line.strip() for line in lines if line.strip()]
    return said[-1] if said else None
