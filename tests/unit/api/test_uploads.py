"""Bad uploads are refused with a reason, before anything is kept."""

import contextlib
import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbell.contracts.errors import InvalidRequest, InvalidSource, TooLarge
from services.api.uploads import (
    Given,
    check_form,
    check_name,
    check_own,
    check_source,
    check_variables,
    new_id,
)

LIMIT = 1024**2


def test_a_script_is_addressed_by_its_bytes() -> None:
    source = check_source("ema.py", b"print('hi')\n", LIMIT)
    assert source.sha256 == hashlib.sha256(b"print('hi')\n").hexdigest()


@pytest.mark.parametrize(
    "filename",
    [
        None,
        "",
        "ema",
        "ema.txt",
        "../ema.py",
        "/etc/ema.py",
        "a\\b.py",
        "a\0.py",
        "éma.py",
        ".py",
        "x" * 10_000 + ".py",
        "-rf.py",
    ],
)
def test_a_file_name_that_could_be_a_path_is_refused(filename: str | None) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_source(filename, b"pass", LIMIT)
    assert caught.value.errors is not None
    assert caught.value.errors[0]["field"] == "file"


def test_a_syntax_error_is_told_with_line_and_column() -> None:
    with pytest.raises(InvalidSource) as caught:
        check_source("ema.py", b"x = 1\ny = (2\nz = 3\n", LIMIT)
    (error,) = caught.value.errors or []
    assert (error["line"], error["column"]) == (2, 5)
    assert "never closed" in error["message"]


@pytest.mark.parametrize(
    "body",
    [b"", b" \n\t\n", b"\xff\xfe\x00p", b"print('\xe9')", b"x = 1\0", b"\x7fELF\x02\x01\x01\0"],
)
def test_what_is_no_text_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidSource):
        check_source("ema.py", body, LIMIT)


@pytest.mark.parametrize(
    "text",
    ["-" * 200_000 + "1", "(" * 5_000 + ")" * 5_000, "a" + ".a" * 100_000, "x=" * 50_000 + "1"],
)
def test_a_pathological_script_is_refused_or_taken_but_never_fatal(text: str) -> None:
    with contextlib.suppress(InvalidSource):
        check_source("ema.py", text.encode(), LIMIT)


def test_a_bom_is_text() -> None:
    assert check_source("ema.py", b"\xef\xbb\xbfprint(1)\n", LIMIT).filename == "ema.py"


def test_a_large_file_is_refused() -> None:
    with pytest.raises(TooLarge):
        check_source("ema.py", b"#" * (LIMIT + 1), LIMIT)


@pytest.mark.parametrize(
    "name", ["../x", "/x", "a/b", "a\0b", "नाम", "x" * 10_000, " -x", "a\nb", "<script>"]
)
def test_an_unsafe_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest):
        check_name(name, "ema.py")


def test_the_name_is_the_files_unless_given() -> None:
    assert check_name(None, "ema cross.py") == "ema cross"
    assert check_name("  ", "ema.py") == "ema"
    assert check_name(" My EMA ", "ema.py") == "My EMA"


@given(
    st.from_regex(
        re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,62}[A-Za-z0-9]", re.ASCII), fullmatch=True
    )
)
def test_an_id_is_always_safe(name: str) -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*-[a-z0-9]{6}", new_id(name))


def test_ids_of_one_name_differ() -> None:
    assert len({new_id("EMA Crossover") for _ in range(1000)}) == 1000
    assert new_id("EMA Crossover").startswith("ema-crossover-")


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '"x"',
        '{"A": null}',
        '{"A": true}',
        '{"A": []}',
        '{"9A": "x"}',
        '{"A=B": "x"}',
        '{"A": "x\\u0000"}',
        '{"STRATEGY_ID": "x"}',
        "[" * 100_000,
        '{"A": "' + "x" * 40_000 + '"}',
    ],
)
@pytest.mark.parametrize("field", ["parameters", "secrets", "uses"])
def test_bad_variables_are_refused_and_never_echoed(text: str, field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_form(**{"parameters": None, "secrets": None, "uses": None, field: text})
    told = caught.value.problem().model_dump_json()
    assert told.startswith('{"code":"invalid_request"')
    assert (caught.value.errors or [])[0]["field"].split(".")[0] == field
    assert "xxx" not in told


def test_values_become_texts() -> None:
    given = check_form('{"SYMBOL": "SBIN", "QUANTITY": 5}', '{"PIN": 1234}', '{"KEY": "paper"}')
    assert given.parameters == {"SYMBOL": "SBIN", "QUANTITY": "5"}
    assert given.secrets == {"PIN": "1234"}
    assert given.uses == {"KEY": "paper"}
    assert check_form(None, "", " ") == Given()


def test_one_name_has_one_meaning() -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_variables({"PIN": "a"}, {"PIN": "1234"}, {})
    assert (caught.value.errors or [])[0]["field"] == "secrets.PIN"
    with pytest.raises(InvalidRequest) as caught:
        check_variables({}, {"PIN": "1234"}, {}, ["PIN"])
    assert (caught.value.errors or [])[0]["field"] == "remove.PIN"


@pytest.mark.parametrize("name", ["../x", "a b", "", "-x", "x" * 65, "\ud800", "ключ"])
def test_a_secret_has_a_plain_name(name: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_own({}, {name: "value-of-it"})
    assert "value-of-it" not in caught.value.problem().model_dump_json()
    with pytest.raises(InvalidRequest):
        check_variables({}, {}, {"KEY": name})


def test_a_users_own_secret_may_be_named_freely() -> None:
    assert check_own({"SYMBOL": "SBIN"}, {"zerodha-live": "k"}).secrets == {"zerodha-live": "k"}
    with pytest.raises(InvalidRequest):
        check_own({"not-a-variable": "x"}, {})


def test_a_number_of_thousands_of_digits_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        check_variables({"N": 10**5000}, {}, {})


@pytest.mark.parametrize("name", ["", "a b", "\ud800", "x" * 1_060_000, "ключ", "A\n", "-x"])
def test_what_can_be_no_name_cannot_be_removed(name: str) -> None:
    for refused in (lambda: check_variables({}, {}, {}, [name]), lambda: check_own({}, {}, [name])):
        with pytest.raises(InvalidRequest) as caught:
            refused()
        problem = caught.value.problem()
        assert (problem.errors or [])[0]["field"].startswith("remove.")
        assert len(problem.model_dump_json().encode()) < 2_000


def test_only_a_users_own_secret_is_removed_by_a_free_name() -> None:
    assert check_own({}, {}, ["zerodha-live", "_SYMBOL"]).remove == ("zerodha-live", "_SYMBOL")
    with pytest.raises(InvalidRequest):
        check_variables({}, {}, {}, ["zerodha-live"])
