"""What a script prints, as a person's terminal gets it."""

import io
import re
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from openbell.terminal import COLOURS, coloured, escaped, shown

ATTACKS = {
    "clears the screen": ("\x1b[2J\x1b[H", r"\x1b[2J\x1b[H"),
    "retitles": ("\x1b]0;mine\x07", r"\x1b]0;mine\x07"),
    "overwrites its line": ("sold\rbought", r"sold\rbought"),
    "goes back": ("sold\b\b\b\b", r"sold\x08\x08\x08\x08"),
    "asks for an answer": ("\x1b[6n\x1bP$qm\x1b\\", r"\x1b[6n\x1bP$qm\x1b" + "\\"),
    "in one byte": ("\x9b2J", r"\x9b2J"),
    "hides": ("\x1b[8mhidden", r"\x1b[8mhidden"),
    "hides among colours": ("\x1b[31;8mhidden", r"\x1b[31;8mhidden"),
    "blinks": ("\x1b[5mpay", r"\x1b[5mpay"),
    "turns around": ("\u202egnp.exe", r"\u202egnp.exe"),
    "half of a pair": ("\ud800", r"\ud800"),
    "a colour that is none": ("\x1b[31;;;Hm", r"\x1b[31;;;Hm"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_what_a_terminal_would_obey_is_shown(name: str) -> None:
    text, wanted = ATTACKS[name]
    assert escaped(text) == coloured(text) == wanted


@pytest.mark.parametrize("text", ["plain\n", "a\tb\n", "₹ 1,000 → é 日本\n", ""])
def test_what_is_text_stays(text: str) -> None:
    assert escaped(text) == coloured(text) == text


def test_lines_of_windows_are_lines() -> None:
    assert escaped("one\r\ntwo\r\n") == "one\ntwo\n"


@pytest.mark.parametrize(
    "colour", ["", "0", "31", "1;31", "38;5;208", "48;2;10;20;30", "0;90;107", "39;49", "7", "22"]
)
def test_colours_stay_in_a_log_and_nowhere_else(colour: str) -> None:
    text = f"\x1b[{colour}mred\x1b[0m"
    assert coloured(text) == text
    assert escaped(text) == rf"\x1b[{colour}mred\x1b[0m"


@given(st.text(st.sampled_from("\x1b[]0123456789;:mHJ?\x07\r\n\x9b\u202e a"), max_size=40))
@example("\x1b\x1b[31m[2J")
@example("\x1b[3\r\n1m")
def test_nothing_but_colours_is_left_of_orders(text: str) -> None:
    left = COLOURS.sub("", coloured(text))
    assert not [one for one in left if unicodedata.category(one) in {"Cc", "Cf"} and one != "\n"]
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", escaped(text))


def test_a_long_line_takes_time_for_its_length_alone() -> None:
    """A test that does not end, if it does not hold."""
    many = "\x1b[" + "1;" * 500_000
    assert len(coloured(many)) == len(many) + 3


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_what_goes_into_a_file_stays_as_it_is() -> None:
    assert shown("\x1b[2J", io.StringIO()) == "\x1b[2J"
    assert shown("\x1b[2J", Terminal()) == r"\x1b[2J"
