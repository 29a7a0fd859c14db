"""The value of a row: sealed for this row alone, and opened nowhere else."""

from openbell.contracts.errors import SealBroken
from openbell.db.models import Variable
from services.api.variables.keyring import OVERHEAD_BYTES, PLAIN, Keyring
from services.api.variables.rows import PARAMETER


def seal(keyring: Keyring, row: Variable, value: str) -> None:
    row.sealed = keyring.seal(value.encode(), _bound(row))


def opened(keyring: Keyring, row: Variable) -> str:
    """Raises SealBroken, naming the variable."""
    try:
        return keyring.open(row.sealed, _bound(row)).decode()
    except SealBroken as error:
        raise SealBroken(f"the value of {row.name}: {error.detail}") from None


def reseal(keyring: Keyring, row: Variable) -> bool:
    """Under the newest key. Whether it could be opened.

    A parameter of the first release is not sealed yet, as its first byte tells.
    """
    try:
        if row.sealed[:1] == PLAIN and row.kind == PARAMETER:
            value = row.sealed[1:].decode()
        else:
            value = opened(keyring, row)
    except (SealBroken, UnicodeDecodeError):
        return False
    seal(keyring, row, value)
    return True


def size(row: Variable) -> int:
    """Bytes of its name and value."""
    return len(row.name) + max(0, len(row.sealed) - OVERHEAD_BYTES)


def _bound(row: Variable) -> bytes:
    """What a sealed value is of: in another row, or under another name, it does not open."""
    parts = ("openbell variable", row.id, row.owner, row.strategy_id, row.name, row.kind)
    return "\0".join(parts).encode()
