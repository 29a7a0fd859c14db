"""What cells write down, whose users they have, and what of a host they show."""

import json
import os
import sys
from itertools import pairwise
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("cells are Linux's", allow_module_level=True)
assert sys.platform == "linux"

from services.runner.warden import records, rootfs, uids  # noqa: E402 - Linux alone has them
from services.runner.warden.host import End, Identity  # noqa: E402

CELL = "cell 12 34 boot whole\n"
KEEPER = Identity(12, 34)


@pytest.mark.parametrize(
    ("text", "went", "end"),
    [
        (CELL, False, None),
        (CELL + "go\n", True, None),
        (CELL + "go", False, None),
        (CELL + "go\nend 768 1.5\n", True, End(exit_code=3)),
        (CELL + "go\nend 9 1.5\n", True, End(signal="SIGKILL")),
        (CELL + "go\nend 139 1.5\n", True, End(signal="SIGSEGV")),
        (CELL + "go\nend 35 1.5\n", True, End(signal="SIG35")),
        (CELL + "go\nend 768", True, None),
        (CELL + "go\nend 76\0\0\0", True, None),
        (CELL + "go\nend x 1.5\n", True, None),
        (CELL + "go\nerror no such file\nend 32000 1.5\n", True,
         End(detail="no such file", executed=False)),
    ],
)  # fmt: skip
def test_a_record_says_what_its_whole_lines_say(text: str, went: bool, end: End | None):
    for padding in ("", "\0" * 100):
        record = records.parse(text + padding)
        assert record is not None
        assert (record.keeper, record.boot_id, record.whole) == (KEEPER, "boot", True)
        assert (record.went, record.end) == (went, end)


@pytest.mark.parametrize("text", ["", "\0" * 100, "go\nend 0 1\n", "cell 12\n", "cell 1 2 b whole"])
def test_of_what_was_not_begun_there_is_no_record(text: str):
    assert records.parse(text) is None


def test_a_record_is_written_by_one_after_the_other_into_space_that_is_there(tmp_path: Path):
    path = tmp_path / "a"
    path.write_text(CELL + "go\nend 0 1.5\n")
    descriptor = records.opened(path)
    records.begin(descriptor, KEEPER, "boot", whole=False)
    if os.fork() == 0:
        os.write(descriptor, b"go\n")
        os._exit(0)
    os.wait()
    os.write(descriptor, records.line_of(ValueError("it has\nend 0 1\nlines")))
    os.close(descriptor)
    assert path.stat().st_size == records.SPACE
    assert path.stat().st_blocks > 0
    record = records.read(path)
    assert record is not None
    assert (record.went, record.whole) == (True, False)
    assert record.end == End(detail="it has end 0 1 lines", executed=False)


def test_an_error_without_words_is_told_by_its_kind_and_one_of_too_many_is_cut():
    assert records.line_of(MemoryError()) == b"error MemoryError\n"
    assert len(records.line_of(ValueError("x" * 99_999))) < records.SPACE


CONTAINER = "         0     100000      65536\n"
HOST = "         0          0 4294967295\n"
NARROW = "         0       1000          1\n"


def test_owners_get_users_where_they_are_mapped():
    home = Path("/home/a")
    assert uids.FIRST <= uids.first(home, HOST) < 2**31 - uids.MOST
    assert uids.first(home, CONTAINER) == uids.FIRST_IN_A_CONTAINER
    assert uids.available(NARROW) is False
    assert uids.available(HOST) is uids.available(CONTAINER) is (os.getuid() == 0)


def test_two_homes_of_a_host_give_nobody_the_same_user():
    """Outside of a whole cell, who has the same user could read what the other has."""
    one, other = (uids.first(Path(home), HOST) for home in ("/home/a", "/home/b"))
    assert abs(one - other) >= uids.MOST


def test_an_owner_s_user_is_remembered_and_nobody_else_s(tmp_path: Path):
    path = tmp_path / "uids.json"
    first = uids.Uids(path)
    ann, bob = first.of("ann"), first.of("bob")
    assert ann != bob
    assert first.of("ann") == ann
    again = uids.Uids(path)
    assert (again.of("bob"), again.of("ann")) == (bob, ann)
    assert again.of("cid") not in {ann, bob}


def test_a_home_that_is_moved_goes_on_in_its_range(tmp_path: Path):
    homes = [tmp_path / str(n) for n in range(6)]
    homes[0].mkdir()
    ann = uids.Uids(homes[0] / "uids.json").of("ann")
    for before, after in pairwise(homes):
        before.rename(after)
        assert uids.Uids(after / "uids.json").of(after.name) == ann + int(after.name)


def test_a_user_that_cannot_be_remembered_is_not_given(tmp_path: Path):
    folder = tmp_path / "folder"
    folder.mkdir()
    known = uids.Uids(folder / "uids.json")
    ann = known.of("ann")
    (folder / "uids.json").rename(tmp_path / "uids.json")
    folder.rmdir()
    with pytest.raises(OSError, match="uids"):
        known.of("bob")
    folder.mkdir()
    assert known.of("bob") == ann + 1


def test_no_more_users_are_given_than_are_mapped(tmp_path: Path):
    path = tmp_path / "uids.json"
    path.write_text(json.dumps({"first": 5000, "owners": {"ann": 5000 + uids.MOST - 1}}))
    with pytest.raises(OSError, match="no more"):
        uids.Uids(path).of("bob")


def test_a_folder_is_given_with_all_that_is_in_it_but_what_its_links_lead_to(tmp_path: Path):
    if os.getuid() != 0:
        pytest.skip("needs root")
    aside = tmp_path / "aside"
    aside.mkdir()
    (aside / "file").touch()
    own = tmp_path / "own"
    (own / "deep").mkdir(parents=True)
    (own / "deep" / "file").touch()
    (own / "folder").symlink_to(aside)
    (own / "file").symlink_to(aside / "file")
    uids.give(own, 50_000)
    given = {own, *own.rglob("*")}
    assert {path.lstat().st_uid for path in given} == {50_000}
    assert {path.stat().st_uid for path in (aside, aside / "file")} == {0}


def test_what_is_shown_includes_what_a_link_leads_to_and_nothing_twice(tmp_path: Path):
    real = tmp_path / "real"
    (real / "lib").mkdir(parents=True)
    link = tmp_path / "link"
    link.symlink_to(real)
    missing = tmp_path / "missing"
    shown = list(rootfs.readable([str(link), str(real / "lib"), str(missing), "/usr/lib"]))
    assert {str(link), str(real), "/usr"} <= set(shown)
    assert not {str(real / "lib"), str(missing), "/usr/lib"} & set(shown)


@pytest.mark.parametrize(
    ("path", "above", "below"),
    [
        ("/a/b", "/a", True),
        ("/a", "/a", True),
        ("/ab", "/a", False),
        ("/a", "/", True),
        ("/", "/a", False),
    ],
)
def test_a_path_is_below_its_folders_and_not_below_their_namesakes(
    path: str, above: str, below: bool
):
    assert rootfs.is_below(path, above) is below
