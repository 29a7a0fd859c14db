"""The command line: what strategies print."""

import contextlib
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from openbell import client, show
from openbell.cli_options import FAILED, HERE, Json, Name, Url, confirm

app = typer.Typer()

TAIL_BYTES = 65_536
LINE_BYTES = 512
"""What a line is taken for, at first, when some are asked for."""
MOST_READ = 524_288
SECONDS = 10


@app.command()
def logs(
    name: Name,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as it writes.")] = False,
    run_id: Annotated[str | None, typer.Option("--run", help="An earlier run.")] = None,
    lines: Annotated[
        int | None, typer.Option("-n", "--lines", help="The last so many lines.", min=0, max=5000)
    ] = None,
    search: Annotated[
        str | None, typer.Option("--search", help="Only lines that hold this text.")
    ] = None,
    regex: Annotated[
        bool, typer.Option("--regex", help="What is searched is a regular expression.")
    ] = False,
    ignore_case: Annotated[bool, typer.Option("-i", help="Search whatever the case.")] = False,
    download: Annotated[
        Path | None, typer.Option("--download", help="Write all of it into a file, gzipped.")
    ] = None,
    clear: Annotated[
        bool, typer.Option("--clear", help="Drop all that it holds until now.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Json = False,
    url: Url = HERE,
) -> None:
    """Print a strategy's log, follow, search, download or clear it."""
    wanted = {
        "--follow": follow,
        "--search": search is not None,
        "--download": download is not None,
        "--clear": clear,
    }
    chosen = [option for option, given in wanted.items() if given]
    if len(chosen) > 1:
        raise typer.BadParameter(f"give one of {' and '.join(chosen)}")
    if as_json and (follow or download is not None or (lines is not None and search is None)):
        raise typer.BadParameter("--json is not for --follow, --download, or a number of lines")
    if regex and search is None:
        raise typer.BadParameter("--regex says how --search TEXT is meant")
    with client.connect(url) as openbell:
        log = Log(openbell, openbell.find(name), run_id)
        if search is not None:
            _search(log, search, regex=regex, ignore_case=ignore_case, most=lines, as_json=as_json)
        elif download is not None:
            _download(log, download)
        elif clear:
            _clear(log, yes=yes, as_json=as_json)
        else:
            _print(log, lines, follow=follow, as_json=as_json)


class Log:
    """The log of one run."""

    def __init__(self, openbell: client.Client, strategy: dict[str, Any], run: str | None) -> None:
        self.openbell = openbell
        self.strategy = strategy
        self.path = f"/python/logs/{strategy['id']}"
        self.params: dict[str, Any] = {"run": run} if run else {}

    def read(self, **params: Any) -> dict[str, Any]:
        return self.openbell.request("GET", self.path, params=self.params | params)


def _print(log: Log, lines: int | None, *, follow: bool, as_json: bool) -> None:
    view = log.read(limit=MOST_READ, offset=_tail_bytes(lines))
    if as_json:
        show.raw(view)
        return
    if view["first"] and view["offset"] == view["first"]:
        print(f"(the first {view['first']} bytes were dropped)", file=sys.stderr)
    text = view["content"]
    if lines is not None:
        text = "".join(text.splitlines(keepends=True)[-lines:] if lines else [])
    with show.log() as write:
        write(text)
        if not follow:
            return
        for kind, data in log.openbell.followed_log(
            log.path, {"run": view["run_id"]}, f"{view['generation']}-{view['next_offset']}"
        ):
            if kind == "lines":
                write(data["content"])
            else:
                print(f"({data['reason']})", file=sys.stderr)


def _tail_bytes(lines: int | None) -> int:
    if lines is None:
        return -TAIL_BYTES
    return -min(MOST_READ, max(TAIL_BYTES, lines * LINE_BYTES))


def _search(
    log: Log, text: str, *, regex: bool, ignore_case: bool, most: int | None, as_json: bool
) -> None:
    """The oldest first, as they are in the log."""
    params = {
        **log.params,
        "text": text,
        "regex": regex,
        "ignore_case": ignore_case,
        "limit": min(500, most or 500),
        "seconds": SECONDS,
    }
    found = log.openbell.request("GET", f"{log.path}/search", params=params)
    if as_json:
        show.raw(found)
        return
    with show.log() as write:
        for hit in reversed(found["hits"]):
            write(f"{hit['line']}\n")
    if found["passed_over"]:
        print(f"({found['passed_over']} lines took too long)", file=sys.stderr)
    if found["before"] is not None:
        why = "its time was over" if found["cut_short"] else "there may be more"
        print(f"({why}: what lies before byte {found['before']} was not searched)", file=sys.stderr)
    if not found["hits"]:
        raise typer.Exit(FAILED)


def _download(log: Log, file: Path) -> None:
    """Whole or not at all: what was there by this name stays, until all of it has come."""
    draft = file.with_name(f".{file.name}.part")
    try:
        with draft.open("wb") as out:
            size = sum(
                out.write(piece)
                for piece in log.openbell.export(f"{log.path}/download", log.params)
            )
        draft.replace(file)
    except OSError as error:
        raise client.Refused(f"{file}: {error.strerror}") from None
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
    print(f"{file}: {size} bytes")


def _clear(log: Log, *, yes: bool, as_json: bool) -> None:
    latest: dict[str, Any] = log.strategy["run"] or {}
    run: str | None = log.params.get("run") or latest.get("id")
    if run is None:
        raise client.Refused("it has not run yet")
    confirm(f"Drop the log of {run}?", yes=yes)
    answer = log.openbell.request("DELETE", log.path, params={"run": run})
    if as_json:
        show.raw(answer)
    else:
        print(f"{run} is cleared{': ' + answer['note'] if answer['note'] else ''}")
