"""What is sealed so that one runner alone can open it: HPKE (RFC 9180), base mode.

What is sealed is bound to what it is for: of another run, or another epoch, it does not open.
"""

import base64
import binascii

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from openbell.contracts.errors import SealBroken

SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


class RunnerKey:
    """A runner's private key."""

    def __init__(self, text: str) -> None:
        """Raises ValueError for what `made` has not made."""
        self._key = X25519PrivateKey.from_private_bytes(_bytes(text))

    @staticmethod
    def made() -> str:
        return _text(X25519PrivateKey.generate().private_bytes_raw())

    @property
    def public(self) -> str:
        return _text(self._key.public_key().public_bytes_raw())

    def open(self, sealed: bytes, purpose: bytes) -> bytes:
        """Raises SealBroken when it was sealed for another runner, or another purpose."""
        try:
            return SUITE.decrypt(sealed, self._key, purpose)
        except InvalidTag:
            raise SealBroken("it was not sealed for this runner and this run") from None


def seal(plain: bytes, public_key: str, purpose: bytes) -> bytes:
    """Raises SealBroken when this is no runner's public key."""
    try:
        key = X25519PublicKey.from_public_bytes(_bytes(public_key))
    except ValueError:
        raise SealBroken("the runner has told no key to seal to") from None
    return SUITE.encrypt(plain, key, purpose)


def for_run(run_id: str, epoch: int) -> bytes:
    """The purpose of a run's environment."""
    return f"openbell run environment\0{run_id}\0{epoch}".encode()


def for_log(run_id: str, version: str, page: int) -> bytes:
    """The purpose of a page of what must be hidden in a run's log."""
    return f"openbell log secrets\0{run_id}\0{version}\0{page}".encode()


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode()


def _bytes(text: str) -> bytes:
    """Raises ValueError, which tells nothing of the text."""
    try:
        return base64.b64decode(text, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("this is no key") from None
