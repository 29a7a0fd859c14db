"""Runs uv: with the host's own configuration for it, and nothing else of ours."""

import asyncio
import contextlib
import os
import re
from pathlib import Path

NEEDS = {
    *("PATH", "HOME", "LANG", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"),
    *("SYSTEMROOT", "TEMP", "TMP", "USERPROFILE", "APPDATA", "LOCALAPPDATA"),
}
LONGEST_MESSAGE = 2000
NOTICE = re.compile(r"^Resolved \d+ packages? in .*\n?", re.MULTILINE)


class UvFailed(Exception):
    """The message is uv's own."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.unsatisfiable = code == 1
        """It understood what was asked of it, and cannot be so."""


async def uv(*arguments: str, given: bytes | None = None, within: Path | None = None) -> bytes:
    """Its standard output. `given` is its standard input, `within` its working folder.

    Raises UvFailed. A caller that is cancelled, or does not wait longer, ends it.
    """
    output, _ = await uv_telling(*arguments, given=given, within=within)
    return output


async def uv_telling(
    *arguments: str, given: bytes | None = None, within: Path | None = None
) -> tuple[bytes, str]:
    """Also what it warned of."""
    from uv import find_uv_bin  # noqa: PLC0415 - not needed where an interpreter is given

    process = await asyncio.create_subprocess_exec(
        *(find_uv_bin(), "--no-progress", "--color", "never", *arguments),
        stdin=asyncio.subprocess.DEVNULL if given is None else asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=_environment(),
        cwd=within,
    )
    try:
        output, told = await process.communicate(given)
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise
    said = NOTICE.sub("", told.decode(errors="replace")).strip()
    if process.returncode != 0:
        raise UvFailed(said[-LONGEST_MESSAGE:], process.returncode or 0)
    return output, said


def _environment() -> dict[str, str]:
    """What uv needs of ours; addresses and tokens of Openbell are none of its business."""
    passed = {
        name: value
        for name, value in os.environ.items()
        if name in NEEDS or name.upper().endswith("_PROXY") or name.startswith(("UV_", "SSL_"))
    }
    return {**passed, "NO_COLOR": "1"}
