"""What is sealed for one runner opens for it alone, and for one purpose alone."""

import pytest

from openbell import sealing
from openbell.contracts.errors import SealBroken
from openbell.sealing import RunnerKey

RUN = sealing.for_run("ema-1a2b3c-7", 7)


def test_the_runner_opens_what_was_sealed_for_it() -> None:
    key = RunnerKey(RunnerKey.made())
    sealed = sealing.seal(b"secret-value", key.public, RUN)
    assert b"secret-value" not in sealed
    assert key.open(sealed, RUN) == b"secret-value"
    assert sealing.seal(b"secret-value", key.public, RUN) != sealed


def test_another_runner_opens_nothing() -> None:
    key, other = RunnerKey(RunnerKey.made()), RunnerKey(RunnerKey.made())
    with pytest.raises(SealBroken):
        other.open(sealing.seal(b"x", key.public, RUN), RUN)


@pytest.mark.parametrize("purpose", [("ema-1a2b3c-7", 8), ("ema-1a2b3c-8", 7), ("", 0)])
def test_it_opens_for_its_own_run_and_epoch_alone(purpose: tuple[str, int]) -> None:
    key = RunnerKey(RunnerKey.made())
    sealed = sealing.seal(b"x", key.public, RUN)
    with pytest.raises(SealBroken):
        key.open(sealed, sealing.for_run(*purpose))


@pytest.mark.parametrize("position", [0, 31, 32, -1])
def test_one_changed_bit_is_noticed(position: int) -> None:
    key = RunnerKey(RunnerKey.made())
    sealed = bytearray(sealing.seal(b"value", key.public, RUN))
    sealed[position] ^= 1
    with pytest.raises(SealBroken):
        key.open(bytes(sealed), RUN)


@pytest.mark.parametrize("text", ["", "x", "AAAA", "not base64!", "₹"])
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(SealBroken):
        sealing.seal(b"x", text, RUN)
    with pytest.raises(ValueError, match="key"):
        RunnerKey(text)
