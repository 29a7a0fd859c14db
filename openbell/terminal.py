"""What others have written, made safe to print: a terminal obeys what it is sent.

A script could clear the screen, retitle the window, type into it on some terminals, or overwrite
one line by another. On a terminal all of that is shown instead of done; what goes into a file or a
pipe stays as it is.
"""

import re
import sys
from typing import TextIO

RESET = "\x1b[0m"
_COLOUR = (
    r"(?:[0-479]|2[2-479]|[39][0-7]|4[0-7]|10[0-7]|[34]9|[34]8;5;\d{1,3}|[34]8;2(?:;\d{1,3}){3})"
)
COLOURS = re.compile(rf"\x1b\[(?:{_COLOUR}?(?:;{_COLOUR})*)m")
"""Colours, bold, underlined and the like, and their end; not what hides its text, or blinks."""
ORDERS = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""All but newline and tab; and what turns text around, or ends a line for some."""


def escaped(text: str) -> str:
    r"""Whatever is an order in it, as Python writes it: `\x1b`."""
    return ORDERS.sub(lambda found: ascii(found[0])[1:-1], text.replace("\r\n", "\n"))


def coloured(text: str) -> str:
    """The same, but its colours stay. Whoever prints it sends RESET at the end."""
    text = text.replace("\r\n", "\n")
    pieces, at = list[str](), 0
    for colour in COLOURS.finditer(text):
        pieces += [escaped(text[at : colour.start()]), colour[0]]
        at = colour.end()
    return "".join([*pieces, escaped(text[at:])])


def shown(text: str, on: TextIO | None = None) -> str:
    """As it may be printed there; by default, on standard output."""
    return escaped(text) if (on or sys.stdout).isatty() else text
