"""The keys under which the values of variables are sealed: AES-256-GCM.

A sealed value is the byte 1, the first bytes of the key's SHA-256, a random nonce, and the
ciphertext, which is bound to what the value is of. The byte 0 is before a value that is not sealed
yet: a migration cannot know the keys.
"""

import base64
import binascii
import hashlib
import secrets
from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from openbell import private_files
from openbell.contracts.errors import SealBroken, ServiceUnavailable

SETTING = "OPENBELL_API__KEYS"
SEALED, PLAIN = b"\1", b"\0"
KEY_BYTES, ID_BYTES, NONCE_BYTES = 32, 4, 12
HEAD_BYTES = 1 + ID_BYTES + NONCE_BYTES
OVERHEAD_BYTES = HEAD_BYTES + 16


class Keyring:
    """Seals under the newest key, opens under any that it has ever known."""

    def __init__(self, keys: Sequence[bytes], file: Path | None = None) -> None:
        self._file = file
        self.place = str(file or SETTING)
        """Where the keys are kept, for whoever must mend them."""
        self._stamp: object = None
        self._known: dict[bytes, AESGCM] = {}
        self._keys: tuple[bytes, ...] = ()
        self._take(keys)

    @staticmethod
    def of(setting: str | None, file: Path) -> "Keyring":
        """With the keys of the setting, else of the file, which is made when it is missing.

        Raises ServiceUnavailable.
        """
        if setting is not None:
            return Keyring(_parsed(setting.split(","), SETTING))
        private_files.kept(file, lambda: _lines([_new_key()]))
        keyring = Keyring((), file)
        keyring.refresh()
        return keyring

    @property
    def can_grow(self) -> bool:
        """Whether keys are ours to make: those of the environment are not."""
        return self._file is not None

    @property
    def head(self) -> bytes:
        """What all begins with that is sealed under the newest key."""
        return self.heads[0]

    @property
    def heads(self) -> list[bytes]:
        """Of the newest key, and of those before it."""
        return [SEALED + _id(key) for key in self._keys]

    def seal(self, plain: bytes, bound: bytes) -> bytes:
        """Looks at the file first: another replica may have a newer key, and drop ours."""
        self.refresh()
        nonce = secrets.token_bytes(NONCE_BYTES)
        cipher = self._known[_id(self._keys[0])]
        return self.head + nonce + cipher.encrypt(nonce, plain, bound)

    def open(self, sealed: bytes, bound: bytes) -> bytes:
        """Raises SealBroken: it was tampered with, is another's, or its key is lost."""
        key_id = sealed[1 : 1 + ID_BYTES]
        if key_id not in self._known:
            self.refresh()
        cipher = self._known.get(key_id)
        if sealed[:1] != SEALED or cipher is None:
            raise SealBroken("its key is not there: restore the key, or set the value again")
        try:
            return cipher.decrypt(sealed[1 + ID_BYTES : HEAD_BYTES], sealed[HEAD_BYTES:], bound)
        except (InvalidTag, ValueError):
            raise SealBroken("it was changed outside Openbell: set the value again") from None

    def add(self) -> None:
        """Put a new key in front. The others stay until nothing needs them."""
        assert self._file is not None
        with private_files.locked(self._file):
            self._write([_new_key(), *self._read()])

    def drop_older(self, head: bytes) -> None:
        """Keep no key that is older than the one under which all is sealed that has this head."""
        if self._file is None:
            return
        with private_files.locked(self._file):
            keys = self._read()
            heads = [SEALED + _id(key) for key in keys]
            if heads[-1] != head:
                self._write(keys[: heads.index(head) + 1])

    def refresh(self) -> None:
        """Take the file's keys, if it is another than it was. Raises ServiceUnavailable."""
        if self._file is None:
            return
        try:
            status = self._file.stat()
        except OSError as error:
            raise ServiceUnavailable(
                f"{self._file} cannot be read: {error.strerror}; restore it from a backup"
            ) from None
        stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
        if stamp != self._stamp:
            self._take(self._read())
            self._stamp = stamp

    def _take(self, keys: Sequence[bytes]) -> None:
        """Those that were dropped stay known to us: what was read a moment ago still opens."""
        self._keys = tuple(keys)
        self._known |= {_id(key): AESGCM(key) for key in keys}

    def _read(self) -> list[bytes]:
        assert self._file is not None
        return _parsed(private_files.read(self._file).split(), self.place)

    def _write(self, keys: Sequence[bytes]) -> None:
        assert self._file is not None
        private_files.write(self._file, _lines(keys))
        self.refresh()


def _new_key() -> bytes:
    return secrets.token_bytes(KEY_BYTES)


def _id(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()[:ID_BYTES]


def _lines(keys: Sequence[bytes]) -> str:
    return "".join(f"{base64.urlsafe_b64encode(key).decode()}\n" for key in keys)


def _parsed(texts: Sequence[str], place: str) -> list[bytes]:
    """Raises ServiceUnavailable, which never tells what it could not read."""
    keys: list[bytes] = []
    for number, text in enumerate(texts, 1):
        bare = text.strip().rstrip("=")
        try:
            key = base64.b64decode(bare + "=" * (-len(bare) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if len(key) != KEY_BYTES:
            raise ServiceUnavailable(
                f"{place}: key {number} is not 32 bytes as base64url;"
                " a new one: openssl rand -base64 32 | tr +/ -_"
            )
        keys.append(key)
    if not keys:
        raise ServiceUnavailable(f"{place} holds no key; restore it from a backup")
    return keys
