"""Keys: made once, kept from others, never half-written; what they seal opens where it was."""

import base64
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from openbell.contracts.errors import SealBroken, ServiceUnavailable
from services.api.variables.keyring import Keyring

BOUND = b"id owner strategy PIN secret"
ONE, TWO = (base64.urlsafe_b64encode(bytes([n]) * 32).decode() for n in (1, 2))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "data" / "keys"


def test_a_key_is_made_at_the_first_start_and_kept(file: Path) -> None:
    sealed = Keyring.of(None, file).seal(b"1234", BOUND)
    text = file.read_text()
    assert Keyring.of(None, file).open(sealed, BOUND) == b"1234"
    assert file.read_text() == text
    if sys.platform != "win32":
        assert file.stat().st_mode & 0o777 == 0o600
        assert file.parent.stat().st_mode & 0o777 == 0o700


def test_many_that_start_at_once_agree_on_one_key(file: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        starts = [pool.submit(Keyring.of, None, file) for _ in range(16)]
        rings = [start.result() for start in starts]
    sealed = rings[0].seal(b"1234", BOUND)
    assert [ring.open(sealed, BOUND) for ring in rings] == [b"1234"] * 16


def test_nothing_is_sealed_twice_alike(file: Path) -> None:
    ring = Keyring.of(None, file)
    assert ring.seal(b"1234", BOUND) != ring.seal(b"1234", BOUND)
    assert b"1234" not in ring.seal(b"1234", BOUND)


def test_a_value_opens_only_where_it_was_sealed(file: Path) -> None:
    ring = Keyring.of(None, file)
    sealed = ring.seal(b"1234", BOUND)
    with pytest.raises(SealBroken):
        ring.open(sealed, BOUND + b"x")


def test_every_changed_byte_is_noticed(file: Path) -> None:
    ring = Keyring.of(None, file)
    sealed = ring.seal(b"1234", BOUND)
    for position in range(len(sealed)):
        changed = bytearray(sealed)
        changed[position] ^= 1
        with pytest.raises(SealBroken):
            ring.open(bytes(changed), BOUND)
    for length in range(len(sealed)):
        with pytest.raises(SealBroken):
            ring.open(sealed[:length], BOUND)


def test_what_was_never_sealed_does_not_pass_for_a_sealed_value(file: Path) -> None:
    with pytest.raises(SealBroken):
        Keyring.of(None, file).open(b"\0planted", BOUND)


@pytest.mark.skipif(sys.platform == "win32", reason="it has other permissions")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666, 0o620])
def test_keys_that_others_may_read_or_write_are_refused(file: Path, mode: int) -> None:
    Keyring.of(None, file)
    file.chmod(mode)
    with pytest.raises(ServiceUnavailable, match="chmod 600"):
        Keyring.of(None, file)


@pytest.mark.parametrize("text", ["", "\n", "garbage\n", "AAAA\n", ONE + "\nhalf", "₹", ONE[:20]])
def test_a_file_that_holds_no_key_is_refused_and_left_alone(file: Path, text: str) -> None:
    file.parent.mkdir()
    file.write_text(text, "utf-8")
    file.chmod(0o600)
    with pytest.raises(ServiceUnavailable, match="key") as caught:
        Keyring.of(None, file)
    assert "half" not in caught.value.detail
    assert file.read_text("utf-8") == text


def test_a_write_that_was_cut_short_leaves_the_old_keys(file: Path) -> None:
    ring = Keyring.of(None, file)
    sealed = ring.seal(b"1234", BOUND)
    file.with_name("keys.draft").write_text("half of a k")
    again = Keyring.of(None, file)
    assert again.open(sealed, BOUND) == b"1234"
    again.add()
    assert Keyring.of(None, file).open(sealed, BOUND) == b"1234"


def test_a_new_key_seals_and_the_old_one_opens_until_it_is_dropped(file: Path) -> None:
    ring = Keyring.of(None, file)
    old = ring.seal(b"1234", BOUND)
    ring.add()
    new = ring.seal(b"1234", BOUND)
    assert new[:5] == ring.head != old[:5]
    assert Keyring.of(None, file).open(old, BOUND) == b"1234"
    ring.drop_older(ring.head)
    assert len(file.read_text().split()) == 1
    assert ring.open(old, BOUND) == b"1234"  # by who knew it: read a moment ago
    with pytest.raises(SealBroken, match="restore"):
        Keyring.of(None, file).open(old, BOUND)
    assert Keyring.of(None, file).open(new, BOUND) == b"1234"


def test_another_replica_hears_of_a_new_key(file: Path) -> None:
    one, two = Keyring.of(None, file), Keyring.of(None, file)
    one.add()
    assert two.open(one.seal(b"1234", BOUND), BOUND) == b"1234"
    one.add()
    assert two.seal(b"1234", BOUND)[:5] == one.head


def test_a_key_that_is_newer_than_what_was_sealed_under_is_not_dropped(file: Path) -> None:
    one, two = Keyring.of(None, file), Keyring.of(None, file)
    one.add()
    head = one.head
    two.add()
    one.drop_older(head)
    assert len(file.read_text().split()) == 2


def test_keys_of_the_environment(file: Path) -> None:
    sealed = Keyring.of(ONE, file).seal(b"1234", BOUND)
    ring = Keyring.of(f" {TWO}, {ONE.rstrip('=')}", file)
    assert ring.open(sealed, BOUND) == b"1234"
    assert ring.seal(b"1234", BOUND)[:5] == ring.head != sealed[:5]
    assert not ring.can_grow
    assert not file.exists()
    ring.drop_older(ring.head)
    assert ring.open(sealed, BOUND) == b"1234"


@pytest.mark.parametrize("setting", ["", ",", "secret-but-no-key", ONE + ",x", ONE[:-4]])
def test_what_is_no_key_in_the_environment_is_refused_unseen(file: Path, setting: str) -> None:
    with pytest.raises(ServiceUnavailable, match="OPENBELL_API__KEYS") as caught:
        Keyring.of(setting, file)
    assert "secret-but" not in caught.value.detail


def test_a_lost_file_is_said_not_made_anew_under_our_feet(file: Path) -> None:
    ring = Keyring.of(None, file)
    os.unlink(file)  # noqa: PTH108
    with pytest.raises(ServiceUnavailable, match="backup"):
        ring.seal(b"1234", BOUND)
