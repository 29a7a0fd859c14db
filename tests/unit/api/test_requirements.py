"""What a user may ask for: names and versions, never a place."""

import pytest

from openbell.contracts.errors import InvalidRequest
from services.api.requirements import FILE, FORM, MOST, MOST_BYTES, Wanted, check_environment

BLOCK = """\
# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "pandas<3",
#   "rich",
# ]
# ///
import pandas
"""


def wanted(
    source: str = "print(1)\n", text: str | None = None, python: str | None = None
) -> Wanted:
    return check_environment(source.encode(), text, python)


def refusal(source: str = "print(1)\n", text: str | None = None, python: str | None = None) -> str:
    with pytest.raises(InvalidRequest) as refused:
        wanted(source, text, python)
    assert refused.value.errors
    return f"{refused.value.errors[0]['field']}: {refused.value.errors[0]['message']}"


def test_what_says_nothing_has_the_default_environment() -> None:
    assert wanted().is_default
    assert wanted(text="  \n", python=" ").is_default


def test_a_script_says_what_it_needs() -> None:
    assert wanted(BLOCK) == Wanted(("pandas<3", "rich"), ">=3.11", None, FILE)
    assert wanted(BLOCK.replace("\n", "\r\n")) == wanted(BLOCK)
    assert wanted("\ufeff" + BLOCK) == wanted(BLOCK)


def test_no_packages_at_all_is_not_the_default() -> None:
    assert wanted("# /// script\n# dependencies = []\n# ///\n").requirements == ()
    only_python = wanted('# /// script\n# requires-python = ">=3.12"\n# ///\n')
    assert (only_python.requirements, only_python.requires_python) == (None, ">=3.12")


def test_requirements_that_are_sent() -> None:
    text = "# mine\npandas \\\n  >= 2  # newer\n\nrich[jupyter]==13.* ; python_version < '3.14'\r\n"
    assert wanted(text=text, python="3.12") == Wanted(
        ("pandas>=2", 'rich[jupyter]==13.*; python_version < "3.14"'), None, "3.12", FORM
    )


@pytest.mark.parametrize(
    "source",
    [
        "# /// script\n# dependencies = ['x']\nprint(1)\n",
        "# /// other\n# dependencies = ['x']\n# ///\n",
        "#/// script\n# dependencies = ['x']\n# ///\n",
        "x = '''\n # /// script\n # dependencies = ['x']\n # ///\n'''\n",
    ],
)
def test_what_is_no_block_is_a_comment(source: str) -> None:
    assert wanted(source).is_default


def test_a_block_ends_where_the_last_line_of_its_comment_ends_it() -> None:
    source = "# /// script\n# x = '''\n# ///\n# '''\n# dependencies = ['y']\n# ///\n# free\n"
    assert wanted(source).requirements == ("y",)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (BLOCK + "\n" + BLOCK, "several blocks"),
        ("# /// script\n# dependencies = [\n# ///\n", "not TOML"),
        ("# /// script\n# dependencies = 'x'\n# ///\n", "a list of texts"),
        ("# /// script\n# dependencies = [1]\n# ///\n", "a list of texts"),
        ("# /// script\n# requires-python = 3\n# ///\n", "requires-python"),
        ("# /// script\n# requires-python = 'new'\n# ///\n", "requires-python"),
        ("# /// script\n# dependencies = ['x @ file:///etc/passwd']\n# ///\n", "not where it is"),
    ],
)
def test_a_block_that_says_nonsense_is_refused(source: str, told: str) -> None:
    assert refusal(source).startswith("file: ")
    assert told in refusal(source)


@pytest.mark.parametrize(
    "line",
    [
        "-r /etc/shadow",
        "--index-url http://127.0.0.1/",
        "-e .",
        "./wheels/x-1.0-py3-none-any.whl",
        "/etc/passwd",
        "file:///etc/passwd",
        "https://example.com/x.whl",
        "x @ https://example.com/x.whl",
        "x @ git+ssh://git@example.com/x",
        "x==",
        "x==1.0 --hash=sha256:00",
        "x; sys_platform == '\0'",
        "../x",
    ],
)
def test_places_options_and_nonsense_are_refused(line: str) -> None:
    assert refusal(text=f"rich\n{line}\n").startswith("requirements: ")


def test_what_is_named_twice_or_too_often_is_refused() -> None:
    assert "name them once" in refusal(BLOCK, text="rich")
    assert f"at most {MOST}" in refusal(text="x\n" * (MOST + 1))
    assert f"at most {MOST_BYTES}" in refusal(text="x" * (MOST_BYTES + 1))


@pytest.mark.parametrize("python", ["2.7", "newest", "3", ">=3.11", "3.12.1.1", "/usr/bin/python3"])
def test_a_python_is_a_version(python: str) -> None:
    assert refusal(python=python).startswith("python: ")
    assert wanted(python="3.12.4").python == "3.12.4"
