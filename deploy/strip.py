"""Cuts what only debuggers read off the shared libraries below a folder: half of some wheels.

A library is loaded by its segments (elf(5)); sections are for linkers and debuggers. What lies
behind the last segment goes, and with it the table of sections.
"""

import struct
import sys
from pathlib import Path

MAGIC = b"\x7fELF\x02\x01"
"""64 bits, little-endian: of the platforms for which there are images, all."""
SEGMENTS_AT, SECTIONS_AT, COUNTS_AT = 0x20, 0x28, 0x36
NEEDED = "QQQQ"
"""Of a segment: its offset, two addresses, its size in the file."""


def strip(file: Path) -> None:
    body = bytearray(file.read_bytes())
    if not body.startswith(MAGIC):
        return
    (at,) = struct.unpack_from("<Q", body, SEGMENTS_AT)
    size, count = struct.unpack_from("<HH", body, COUNTS_AT)
    end = at + size * count
    for number in range(count):
        offset, _, _, length = struct.unpack_from(f"<{NEEDED}", body, at + number * size + 8)
        end = max(end, offset + length)
    struct.pack_into("<Q", body, SECTIONS_AT, 0)
    struct.pack_into("<HHH", body, COUNTS_AT + 4, 0, 0, 0)
    file.write_bytes(body[:end])


if __name__ == "__main__":
    for library in Path(sys.argv[1]).rglob("*.so*"):
        if library.is_file() and not library.is_symlink():
            strip(library)
